"""Train a small convolutional network to read handwritten digits, then use it on your own.

python digit_recognition.py                        train on MNIST, evaluate, plot
python digit_recognition.py --epochs 1             train for one epoch only
python digit_recognition.py --data SET             train on another data set
python digit_recognition.py --evaluate --data SET  evaluate the trained model on other data
python digit_recognition.py --predict photo.jpg    read the digits in a picture
python digit_recognition.py --draw                 draw digits and watch them being read
"""

import argparse
import contextlib
import faulthandler
import glob
import gzip
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from collections import namedtuple
from functools import partial
from pathlib import Path


@contextlib.contextmanager
def silenced():
    """Hide what TensorFlow prints on stderr (file 2) while it loads, whatever its log level."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    stderr = os.dup(2) if sys.__stderr__ else nowhere  # pythonw has no stderr
    faulthandler.enable(stderr)  # still report a crash
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)


os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # old processors: 36 ms a step, 49 without it
with silenced():
    import keras
    import matplotlib.pyplot as plt
    import numpy as np
    import tensorflow as tf
    from keras import layers
    from matplotlib.backends import BackendFilter, backend_registry
    from matplotlib.widgets import Button, LassoSelector
    from PIL import Image, ImageDraw, ImageOps
    from scipy import ndimage
    from scipy.stats import binomtest, skew
    from sklearn.metrics import ConfusionMatrixDisplay, classification_report, log_loss
    from sklearn.model_selection import train_test_split


class InputError(ValueError):
    """The user's input cannot be used. main prints the message: what is wrong and what to do."""


# ---------------------------------------------------------------------------------------- Data
BUNDLED_DATA = Path(globals().get("__file__", "cell")).resolve().with_name("data") / "mnist.npz"


def load_mnist():
    """Return (x_train, y_train), (x_test, y_test): images uint8 (n, 28, 28), labels uint8 (n,)."""
    try:
        if not BUNDLED_DATA.exists():
            return keras.datasets.mnist.load_data()
        with np.load(BUNDLED_DATA) as mnist:
            return (mnist["x_train"], mnist["y_train"]), (mnist["x_test"], mnist["y_test"])
    except Exception as error:  # many types, of a damaged file or a failed download
        raise InputError(f"{BUNDLED_DATA}: {error}; get this file from the project again") from None


def load_data(path=None, limit=None):
    """Return training, validation and test data, each (images, labels), and the number of classes.

    The data is MNIST, or the data set at path. Images are uint8 (n, height, width, 1), labels uint8
    (n,). limit keeps only the first images of the training set and of the test set. One twelfth of
    the training images, at most 5,000, is held out for validation: the same ones in every run.
    """
    (x_train, y_train), (x_test, y_test) = read_data_set(path) if path else load_mnist()
    classes = int(y_train.max()) + 1
    x_train, y_train = x_train[:limit, ..., np.newaxis], y_train[:limit]
    x_test, y_test = x_test[:limit, ..., np.newaxis], y_test[:limit]
    if len(x_train) < 12:
        raise InputError(f"at least 12 training images are needed, not {len(x_train)}")
    x_train, x_val, y_train, y_val = train_test_split(
        x_train, y_train, test_size=min(5000, len(x_train) // 12), random_state=0
    )
    return (x_train, y_train), (x_val, y_val), (x_test, y_test), classes


# --------------------------------------------------------------------------------------- Model
def build_model(image_shape, classes, settings):
    """Return an untrained Keras model: raw pixels (n, height, width, 1) in, probabilities out."""
    # settings are the command line's options; parse_settings has their defaults.
    # Batch normalization (Ioffe and Szegedy, 2015) adds a bias, so convolutions need none. The low
    # momentum lets its moving averages keep up in a short run.
    return keras.Sequential(
        [
            keras.Input(image_shape, name="pixels"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(settings.filters[0], settings.kernel_sizes[0], use_bias=False),
            # Pooling first leaves fewer values to normalize, which saves 10 % of the time.
            layers.MaxPooling2D(settings.pool_sizes[0]),
            layers.BatchNormalization(momentum=0.5),
            layers.Activation(settings.activation),
            layers.Conv2D(settings.filters[1], settings.kernel_sizes[1], use_bias=False),
            layers.MaxPooling2D(settings.pool_sizes[1]),
            layers.BatchNormalization(momentum=0.5),
            layers.Activation(settings.activation),
            layers.Flatten(),
            layers.Dense(settings.dense_units, use_bias=False),
            layers.BatchNormalization(momentum=0.5),
            layers.Activation(settings.activation),
            layers.Dense(classes, activation="softmax", name="probabilities"),
        ],
        name="digit_recognition",
    )


# ------------------------------------------------------------------------------------ Training
# Smaller betas than Keras's defaults raise accuracy by 0.1 percentage points after one epoch.
OPTIMIZERS = {
    "adam": partial(keras.optimizers.Adam, beta_1=0.7, beta_2=0.9),
    "adamw": partial(keras.optimizers.AdamW, beta_1=0.7, beta_2=0.9),
    "muon": partial(keras.optimizers.Muon, adam_beta_1=0.7, adam_beta_2=0.9),
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": partial(keras.optimizers.SGD, momentum=0.9, nesterov=True),
}
PEAK_LEARNING_RATES = {"adam": 0.01, "adamw": 0.01, "muon": 0.01, "rmsprop": 0.002, "sgd": 0.1}


def random_affine(images):
    """Return images (n, height, width, 1), each shifted, rotated, scaled and sheared at random."""
    count, height, width, _ = images.shape
    # A matrix close to the identity rotates, scales and shears. The new pixel at p = (x, y) is the
    # old one at matrix @ (p - centre) + centre + shift = matrix @ p + offset.
    matrix = tf.eye(2) + tf.random.normal((count, 2, 2), stddev=0.08)
    shift = tf.random.normal((count, 2), stddev=width / 28)
    centre = tf.constant([(width - 1) / 2, (height - 1) / 2])
    offset = centre + shift - tf.linalg.matvec(matrix, centre)
    # Keras takes eight numbers for each image: both rows of matrix and offset, then two zeros.
    rows = tf.concat([matrix, offset[..., tf.newaxis]], axis=2)
    transforms = tf.pad(tf.reshape(rows, (count, 6)), [[0, 0], [0, 2]])
    return keras.ops.image.affine_transform(images, transforms)


def vary_strokes(images):
    """Return images (n, height, width, 1), half of them with thicker or thinner strokes."""
    # Gamma correction, by 1/4 to 4, moves the soft edges of strokes outwards or inwards.
    half = images.shape[0] // 2
    gamma = 4 ** tf.random.uniform((half, 1, 1, 1), -1, 1)
    return tf.concat([255 * (images[:half] / 255) ** gamma, images[half:]], axis=0)


def augment(images, labels):
    """Return a batch of images, changed at random as other people might write, and its labels."""
    return vary_strokes(random_affine(tf.cast(images, "float32"))), labels


def training_batches(images, labels, settings):
    """Return a Dataset of batches of images and labels, shuffled and augmented in each epoch."""
    batches = tf.data.Dataset.from_tensor_slices((images, labels))
    batches = batches.shuffle(len(images), seed=settings.seed)
    # Drop the incomplete last batch: augment needs a fixed batch size.
    batches = batches.batch(min(settings.batch_size, len(images)), drop_remainder=True)
    if settings.augment:
        # Not in parallel, which would make the random numbers unpredictable. They are the same in
        # each epoch, but shuffling gives them to other images.
        batches = batches.map(augment)
    options = tf.data.Options()
    # Autotuning delays the end of each epoch: three epochs took 10.2 s with it, 6.5 s without.
    options.autotune.enabled = False
    return batches.prefetch(2).with_options(options)


def compile_model(model, steps, settings):
    """Compile the model; its learning rate rises for a fifth of the steps, then falls to 0."""
    warmup_steps = steps // 5
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=settings.learning_rate,
        warmup_steps=warmup_steps,
        decay_steps=steps - warmup_steps,
    )
    model.compile(
        optimizer=OPTIMIZERS[settings.optimizer](schedule),
        # Label smoothing raised accuracy on writers not trained on by 0.17 percentage points.
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.05),
        metrics=["accuracy"],
        steps_per_execution=16,  # returns to Python less often
    )


def prepare_backups(settings):
    """Return the folder for a run's backups: with --resume as it was left, otherwise a new one."""
    unfinished = settings.output_dir / "unfinished"
    record = unfinished / "settings.json"
    may_differ = dict.fromkeys(("resume", "show", "output_dir", "model"))
    current = json.dumps(vars(settings) | may_differ, default=str)
    if not settings.resume:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        record.write_text(current)
    elif not record.exists() or record.read_text() != current:
        raise InputError(f"{unfinished} has no run with these options; fix them or omit --resume")
    return unfinished


def train(model, batches, validation, settings):
    """Train the model; return its history, a structured array with a record for each epoch."""
    unfinished = prepare_backups(settings)
    model.fit(
        batches,
        epochs=settings.epochs,
        validation_data=validation,
        validation_batch_size=500,
        callbacks=[
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.BackupAndRestore(unfinished, delete_checkpoint=False),
            keras.callbacks.CSVLogger(unfinished / "history.csv", append=True),
        ],
        verbose=1 if sys.stdout.isatty() else 2,  # a progress bar, or one line per epoch
    )
    # What fit returns lacks the epochs before --resume.
    history = np.genfromtxt(unfinished / "history.csv", delimiter=",", names=True, ndmin=1)
    history["epoch"] += 1  # Keras counts from 0
    if not np.isfinite(history["loss"]).all():
        shutil.rmtree(unfinished)
        raise InputError("the loss became NaN or infinite; lower --learning-rate")
    return history


# ---------------------------------------------------------------------------------- Evaluation
def score(labels, probabilities):
    """Return a dict of test metrics, from labels (n,) and probabilities (n, classes)."""
    correct = int((probabilities.argmax(axis=1) == labels).sum())
    interval = binomtest(correct, len(labels)).proportion_ci(0.95, method="wilson")
    return {
        "test_accuracy": correct / len(labels),
        "test_interval": [interval.low, interval.high],
        "test_errors": len(labels) - correct,
        "test_images": len(labels),
        "test_loss": log_loss(labels, probabilities, labels=range(probabilities.shape[1])),
    }


def print_report(labels, probabilities, metrics):
    """Print precision and recall of each class, then test loss and accuracy."""
    classes = range(probabilities.shape[1])
    predicted = probabilities.argmax(axis=1)
    print(classification_report(labels, predicted, labels=classes, digits=4, zero_division=0))
    print(f"Test loss: {metrics['test_loss']:.4f} (without label smoothing)")
    accuracy, (low, high) = metrics["test_accuracy"], metrics["test_interval"]
    wrong = f"{metrics['test_errors']} of {metrics['test_images']} wrong"
    interval = f"95 % confidence interval {100 * low:.2f}-{100 * high:.2f} %"
    print(f"Test accuracy: {100 * accuracy:.2f} % ({wrong}, {interval})", flush=True)


# ------------------------------------------------------------------------------------- Figures
BLUE, ORANGE = "#0072b2", "#d55e00"  # safe for colour-blind people (Okabe and Ito, 2008)


def plot_history(history):
    """Return a figure of training and validation accuracy and loss over the epochs."""
    figure = plt.figure("Training curves", (10, 4), layout="constrained", clear=True)
    for axes, name in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        axes.plot(history["epoch"], history[name], "o-", color=BLUE, label="training")
        axes.plot(history["epoch"], history[f"val_{name}"], "s--", color=ORANGE, label="validation")
        axes.set(xlabel="epoch", ylabel=name, title=f"{name.capitalize()} over the epochs")
        axes.set_xlim(0.5, len(history["epoch"]) + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def plot_digits(images, labels, probabilities, title="Test images"):
    """Return a figure of up to 28 images with predicted and true labels, mistakes in orange."""
    figure = plt.figure(title, (10, 6.5), layout="constrained", clear=True)
    figure.suptitle(title)
    grid = figure.subplots(4, 7, subplot_kw={"frame_on": False, "xticks": [], "yticks": []})
    for axes, image, label, scores in zip(grid.flat, images, labels, probabilities, strict=False):
        predicted = scores.argmax()
        color, mark = ("black", "") if predicted == label else (ORANGE, " WRONG")
        axes.imshow(image[..., 0], cmap="gray_r")
        text = f"predicted {predicted}, true {label}\n{scores.max():.1%}{mark}"
        axes.set_title(text, fontsize=9, color=color)
    return figure


def plot_mistakes(images, labels, probabilities):
    """Return a figure of the misread images, those with the most confident predictions first."""
    mistakes = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    worst = mistakes[np.argsort(-probabilities[mistakes].max(axis=1))]
    return plot_digits(images[worst], labels[worst], probabilities[worst], "The worst mistakes")


def plot_confusion(labels, probabilities):
    """Return a figure of the confusion matrix."""
    classes = probabilities.shape[1]
    side = np.clip(0.6 * classes, 6.5, 30)  # inches: 6.5 fit on a laptop's screen
    figure = plt.figure("Confusion matrix", (side, side), layout="constrained", clear=True)
    display = ConfusionMatrixDisplay.from_predictions(
        labels,
        probabilities.argmax(axis=1),
        labels=range(classes),
        ax=figure.subplots(),
        cmap="Blues",
        colorbar=False,
        im_kw={"norm": "symlog"},  # makes one mistake visible beside 1,000 correct answers
    )
    for zero in display.text_[display.confusion_matrix == 0]:
        zero.remove()
    display.ax_.set_title("Test images by true and predicted label")
    return figure


# ------------------------------------------------------------------------------- The whole run
def save_training(model, history, folder):
    """Save the trained model and its history, then remove what only --resume needs."""
    # With a new optimizer, the saved model can be trained further: the learning rate ended at 0.
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    model.save(folder / "unfinished" / "model.keras")  # if this fails, an earlier model stays
    os.replace(folder / "unfinished" / "model.keras", folder / "model.keras")
    names = ",".join(history.dtype.names)
    np.savetxt(folder / "history.csv", history, "%.6g", delimiter=",", header=names, comments="")
    shutil.rmtree(folder / "unfinished", ignore_errors=True)


def evaluate(model, images, labels, folder, details):
    """Evaluate the model on test images: save metrics and details, print them, save figures."""
    folder.mkdir(parents=True, exist_ok=True)
    probabilities = model.predict(images, batch_size=500, verbose=0)
    metrics = score(labels, probabilities)
    details["parameters"] = model.count_params()
    details["machine"] = f"{platform.platform()}, {os.cpu_count()} cores, Python {sys.version}"
    details["versions"] = {module.__name__: module.__version__ for module in (tf, keras, np)}
    (folder / "metrics.json").write_text(json.dumps(metrics | details, indent=1, default=str))
    print(f"Saving results and figures to {folder}")
    print_report(labels, probabilities, metrics)
    plot_digits(images, labels, probabilities).savefig(folder / "sample_predictions.png", dpi=120)
    plot_confusion(labels, probabilities).savefig(folder / "confusion_matrix.png", dpi=120)
    plot_mistakes(images, labels, probabilities).savefig(folder / "mistakes.png", dpi=120)


def train_and_evaluate(settings):
    """Load the data; build, train and save the model; evaluate it and plot its history."""
    (x_train, y_train), (x_val, y_val), test, classes = load_data(settings.data, settings.limit)
    missing = sorted(set(range(classes)) - set(y_train.tolist()))
    if missing:
        print(f"No training image has one of the labels {missing}")
    y_train = keras.utils.to_categorical(y_train, classes)  # label smoothing needs one-hot labels
    y_val = keras.utils.to_categorical(y_val, classes)
    keras.utils.set_random_seed(settings.seed)
    try:
        model = build_model(x_train.shape[1:], classes, settings)
    except ValueError as error:
        raise InputError(f"use smaller --kernel-sizes or --pool-sizes: {error}") from None
    model.summary()
    batches = training_batches(x_train, y_train, settings)
    compile_model(model, settings.epochs * len(batches), settings)
    used = len(batches) * min(settings.batch_size, len(x_train))
    print(f"Training on {used} of {len(x_train)} images, validating on {len(x_val)}", flush=True)
    start, cpu_start = time.perf_counter(), time.process_time()
    history = train(model, batches, (x_val, y_val), settings)
    details = {"settings": vars(settings), "train_seconds": time.perf_counter() - start}
    details["train_cpu_seconds"] = time.process_time() - cpu_start

    save_training(model, history, settings.output_dir)
    evaluate(model, *test, settings.output_dir, details)
    plot_history(history).savefig(settings.output_dir / "training_curves.png", dpi=120)


# ---------------------------------------------------------------------------- Other data sets
DATA_FORM = 'np.savez("set.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)'
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
# A name of each of ARRAYS. MNIST's test images are in t10k-images, other sets' in test-images.
IDX_FILES = ("*train-images*", "*train-labels*", "*[kt]-images*", "*[kt]-labels*")


def read_idx(folder, pattern):
    """Return the uint8 array in the only IDX file (yann.lecun.com/exdb/mnist) like pattern."""
    files = [file for file in folder.glob(pattern) if file.is_file() and file.name[0] != "."]
    names = sorted(file.name for file in files)
    if len({name.removesuffix(".gz") for name in names}) != 1:
        raise ValueError(f"one file {pattern} is needed, found: {', '.join(names) or 'none'}")
    content = (folder / names[0]).read_bytes()
    content = gzip.decompress(content) if names[0].endswith(".gz") else content
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"{names[0]} begins with {content[:3].hex()}, not 000008 (IDX, bytes)")
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + shape.nbytes).reshape(shape)


def check_part(images, labels):
    """Return grey images as uint8 (n, height, width), labels as uint8 (n,), or raise ValueError."""
    if images.dtype.kind not in "buif" or labels.dtype.kind not in "buif":
        raise ValueError(f"images are {images.dtype}, labels {labels.dtype}, not numbers")
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if labels.ndim == 2 and labels.shape[1] > 1 and (labels.sum(axis=1) == 1).all():
        labels = labels.argmax(axis=1)  # they are one-hot
    if images.ndim != 3 or images.size == 0 or not len(images) == len(labels) == labels.size:
        raise ValueError(f"shapes {images.shape}, {labels.shape} are not (n, height, width), (n,)")
    if not 0 <= images.min() <= images.max() <= 255:
        raise ValueError(f"pixels are from {images.min()} to {images.max()}, not from 0 to 255")
    if not np.isin(labels, range(100)).all():
        raise ValueError("labels are not whole numbers from 0 to 99")
    if images.max() <= 1:
        images = np.rint(images * np.float32(255))
    return images.astype(np.uint8), labels.astype(np.uint8).ravel()


def read_data_set(path):
    """Return (x_train, y_train), (x_test, y_test) of the data set at path, or raise InputError."""
    try:
        if path.is_dir():
            x_train, y_train, x_test, y_test = (read_idx(path, pattern) for pattern in IDX_FILES)
            if any(path.glob("emnist-*")):
                print("EMNIST's images are stored transposed, and are now turned upright")
                x_train, x_test = x_train.swapaxes(1, 2), x_test.swapaxes(1, 2)
        else:
            # NumPy alone would report any other file as a pickle.
            with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as stored:
                x_train, y_train, x_test, y_test = (stored[name] for name in ARRAYS)
        training, test = check_part(x_train, y_train), check_part(x_test, y_test)
        if training[0].shape[1:] != test[0].shape[1:] or test[1].max() > training[1].max():
            raise ValueError("its test images have another size, or labels absent from training")
    except Exception as error:  # many types, of a damaged file
        advice = f"--data takes a folder of IDX files, or what NumPy saves by {DATA_FORM}"
        raise InputError(f"{path}: {error}; {advice}") from None
    if training[0].max() < 64:
        print(f"The brightest pixel of the training images is {training[0].max()}, not 255")
    return training, test


def load_model(path, image_shape=(28, 28, 1)):
    """Return the Keras model in a .keras file (its code is never run); InputError if unfit."""
    try:
        with zipfile.ZipFile(path):  # Keras reports a damaged file as missing
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
        output = np.asarray(model(np.zeros((1, *model.input_shape[1:]))))
        if output.ndim != 2 or not np.isclose(output.sum(), 1):
            raise ValueError("its output is not a probability for each class")
    except Exception as error:  # many types, of a file that is no model
        raise InputError(f"{path}: no model; train one, or name one by --model: {error}") from None
    if model.input_shape[1:] != image_shape:
        raise InputError(f"{path} takes images of {model.input_shape[1:]}, not of {image_shape}")
    return model


def evaluate_trained(settings):
    """Evaluate the trained model on the test images of a data set."""
    _, (images, labels) = read_data_set(settings.data) if settings.data else load_mnist()
    images, labels = images[: settings.limit, ..., np.newaxis], labels[: settings.limit]
    model = load_model(settings.model, images.shape[1:])
    if labels.max() >= model.output_shape[1]:
        raise InputError(f"{settings.model} has no output for the label {labels.max()}")
    folder = settings.output_dir / "evaluation"
    evaluate(model, images, labels, folder, {"settings": vars(settings)})


# ------------------------------------------------------------------- Your own images: the picture
Image.MAX_IMAGE_PIXELS = 250_000_000  # some phones take photos of 200 megapixels


def without_transparency(image):
    """Return a Pillow image in grey, put on white or black, whichever gives more contrast."""
    image = image.convert("RGBA")
    white, black = (Image.new("RGBA", image.size, color) for color in ("white", "black"))
    on_white, on_black = (Image.alpha_composite(ground, image) for ground in (white, black))
    return max(on_white.convert("L"), on_black.convert("L"), key=np.std)


def open_grey(source):
    """Return a grey, upright Pillow image, and its scale: how many original pixels a pixel spans.

    source: a path, a Pillow image, or an array, uint8 (height, width) or (height, width, 1).
    """
    if isinstance(source, np.ndarray):
        source = Image.fromarray(source[..., 0] if source.shape[2:] == (1,) else source)
    image = source if isinstance(source, Image.Image) else Image.open(source)
    longer_side = max(image.size)
    if image is not source:
        image.draft("L", (1700, 1700))  # decodes a large JPEG at a fraction of its size
    with contextlib.suppress(Exception):  # its EXIF data may be damaged
        image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # more than 8 bits, which convert() would clip
        values = np.asarray(image, np.float32) - np.min(image)
        image = Image.fromarray(np.uint8(255 * values / max(values.max(), 1e-9)))
    image = without_transparency(image) if image.has_transparency_data else image.convert("L")
    # At 3 megapixels, digits 3 mm high on a page of A4 still have 20 pixels.
    shrink = max(1, (image.width * image.height / 3_000_000) ** 0.5)
    image.thumbnail([side / shrink for side in image.size])
    return image, longer_side / max(image.size)


def dark_on_light(image):
    """Yield the grey Pillow image if its writing may be dark, its negative if it may be light."""
    small = np.asarray(image.resize((128, 128), Image.BOX), np.float32)
    contrast = small - ndimage.gaussian_filter(small, 16)
    median = np.median(small)
    # Even in deep shadow, paper is not darker than the mean around it, which dark strokes lower.
    if median >= 64 or np.median(contrast) > -0.1 * contrast.std():
        yield image
    # Strokes differ most from their surroundings: dark ones skew the differences to the negative.
    if median <= 160 and skew(contrast, axis=None) >= -1:
        yield ImageOps.invert(image)


def pyramid(page):
    """Yield a grey Pillow image, enlarged if it is small, and smaller and smaller copies of it."""
    smallest = np.clip(max(page.size) / 8, 60, 100)  # smaller copies show only a page's edges
    if min(page.size) >= 8 and max(page.size) < 130:
        page = ImageOps.contain(page, (130, 130))
    elif 250 <= max(page.size) < 600:  # several rows in it leave few pixels for a digit
        page = ImageOps.scale(page, 2)
    while min(page.size) >= 8 and max(page.size) > smallest:
        yield page
        page = ImageOps.scale(page, 0.5**0.5, Image.BILINEAR)


# ----------------------------------------------------------------------- Your own images: the ink
EDGE = 0.4  # ink at the edge of a stroke; in its middle it is about 1


def without_lines(ink, length):
    """Return ink, float (height, width), without thin level or upright lines of length pixels."""
    lines = np.zeros_like(ink)
    for across, along in (((9, 1), (1, length)), ((1, 9), (length, 1))):
        wide = ndimage.grey_dilation(ink, across)  # so that a line may be slightly slanted
        line = ndimage.grey_opening(wide, along)
        thin = ink - ndimage.grey_opening(ink, across)  # what crosses a line is not thin
        lines = np.maximum(lines, np.minimum(line, thin))
    return ink - lines


def without_boxes(ink, threshold):
    """Return ink, float (height, width), without boxes: parts over threshold on all four sides."""
    plain = ink.copy()
    components, _ = ndimage.label(ink > threshold, np.ones((3, 3)))
    for number, place in enumerate(ndimage.find_objects(components), start=1):
        own = components[place] == number
        depth = min(own.shape) // 5  # to this depth, a round 0 covers less of its sides
        margins = own[:depth], own[-depth:], own.T[:depth], own.T[-depth:]
        if depth > 2 and all(margin.any(axis=0).mean() > 0.83 for margin in margins):
            box = np.pad(plain[place], 8)  # so that sides at its edge count as thin
            plain[place] = without_lines(box, round(0.8 * min(own.shape)))[8:-8, 8:-8]
    return plain


def lift_ink(page):
    """Return two arrays of a grey Pillow image, float32 (height, width): its ink and its paper.

    Ink is 0 on paper and about 1 in dark strokes: how much darker a pixel is than the paper there.
    The paper is a grey closing: it lacks strokes, which are dark and narrow, but not shadows.
    Dividing by the root of its brightness makes the grain equal everywhere. The constants here and
    below were chosen on the pages of tests/pages.py.
    """
    grey = ndimage.gaussian_filter(np.asarray(page, np.float32), 1)
    paper = ndimage.grey_closing(grey, (41, 41))  # wider than strokes, in pixels
    ink = (paper - grey) / np.sqrt(np.maximum(paper, 10))
    # Every fourth row is enough for the medians, and saves 6 % of the time.
    grain = np.median(abs(np.diff(ink, axis=0)[::4]))
    ink = (ink - np.median(ink[::4])).clip(0)  # grain makes the closing too bright
    plain = without_lines(ink, 150)  # longer than the strokes of a digit, in pixels
    # The level of strokes: a mean in which paper hardly counts, but well above the grain. The floor
    # of 2.6 is a stroke 41 of 255 grey levels darker than white paper.
    level = max(np.average(plain, weights=plain**1.5 + 1e-9), 27 * grain, 2.6)
    # Faint boxes need a low threshold; boxes that touch a shadow need a high one.
    boxless = without_boxes(without_boxes(ink / level, EDGE / 2), EDGE)
    return np.minimum(plain / level, boxless), paper


# -------------------------------------------------------------------- Your own images: the digits
# A connected part of a page's ink: its place, slices of rows and columns; its size in pixels; its
# own ink; whether the border of the page cuts it.
Part = namedtuple("Part", "place height width ink is_cut")


def may_be_digit(part, around, page_shape):
    """Return whether a part may be a digit; around: all ink in its place, float (height, width)."""
    if max(part.width, part.height) < 7 or part.height > 170:  # others are found in other copies
        return False
    steepness = ndimage.gaussian_gradient_magnitude(around, 1)
    if np.percentile(steepness[part.ink > 0], 80) <= 0.1:  # a shadow has soft edges
        return False
    # What the border cuts is a fold or the edge of something, unless it is large for the picture.
    return not part.is_cut or part.ink.size > min(page_shape) ** 2 / 8


def possible_digits(ink, near):
    """Return parts of ink, float (height, width), joined by the mask near, that may be digits."""
    border = np.ones(ink.shape, bool)
    border[1:-1, 1:-1] = False
    components, _ = ndimage.label(near, np.ones((3, 3)))  # corners touch
    # Each part grows by a pixel, its soft edge; what is not beside ink is dropped.
    components = np.where(components, components, ndimage.maximum_filter(components, 3))
    components = components * ndimage.binary_dilation(ink > EDGE)
    parts = []
    for number, place in enumerate(ndimage.find_objects(components), start=1):
        if place is None:  # cut_apart left a piece without ink
            continue
        own = np.where(components[place] == number, ink[place], 0)
        is_cut = (own[border[place]] > EDGE).any()
        part = Part(place, *own.shape, own, is_cut)
        if may_be_digit(part, ink[place], ink.shape):
            parts.append(part)
    return parts


def cut_apart(near, parts, usual):
    """Return the mask near without the places where parts, made of several digits, are thinnest."""
    near = near.copy()
    for part in parts:
        rows, columns = part.place
        height = max(usual, part.height)
        count = round(part.width / (0.8 * height))
        room = height // 4  # how far a cut may be from where equal shares meet
        thickness = part.ink.sum(axis=0)
        for number in range(1, count):
            start = part.width * number // count - room
            cut = columns.start + start + thickness[start : start + 2 * room + 1].argmin()
            near[rows, cut] = False
    return near


def find_digits(page):
    """Return the digits of a grey Pillow image, a list of parts, and their share of its ink."""
    ink, paper = lift_ink(page)
    near = ndimage.binary_dilation(ink > EDGE, np.ones((7, 1)))  # joins a 5 and its bar
    parts = possible_digits(ink, near)
    heights = [part.height for part in parts if part.height > 14]  # others are specks
    # Of two middle heights take the larger: the smaller may be a large speck.
    usual = sorted(heights)[len(heights) // 2] if heights else 0
    wide = [part for part in parts if part.width >= 1.5 * max(usual, part.height)]
    if wide:
        parts = possible_digits(ink, cut_apart(near, wide, usual))
    parts = [part for part in parts if max(14, 0.5 * usual) < part.height < 2.5 * usual]
    # Strokes have paper on both sides. The edge of something wide has it on one side only.
    evenness = [paper[part.place].min() / paper[part.place].max() for part in parts]
    if parts and np.mean(evenness) < 0.65:
        parts = []
    written = sum(np.count_nonzero(part.ink > EDGE) for part in parts)
    return parts, written / max(1, np.count_nonzero(ink > EDGE))


def to_mnist_form(ink):
    """Return a digit's ink, float (height, width), as MNIST has it: uint8 (28, 28)."""
    # The width of a line is its area over half its outline. Thin lines are widened to a twelfth of
    # the digit's size: MNIST's are about a tenth.
    outline = np.hypot(*np.gradient(ink)).sum()
    missing = round(max(ink.shape) / 12 - 2 * ink.sum() / max(outline, 1e-9))
    if missing > 0:
        ink = ndimage.grey_dilation(np.pad(2 * ink, missing), (missing + 1, missing + 1))
    # Scaled into 20 x 20 and centred by its mass (LeCun et al., 1998, section III.A).
    image = Image.fromarray(np.uint8(np.clip(280 * ink - 55, 0, 255)))  # ink from 0.2 to 1.1
    image = image.crop(image.point(lambda value: 255 * (value > 60)).getbbox())
    digit = np.asarray(ImageOps.autocontrast(ImageOps.contain(image, (20, 20))))
    top, left = np.rint(ndimage.center_of_mass(digit)).astype(int)
    return np.pad(digit, 14)[top : top + 28, left : left + 28]  # 14 on either side of the centre


# ------------------------------------------------------------------- Your own images: the reading
CONFIDENT = 0.8  # 2 % of the validation images score lower, with three quarters of the mistakes

# A digit that was read: probabilities, float32 (classes,), of which the label has the highest; the
# box's left, top, width, height in pixels of the upright original; the image that the network saw;
# whether the border of the picture cuts it.
Digit = namedtuple("Digit", "label probability probabilities box image is_cut")
# What was read in a picture: rows of digits, the grey picture, and its scale (see open_grey).
Reading = namedtuple("Reading", "rows image scale")


def classify(parts, scale, model):
    """Return parts as digits; a pixel of their page is scale pixels of the original."""
    images = np.stack([to_mnist_form(part.ink) for part in parts])
    predictions = model.predict_on_batch(images[..., np.newaxis])
    digits = []
    for part, image, probabilities in zip(parts, images, predictions, strict=True):
        rows, columns = part.place
        # A box leaves out the soft edge, a pixel wide.
        edges = columns.start + 1, rows.start + 1, part.width - 2, part.height - 2
        box = tuple(round(scale * edge) for edge in edges)
        label, probability = int(probabilities.argmax()), float(probabilities.max())
        digits.append(Digit(label, probability, probabilities, box, image, part.is_cut))
    return digits


def evidence(digits):
    """Return how convincing digits are: more so if they are confident, large, and many."""
    total = 0
    for digit in digits:
        # A probability of 0.7 counts as 0. The power keeps a large blot from winning.
        weight = (digit.probability - 0.7) * max(digit.box[2:]) ** 0.6
        total += 0.6 * weight if digit.label == 1 else weight  # a piece of a digit looks like a 1
    return total


def is_writing(digits, share):
    """Return whether digits, with this share of all ink, are writing, not lines or other things."""
    sure = [digit for digit in digits if digit.label != 1 and digit.probability >= CONFIDENT]
    ones = [digit for digit in digits if digit.label == 1]
    if len(sure) >= 3 and len(ones) <= len(digits) / 2:  # the sides of boxes look like many 1s
        return True
    if any(digit.is_cut for digit in digits):
        # One or two digits reach the border only if they fill the picture.
        return share > 0.95 and (len(digits) == 1 or len(digits) == len(sure))
    # Uncertain digits and 1s that are not level are the pieces of a line.
    _, tops, _, heights = np.transpose([digit.box for digit in digits])
    are_level = np.ptp(tops) < 0.7 * heights.min()
    return share > 0.8 and (are_level or len(sure) >= len(digits) / 2)


def are_sure(digits):
    """Return whether digits are all confident and whole, and not only 1s, which lines look like."""
    whole = all(digit.probability >= CONFIDENT and not digit.is_cut for digit in digits)
    return whole and any(digit.label != 1 for digit in digits)


def into_rows(digits):
    """Return digits in rows, left to right: neighbours' tops differ by less than a height."""
    usual = np.median([digit.box[3] for digit in digits])
    rows = []
    for digit in sorted(digits, key=lambda digit: digit.box):
        offsets = [abs(digit.box[1] - row[-1].box[1]) for row in rows]
        if offsets and min(offsets) < usual:
            rows[np.argmin(offsets)].append(digit)
        else:
            rows.append([digit])
    return sorted(rows, key=lambda row: np.mean([digit.box[1] for digit in row]))


def row_texts(rows, doubt=""):
    """Return a text for each row of digits, with the text doubt after each doubtful one."""
    texts = []
    for row in rows:
        words = [f"{digit.label}{'' if digit.probability >= CONFIDENT else doubt}" for digit in row]
        texts.append((" " if len(row[0].probabilities) > 10 else "").join(words))
    return texts


def most_convincing(candidates):
    """Return the best digits of candidates, (digits, share of all ink); [] if none are writing."""
    sure_texts = [row_texts(into_rows(digits)) for digits, _ in candidates if are_sure(digits)]
    writing = []
    for digits, share in candidates:
        # What two copies surely show is writing, whatever else is in the picture.
        if is_writing(digits, share) or sure_texts.count(row_texts(into_rows(digits))) >= 2:
            writing.append(digits)
    return max(writing, key=evidence, default=[])


def read_digits(source, model):
    """Return the Reading of a picture (see open_grey), or raise InputError if it shows no digit."""
    name = source if isinstance(source, str | Path) else "image"
    try:
        image, scale = open_grey(source)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{name}: no picture; name one, or a folder of pictures") from None
    except Exception as error:  # many types, of a damaged file
        raise InputError(f"{name}: {error}; save it again, as a PNG or JPEG") from None
    candidates = []  # the digits of each copy, and their share of its ink
    for page in dark_on_light(image):
        for copy in pyramid(page):
            parts, share = find_digits(copy)
            if parts:
                digits = classify(parts, scale * max(image.size) / max(copy.size), model)
                candidates.append((digits, share))
    digits = most_convincing(candidates)
    if not digits:
        raise InputError(f"{name}: no digit stands out from the paper; write larger or clearer")
    return Reading(into_rows(digits), image, scale)


# --------------------------------------------------------------------- Your own images: --predict
def describe(path, rows, true_label, as_json):
    """Return a line with what was read in an image, and its true label, if that is not None."""
    digits = [digit for row in rows for digit in row]
    if as_json:
        found = {"file": str(path), "digits": "\n".join(row_texts(rows))}
        found["probabilities"] = [round(digit.probability, 4) for digit in digits]
        found["boxes"] = [digit.box for digit in digits]
        found["confident"] = all(digit.probability >= CONFIDENT for digit in digits)
        return json.dumps(found if true_label is None else found | {"true": true_label})
    shares = ", ".join(f"{digit.label} {100 * digit.probability:.1f} %" for digit in digits)
    is_wrong = true_label is not None and not is_correct(rows, true_label)
    mistake = f"  WRONG, true {true_label}" if is_wrong else ""
    return f"{path}: {' / '.join(row_texts(rows, doubt='?'))}  ({shares}){mistake}"


def is_correct(rows, true_label):
    """Return whether a single digit was read, with the true label."""
    return [digit.label for row in rows for digit in row] == [true_label]


def plot_reading(axes, reading):
    """Draw the written part of a picture on Matplotlib axes, with a box around each digit."""
    digits = [digit for row in reading.rows for digit in row]
    width, height = (reading.scale * side for side in reading.image.size)
    axes.imshow(reading.image, cmap="gray", extent=(0, width, height, 0))
    for digit in digits:
        color = BLUE if digit.probability >= CONFIDENT else ORANGE
        left, top, *size = digit.box
        axes.add_patch(plt.Rectangle((left, top), *size, fill=False, color=color))
        axes.text(left, top, digit.label, color=color, fontsize=9, ha="right", va="bottom")
    # Zoom in: on a whole page, the labels would cover the writing.
    lefts, tops, widths, heights = np.transpose([digit.box for digit in digits])
    around = 2 * max(widths.max(), heights.max())
    axes.set_xlim(max(0, lefts.min() - around), min(width, (lefts + widths).max() + around))
    axes.set_ylim(min(height, (tops + heights).max() + around), max(0, tops.min() - around))


def as_page(rows):
    """Return what the network saw of rows of digits, side by side: uint8 (height, width)."""
    strips = [np.hstack([digit.image for digit in row]) for row in rows]
    width = max(strip.shape[1] for strip in strips)
    padded = [np.pad(strip, ((0, 0), (0, width - strip.shape[1]))) for strip in strips]
    return np.vstack(padded)


def plot_readings(readings):
    """Return a figure of {path: Reading}: pictures with boxes, and what the network saw."""
    figure = plt.figure("What was read", (10, 3 * len(readings)), layout="constrained", clear=True)
    grid = figure.subplots(len(readings), 2, squeeze=False, subplot_kw={"xticks": [], "yticks": []})
    for (original, seen), (path, reading) in zip(grid, readings.items(), strict=True):
        plot_reading(original, reading)
        name = path.name.encode(errors="ignore").decode()  # without what no font can draw
        original.set_title(name, fontsize=9, parse_math=False, pad=14)  # above the labels
        seen.imshow(as_page(reading.rows), cmap="gray_r")
        seen.set_title("what the network saw", fontsize=9)
    return figure


def find_images(paths):
    """Return the paths of images, each folder replaced by its images, sorted by name."""
    known = [suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN]
    found = []
    for path in paths:
        name = os.path.expanduser(path)  # Windows leaves ~ and * to the program
        names = [name] if os.path.exists(name) else sorted(glob.glob(name)) or [name]
        for match in map(Path, names):
            files = sorted(match.glob("[!.]*")) if os.path.isdir(match) else []
            images = [file for file in files if file.suffix.lower() in known]
            skipped = [file.name for file in files if file not in images]
            if skipped:
                print_error(f"{match}: skipped {', '.join(skipped)}; save pictures as PNG or JPEG")
            found += images or [match]
    return found


def predict(settings):
    """Read the images of --predict, draw the first 20; return 1 if any could not be read."""
    model = load_model(settings.model)
    paths = find_images(settings.predict)
    folders = [path.parent.name for path in paths]  # their true labels, as in mine/7/photo.jpg
    labelled = set(folders) <= {str(label) for label in range(model.output_shape[1])}
    readings, results = {}, []
    for path, folder in zip(paths, folders, strict=True):
        label = int(folder) if labelled else None
        try:
            reading = read_digits(path, model)
        except InputError as error:
            print_error(error)
            continue
        print(describe(path, reading.rows, label, settings.json), flush=True)
        results.append(is_correct(reading.rows, label))
        if len(results) <= 20:
            readings[path] = reading
    if readings:
        settings.output_dir.mkdir(parents=True, exist_ok=True)
        plot_readings(readings).savefig(settings.output_dir / "predictions.png", dpi=120)
        if not settings.json:
            print(f"See {settings.output_dir / 'predictions.png'} (the first 20 pictures at most)")
    if labelled and not settings.json:
        print(f"correct: {sum(results)} of {len(paths)} ({sum(results) / len(paths):.1%})")
    return 0 if len(results) == len(paths) else 1


# ---------------------------------------------------------------------------- A pad to draw on
def draw_strokes(strokes):
    """Return strokes, lists of (x, y) in pixels, as a grey Pillow image, black on white."""
    image = Image.new("L", (800, 400), 255)
    pen = ImageDraw.Draw(image)
    for stroke in strokes:
        pen.line(stroke, fill=0, width=25)  # MNIST's 2.4 of 20 pixels, in half the pad's height
        for point in stroke:
            pen.circle(point, 12, fill=0)
    return image


class Pad:
    """A Matplotlib figure to draw digits on, which are read at the end of each stroke."""

    def __init__(self, figure, model, folder):
        self.canvas, self.model, self.folder, self.strokes = figure.canvas, model, folder, []
        places = [["pad", "pad", "seen"], ["pad", "pad", "bars"], ["clear", "undo", "bars"]]
        self.axes = figure.subplot_mosaic(places, height_ratios=[5, 5, 1])
        figure.subplots_adjust(left=0.02, right=0.98, bottom=0.06, top=0.9, hspace=0.4)
        self.paper = self.axes["pad"].imshow(draw_strokes([]), cmap="gray", vmin=0, vmax=255)
        pen = {"color": "black", "linewidth": 15, "solid_capstyle": "round"}
        self.lasso = LassoSelector(self.axes["pad"], self.end_stroke, props=pen)
        self.buttons = [Button(self.axes["clear"], "Clear"), Button(self.axes["undo"], "Undo")]
        self.buttons[0].on_clicked(lambda event: self.act("c"))
        self.buttons[1].on_clicked(lambda event: self.act("z"))
        self.canvas.mpl_connect("key_press_event", lambda event: self.act(event.key))
        self.canvas.mpl_connect("axes_leave_event", lambda event: self.end_stroke(self.lasso.verts))
        self.show()

    def end_stroke(self, stroke):
        """Keep the stroke, a list of (x, y), if one was being drawn."""
        self.lasso.verts = None  # the lasso ignores the mouse until it is pressed again
        if stroke:
            self.strokes.append(stroke)
            self.show()

    def act(self, key):
        """Carry out the command of a key or a button."""
        self.end_stroke(self.lasso.verts)
        if key == "c":
            self.strokes.clear()
        elif key == "z":
            del self.strokes[-1:]
        elif key == "s":
            path = self.folder / time.strftime("drawing-%Y%m%d-%H%M%S.png")
            draw_strokes(self.strokes).save(path)
            print(f"Saved {path}", flush=True)
        self.show()

    def show(self):
        """Read the drawing; show the digits, what the network saw, and the last digit's bars."""
        drawing, seen, bars = draw_strokes(self.strokes), self.axes["seen"], self.axes["bars"]
        labels = range(self.model.output_shape[1])
        seen.clear()
        bars.clear()
        try:
            # The margin is for strokes at the edge. A quarter of the size: 14 ms, not 90.
            rows = read_digits(ImageOps.expand(drawing.reduce(4), 10, 255), self.model).rows
            self.axes["pad"].set_title(" / ".join(row_texts(rows)), fontsize=24)
            seen.imshow(as_page(rows), cmap="gray_r")
            bars.bar(labels, rows[-1][-1].probabilities, color=BLUE)
        except InputError:
            start = "No digit was read." if self.strokes else "Draw digits here."
            self.axes["pad"].set_title(f"{start}  Keys: c clear, z undo, s save, q quit")
        self.paper.set_data(drawing)
        self.axes["pad"].set(xticks=[], yticks=[])
        seen.set(title="what the network saw", xticks=[], yticks=[])
        bars.set(title="probability of the last digit", ylim=(0, 1), xticks=labels, yticks=[])
        self.canvas.draw_idle()


def draw(settings, windows):
    """Open a window with a pad in it, or raise InputError if windows cannot open."""
    if not windows:
        display = "a display (python3-tk on Linux) and neither --no-show nor --json"
        browser = "a browser, tornado and MPLBACKEND=webagg"
        raise InputError(f"--draw cannot open a window; it needs {display}, or {browser}")
    # Matplotlib's other keys would give the pad's a second meaning.
    others = [name for name in plt.rcParams.find_all("keymap") if name != "keymap.quit"]
    plt.rcParams.update({name: [] for name in others}, toolbar="None")
    model = load_model(settings.model)
    settings.output_dir.mkdir(parents=True, exist_ok=True)
    figure = plt.figure("Draw digits", (10, 5))
    figure.pad = Pad(figure, model, settings.output_dir)  # keeps its callbacks alive


# -------------------------------------------------------------------------------- Command line
def positive_integer(text):
    """Return the positive integer that an argument stands for."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def parse_settings(arguments=None):
    """Return the settings that command-line arguments ask for; exit with code 2 on a mistake."""
    parser = argparse.ArgumentParser(
        usage="python digit_recognition.py [options]    (--help lists them)",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    one = {"type": positive_integer, "metavar": "N"}
    two = {"type": positive_integer, "metavar": "N", "nargs": 2}
    functions = ("relu", "gelu", "silu", "tanh")

    add = parser.add_argument
    add("--data", type=Path, metavar="SET", help="folder or .npz file (default: MNIST)")
    add("--limit", **one, help="use only the first N training and N test images")
    add("--output-dir", type=Path, default="output", metavar="FOLDER", help="(default: output)")
    add("--no-show", dest="show", action="store_false", help="only save figures, open no windows")

    add = parser.add_argument_group("model (two numbers: one for each convolution)").add_argument
    add("--filters", **two, default=[16, 64], help="number of filters (default: 16 64)")
    add("--kernel-sizes", **two, default=[5, 3], help="kernel size in pixels (default: 5 3)")
    add("--pool-sizes", **two, default=[3, 2], help="pooling window in pixels (default: 3 2)")
    add("--dense-units", **one, default=128, help="units of the dense layer (default: 128)")
    add("--activation", choices=functions, default="relu", help="(default: relu)")

    add = parser.add_argument_group("training").add_argument
    add("--epochs", **one, default=5, help="passes over the training images (default: 5)")
    add("--batch-size", **one, default=128, help="images per training step (default: 128)")
    add("--optimizer", choices=OPTIMIZERS, default="adam", help="(default: adam)")
    add("--learning-rate", type=float, metavar="RATE", help="peak (default: depends on optimizer)")
    add("--no-augment", dest="augment", action="store_false", help="train on unchanged images")
    add("--seed", type=int, default=0, metavar="N", help="seed of random numbers (default: 0)")
    add("--resume", action="store_true", help="continue an interrupted run; repeat its options")

    group = parser.add_argument_group("use a trained model instead of training one")
    group.add_argument("--model", type=Path, metavar="FILE", help="(default: FOLDER/model.keras)")
    group.add_argument("--json", action="store_true", help="print what --predict reads as JSON")
    add = group.add_mutually_exclusive_group().add_argument
    add("--evaluate", action="store_true", help="evaluate it on --data")
    add("--predict", type=Path, nargs="+", metavar="IMAGE", help="read images or folders of them")
    add("--draw", action="store_true", help="open a window to draw digits on")

    settings = parser.parse_args(arguments)
    if settings.learning_rate is None:
        settings.learning_rate = PEAK_LEARNING_RATES[settings.optimizer]
    if not 0 < settings.learning_rate < float("inf"):
        parser.error(f"--learning-rate {settings.learning_rate} must be above 0 and finite")
    if settings.batch_size == 1:
        parser.error("--batch-size 1 is too small: batch normalization compares images")
    if settings.seed not in range(2**32):
        parser.error(f"--seed {settings.seed} is not an integer from 0 to {2**32 - 1}")
    if settings.model and not (settings.evaluate or settings.predict or settings.draw):
        parser.error("--model is for --evaluate, --predict and --draw; training creates a new one")
    settings.model = settings.model or settings.output_dir / "model.keras"
    settings.show = settings.show and not settings.json  # JSON is for other programs
    return settings


def print_error(error):
    """Print an error as one line on stderr."""
    print("digit_recognition.py:", " ".join(str(error).split())[:500], file=sys.stderr, flush=True)


def windows_open():
    """Return whether Matplotlib can open windows; if it cannot, have it only save figures."""
    backend = plt.get_backend()
    no_windows = backend_registry.list_builtin(BackendFilter.NON_INTERACTIVE)
    if backend.lower() in no_windows or "inline" in backend:  # a notebook shows figures by itself
        return False
    # In a process of its own, since a toolkit that lacks a library may abort the process.
    check = "import sys; sys.tracebacklimit = 0; import matplotlib.pyplot as plt; plt.figure()"
    env = os.environ | {"MPLBACKEND": backend}
    result = subprocess.run([sys.executable, "-c", check], env=env, capture_output=True, text=True)
    if result.returncode != 0:
        print_error(f"figures are saved, but {backend} cannot show them: {result.stderr}")
        plt.switch_backend("agg")
    return result.returncode == 0


def show_windows():
    """Show all figures in windows that fit on a laptop's screen, until they are closed."""
    for figure in map(plt.figure, plt.get_fignums()):
        width, height = figure.get_size_inches()
        figure.dpi = min(figure.dpi, 1300 / width, 650 / height)
    if __name__ == "__main__":
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # else Tk waits for the mouse to move
    plt.show(block=True)


def run(settings):
    """Do what the settings ask for; return the exit code."""
    plt.style.use("default")  # whatever the user's matplotlibrc and keras.json say
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    if not settings.show:
        plt.switch_backend("agg")
    windows = settings.show and windows_open()
    code = 0
    if settings.predict:
        code = predict(settings)
    elif settings.evaluate:
        evaluate_trained(settings)
    elif settings.draw:
        draw(settings, windows)
    else:
        train_and_evaluate(settings)
    if windows:
        show_windows()
    return code


def main(arguments=None):
    """Run with command-line arguments; return the exit code, errors printed as one line."""
    settings = parse_settings(arguments)
    try:
        return run(settings)
    except (InputError, OSError) as error:
        print_error(error)
    except (MemoryError, tf.errors.ResourceExhaustedError):
        print_error("not enough memory; lower --batch-size or --limit, or use smaller images")
    except KeyboardInterrupt:
        training = not (settings.predict or settings.evaluate or settings.draw)
        resume = training and (settings.output_dir / "unfinished").exists()
        print_error("interrupted; --resume continues the training" if resume else "interrupted")
        return 130
    return 1


if __name__ == "__main__":
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, pythonw has none
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):  # IDLE's has no such method
        sys.stdout.reconfigure(errors="backslashreplace")
    warnings.simplefilter("ignore")  # Pillow's, about damaged metadata
    sys.exit(main(sys.argv[1:] if "__file__" in globals() else []))
