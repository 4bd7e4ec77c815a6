"""Train a small convolutional network to read handwritten digits, then read your own with it.

python digit_recognition.py                        train on MNIST, evaluate, plot
python digit_recognition.py --epochs 1             train for one epoch only
python digit_recognition.py --data SET             train on another data set
python digit_recognition.py --evaluate --data SET  evaluate the trained model on other data
python digit_recognition.py --predict photo.jpg    read the digits in a picture
python digit_recognition.py --draw                 draw digits and watch them being read

On a laptop, training takes half a minute; it then reads 99.6 % of the test images right.
"""

import argparse
import contextlib
import glob
import gzip
import json
import os
import platform
import shutil
import signal
import sys
import time
import warnings
import zipfile
from collections import namedtuple
from functools import partial
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # on old processors, a step takes 36 ms, not 49
nowhere = os.open(os.devnull, os.O_WRONLY)
saved_stderr = os.dup(2) if sys.__stderr__ else nowhere  # pythonw has no stderr
os.dup2(nowhere, 2)  # hide what TensorFlow prints while it loads, despite its log level
try:
    import keras
    import matplotlib.pyplot as plt
    import numpy as np
    import tensorflow as tf
    from keras import layers, ops
    from matplotlib.backends import BackendFilter, backend_registry
    from matplotlib.transforms import Bbox
    from matplotlib.widgets import Button, LassoSelector
    from PIL import Image, ImageDraw, ImageOps, PngImagePlugin
    from scipy import ndimage
    from scipy.stats import binomtest, skew
    from sklearn.metrics import ConfusionMatrixDisplay, classification_report, log_loss
    from sklearn.model_selection import train_test_split
finally:
    os.dup2(saved_stderr, 2)


class InputError(ValueError):
    """The user's input cannot be used. main prints the message: what is wrong and what to do."""


@contextlib.contextmanager
def naming(file, advice):
    """Turn any error of a damaged or foreign file into an InputError that names it, with advice."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # many types
        raise InputError(f"{file}: {error}; {advice}") from None


# The settings of a run. The command line, in the last section, has an option for each: --epochs 1.
# Functions that take settings get all options, as an argparse.Namespace: settings.epochs.
DEFAULTS = {
    "filters": (16, 64),  # of the first convolution and of the second
    "kernel_sizes": (5, 3),  # in pixels
    "pool_sizes": (3, 2),  # in pixels
    "dense_units": 128,
    "activation": "relu",
    "epochs": 5,  # passes over the training images
    "batch_size": 128,  # images per training step
    "optimizer": "adam",  # its learning rate: PEAK_LEARNING_RATES, below
    "augment": True,  # change training images at random
    "seed": 0,  # of the random numbers
}


# ---------------------------------------------------------------------------------------- Data
# A notebook's cell has no __file__: there, the data is looked for in the working folder.
BUNDLED_DATA = Path(globals().get("__file__", "cell")).resolve().with_name("data") / "mnist.npz"


def load_mnist():
    """Return (x_train, y_train), (x_test, y_test): images uint8 (n, 28, 28), labels uint8 (n,)."""
    with naming(BUNDLED_DATA, "get this file from the project again"):
        if not BUNDLED_DATA.exists():
            return keras.datasets.mnist.load_data()
        with np.load(BUNDLED_DATA) as mnist:
            return (mnist["x_train"], mnist["y_train"]), (mnist["x_test"], mnist["y_test"])


def load_data(path=None, limit=None):
    """Return training, validation and test data, each (images, labels), and the number of classes.

    The data is MNIST, or the data set at path. Images are uint8 (n, height, width, 1), labels uint8
    (n,). limit keeps only the first images of the training set and of the test set. One twelfth of
    the training images, at most 5,000, is held out for validation: the same ones in every run.
    """
    (x_train, y_train), (x_test, y_test) = read_data_set(Path(path)) if path else load_mnist()
    classes = int(y_train.max()) + 1
    x_train, y_train = x_train[:limit, ..., np.newaxis], y_train[:limit]
    x_test, y_test = x_test[:limit, ..., np.newaxis], y_test[:limit]
    if len(x_train) < 12 or len(np.unique(y_train)) < 2:
        raise InputError(f"{path or 'MNIST'}: at least 12 training images and 2 labels are needed")
    x_train, x_val, y_train, y_val = train_test_split(
        x_train, y_train, test_size=min(5000, len(x_train) // 12), random_state=0
    )
    return (x_train, y_train), (x_val, y_val), (x_test, y_test), classes


# --------------------------------------------------------------------------------------- Model
def normalization(image_shape):
    """Return a Keras model that scales each image: light strokes on 0, standard deviation 1."""
    height, width, _ = image_shape
    images = keras.Input(image_shape)
    standardize = layers.LayerNormalization(axis=(1, 2, 3), epsilon=1e-6, center=False, scale=False)
    standardized = standardize(images)
    # The background is the mean of the border, a pixel wide. All pixels now sum to 0, so the
    # border's 2 * (height + width) - 4 pixels sum to minus the sum of those inside.
    inner_sum = ops.sum(standardized[:, 1:-1, 1:-1], axis=(1, 2, 3), keepdims=True)
    background = -inner_sum / (2 * (height + width) - 4)
    light_on_dark = (standardized - background) * ops.sign(inner_sum)
    return keras.Model(images, light_on_dark, name="normalization")


def build_model(image_shape, classes, settings):
    """Return an untrained Keras model: pixels (n, height, width, 1) in, probabilities out."""
    # Batch normalization (Ioffe and Szegedy, 2015) adds a bias, so the layers before it need none.
    # Keras's default momentum of 0.99 averages over 100 steps, too many for a short run.
    return keras.Sequential(
        [
            keras.Input(image_shape, name="pixels"),
            normalization(image_shape),
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
# Momentum and betas say how much of the earlier steps' gradients a step averages in. Averaging in
# less than Keras's default betas do raises accuracy by 0.1 percentage points after one epoch.
OPTIMIZERS = {
    "adam": partial(keras.optimizers.Adam, beta_1=0.7, beta_2=0.9),
    "rmsprop": keras.optimizers.RMSprop,
    "sgd": partial(keras.optimizers.SGD, momentum=0.9, nesterov=True),
}
PEAK_LEARNING_RATES = {"adam": 0.01, "rmsprop": 0.002, "sgd": 0.1}


def random_affine(images):
    """Return images (n, height, width, 1), each shifted, rotated, scaled and sheared at random."""
    count, height, width, _ = images.shape
    # A matrix close to the identity rotates, scales and shears. The new pixel at p = (x, y) is the
    # old one at matrix @ (p - centre) + centre + shift = matrix @ p + offset.
    matrix = tf.eye(2) + tf.random.normal((count, 2, 2), stddev=0.08)
    shift = tf.random.normal((count, 2), stddev=width / 28)
    centre = tf.constant([(width - 1) / 2, (height - 1) / 2])
    offset = centre + shift - tf.linalg.matvec(matrix, centre)
    # Keras takes eight numbers for each image: the rows of [matrix, offset], then two zeros.
    rows = tf.concat([matrix, offset[..., tf.newaxis]], axis=2)
    transforms = tf.pad(tf.reshape(rows, (count, 6)), [[0, 0], [0, 2]])
    return ops.image.affine_transform(images, transforms, fill_mode="nearest")


def augment(images, labels):
    """Return a batch of images, changed at random to look like other writing, and its labels."""
    images = random_affine(tf.cast(images, "float32"))
    quarter = images.shape[0] // 4
    half, third_quarter, rest = tf.split(images, [2 * quarter, quarter, -1])
    # Gamma correction, by 1/4 to 4, moves the soft edges of strokes outwards or inwards.
    gamma = 4 ** tf.random.uniform((2 * quarter, 1, 1, 1), -1, 1)
    thicker_or_thinner = 255 * (half / 255) ** gamma
    noisy = third_quarter + tf.random.normal(third_quarter.shape, stddev=50)
    return tf.concat([thicker_or_thinner, noisy, rest], axis=0), labels


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
    # Autotuning delays the end of each epoch: without it, three epochs took a third less time.
    options.autotune.enabled = False
    return batches.prefetch(2).with_options(options)


def compile_model(model, steps, settings):
    """Compile the model; its learning rate rises for a fifth of the steps, then falls to 0."""
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=settings.learning_rate,  # without a slow start, the first steps are too large
        warmup_steps=steps // 5,
        decay_steps=steps - steps // 5,
    )
    model.compile(
        optimizer=OPTIMIZERS[settings.optimizer](schedule),
        # Label smoothing raised accuracy on writers not trained on by 0.17 percentage points.
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.05),
        metrics=["accuracy"],
        steps_per_execution=16,  # in each call from Python
    )


def train(model, batches, validation, settings):
    """Train the model; return its history, a structured array with a record for each epoch."""
    unfinished = settings.output_dir / "unfinished_run"
    if not settings.resume:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        (unfinished / "settings.json").write_text(json.dumps(vars(settings), default=str))
    model.fit(
        batches,
        epochs=settings.epochs,
        validation_data=validation,
        validation_batch_size=500,
        callbacks=[
            keras.callbacks.TerminateOnNaN(),
            # The next two keep what --resume needs. Of two checkpoints, one is always whole.
            keras.callbacks.BackupAndRestore(
                unfinished / "backup", double_checkpoint=True, delete_checkpoint=False
            ),
            keras.callbacks.CSVLogger(unfinished / "history.csv", append=True),
        ],
        verbose=1 if sys.stdout.isatty() else 2,  # a progress bar, or one line per epoch
    )
    # What fit returns lacks the epochs before --resume.
    history = np.genfromtxt(unfinished / "history.csv", delimiter=",", names=True, ndmin=1)
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


def plot_history(history, augmented):
    """Return a figure of accuracy and loss over the epochs; augmented is for the legend."""
    figure = plt.figure("Training curves", (10, 4), layout="constrained", clear=True)
    epochs = history["epoch"] + 1  # Keras counts from 0
    training = "training (augmented images)" if augmented else "training"
    for axes, name in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        axes.plot(epochs, history[name], "o-", color=BLUE, label=training)
        axes.plot(epochs, history[f"val_{name}"], "s--", color=ORANGE, label="validation")
        axes.set(xlabel="epoch", ylabel=name, title=f"{name.capitalize()} over the epochs")
        axes.set_xlim(0.5, len(epochs) + 0.5)
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
        # One mistake shows beside 1,000 correct answers on a log scale, and text on pale colours.
        im_kw={"norm": "symlog", "alpha": 0.6},
        text_kw={"color": "black"},
    )
    display.ax_.set_title("Test images by true and predicted label")
    return figure


# ------------------------------------------------------------------------------- The whole run
def save_training(model, folder):
    """Save the trained model and its history, then remove what only --resume needs."""
    unfinished = folder / "unfinished_run"
    # The learning rate has ended at 0. Compiled anew, the saved model can be trained further.
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    model.save(unfinished / "model.keras")  # if this fails, an earlier model stays
    os.replace(unfinished / "model.keras", folder / "model.keras")
    os.replace(unfinished / "history.csv", folder / "history.csv")
    shutil.rmtree(unfinished, ignore_errors=True)


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
    print(f"Training on {len(x_train)} images, validating on {len(x_val)}", flush=True)
    start, cpu_start = time.perf_counter(), time.process_time()
    history = train(model, batches, (x_val, y_val), settings)
    details = {"settings": vars(settings), "train_seconds": time.perf_counter() - start}
    details["train_cpu_seconds"] = time.process_time() - cpu_start
    save_training(model, settings.output_dir)
    evaluate(model, *test, settings.output_dir, details)
    curves = plot_history(history, settings.augment)
    curves.savefig(settings.output_dir / "training_curves.png", dpi=120)


# ---------------------------------------------------------------------------- Other data sets
DATA_FORM = 'np.savez("set.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)'
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
# Patterns of the files of ARRAYS: MNIST's test images are t10k-images, other sets' test-images.
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
    if images.max() <= 1.001:  # from 0 to 1, but for rounding
        images = np.rint(images * np.float32(255))
    return images.astype(np.uint8), labels.astype(np.uint8).ravel()


def read_data_set(path):
    """Return (x_train, y_train), (x_test, y_test) of the data set at path, or raise InputError."""
    with naming(path, f"--data takes a folder of IDX files, or what NumPy saves by {DATA_FORM}"):
        if path.is_dir():
            x_train, y_train, x_test, y_test = (read_idx(path, pattern) for pattern in IDX_FILES)
            if any(path.glob("emnist-*")):
                x_train, x_test = x_train.swapaxes(1, 2), x_test.swapaxes(1, 2)  # transposed
        else:
            # NumPy alone would report any other file as a pickle.
            with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as stored:
                x_train, y_train, x_test, y_test = (stored[name] for name in ARRAYS)
        training, test = check_part(x_train, y_train), check_part(x_test, y_test)
        if training[0].shape[1:] != test[0].shape[1:] or test[1].max() > training[1].max():
            raise ValueError("its test images have another size, or labels absent from training")
    return training, test


def load_model(path, image_shape=(28, 28, 1)):
    """Return the Keras model in a .keras file (its code is never run); InputError if unfit."""
    with naming(path, "train a model, or name one by --model"):
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
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


# -------------------------------------------------------------------------------- Your own images
CONFIDENT = 0.8  # 2 % of the validation images score lower, with three quarters of the mistakes

# A digit that was read: probabilities, float32 (classes,), of which the label has the highest; the
# box's left, top, width, height in pixels of the upright original; the image that the network saw;
# whether the border of the picture cuts it.
Digit = namedtuple("Digit", "label probability probabilities box image is_cut")
# What was read: rows of digits, the same digits in one list, the grey picture, and its scale: the
# size of one of its pixels in pixels of the original.
Reading = namedtuple("Reading", "rows digits image scale")


def read_digits(source, model):
    """Return the Reading of a path, Pillow image or uint8 array, or raise InputError."""
    name, advice = "image", "give a Pillow image or an array, uint8 (height, width)"
    if isinstance(source, str | Path):
        name, advice = source, "save it again, as a PNG or JPEG"
        if os.path.isdir(source) or not os.path.exists(source):
            raise InputError(f"{name}: no such file, or a folder without pictures")
    with naming(name, advice):
        image, scale = open_grey(source)
    candidates = []  # what each copy shows: digits, their share of all its ink, and their text
    for page in dark_on_light(image):
        for copy in pyramid(page):  # digits of any size have a good size in one copy
            parts, share = find_digits(copy)
            if parts:
                digits = classify(parts, scale * max(image.size) / max(copy.size), model)
                candidates.append((digits, share, row_texts(into_rows(digits))))
    digits = most_convincing(candidates)
    if not digits:
        raise InputError(f"{name}: no digit stands out from the paper; write larger or clearer")
    rows = into_rows(digits)
    return Reading(rows, [digit for row in rows for digit in row], image, scale)


# ------------------------------------------------------------------- Your own images: the picture
Image.MAX_IMAGE_PIXELS = 250_000_000  # some phones take photos of 200 megapixels
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**30  # bytes of text or profile


def without_transparency(image):
    """Return an RGBA Pillow image in grey, put on white or black, whichever gives more contrast."""
    white, black = (Image.new("RGBA", image.size, color) for color in ("white", "black"))
    on_white, on_black = (Image.alpha_composite(ground, image) for ground in (white, black))
    return max(on_white.convert("L"), on_black.convert("L"), key=np.std)


def open_grey(source):
    """Return the grey, upright Pillow image of a picture, and its scale (see Reading)."""
    if isinstance(source, np.ndarray):
        source = Image.fromarray(source[..., 0] if source.shape[2:] == (1,) else source)
    image = source if isinstance(source, Image.Image) else Image.open(source)
    longer_side = max(image.size)
    if image is not source:
        image.draft("L", (1700, 1700))  # decodes a large JPEG at a fraction of its size
    with contextlib.suppress(Exception):  # its EXIF data may be damaged
        image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # more than 8 bits, which convert() would clip
        values = np.nan_to_num(np.asarray(image, np.float32))
        values -= values.min()
        image = Image.fromarray(np.uint8(255 * values / max(values.max(), 1e-9)))
    is_transparent = image.has_transparency_data
    image = image.convert("RGBA" if is_transparent else "L")
    # At 3 megapixels, digits 3 mm high on a page of A4 still have 20 pixels.
    shrink = max(1, (image.width * image.height / 3_000_000) ** 0.5)
    image.thumbnail([side / shrink for side in image.size])
    scale = longer_side / max(image.size)
    return without_transparency(image) if is_transparent else image, scale


def dark_on_light(image):
    """Yield the grey Pillow image if its writing may be dark, its negative if it may be light."""
    small = np.asarray(image.resize((128, 128), Image.BOX), np.float32)
    # Strokes differ most from their surroundings: dark ones make the skewness negative.
    skewness = skew(small - ndimage.gaussian_filter(small, 16), axis=None)
    if skewness <= 2:  # dark writing in hard shadows has up to 2
        yield image
    if skewness >= -1:
        yield ImageOps.invert(image)


def pyramid(page):
    """Yield a grey Pillow image, enlarged if it is small, and smaller and smaller copies of it."""
    longer_side = max(page.size)
    smallest = np.clip(longer_side / 6, 60, 110)  # in smaller copies, shadows look like strokes
    if min(page.size) >= 8:  # in a small picture, several rows leave few pixels for a digit
        page = ImageOps.scale(page, max(1, min(2, 600 / longer_side), 130 / longer_side))
    while min(page.size) >= 8 and max(page.size) > smallest:
        yield page
        page = ImageOps.scale(page, 0.5**0.5, Image.BILINEAR)


# ----------------------------------------------------------------------- Your own images: the ink
# The constants from here on were chosen on the pages of tests/pages.py.
EDGE = 0.4  # ink at the edge of a stroke; in its middle it is about 1


def without_lines(ink, length):
    """Return ink, float (height, width), without thin lines, level or upright, of length pixels."""
    lines = np.zeros_like(ink)
    for across, along in (((9, 1), (1, length)), ((1, 9), (length, 1))):
        wide = ndimage.grey_dilation(ink, across)  # so that a line may be slightly slanted
        line = ndimage.grey_opening(wide, along)
        thin = ink - ndimage.grey_opening(ink, across)  # what crosses a line is not thin
        lines = np.maximum(lines, np.minimum(line, thin))
    return ink - lines


def without_boxes(ink, threshold):
    """Return ink, float (height, width), without boxes: parts over threshold on all four sides."""
    boxless = ink.copy()
    components, _ = ndimage.label(ink > threshold, np.ones((3, 3)))
    for number, place in enumerate(ndimage.find_objects(components), start=1):
        own = components[place] == number
        depth = min(own.shape) // 5  # to this depth, a round 0 covers less of its sides
        margins = own[:depth], own[-depth:], own.T[:depth], own.T[-depth:]
        if depth > 2 and all(margin.any(axis=0).mean() > 0.83 for margin in margins):
            box = np.pad(boxless[place], 8)  # so that sides at its edge count as thin
            boxless[place] = without_lines(box, round(0.8 * min(own.shape)))[8:-8, 8:-8]
    return boxless


def lift_ink(page):
    """Return two arrays of a grey Pillow image, float32 (height, width): its ink and its paper.

    Ink is 0 on paper and about 1 in dark strokes: how much darker a pixel is than the paper there.
    The paper is a grey closing: it lacks strokes, which are dark and narrow, but not shadows.
    Dividing by the root of its brightness makes the grain equal everywhere.
    """
    grey = ndimage.gaussian_filter(np.asarray(page, np.float32), 1)
    paper = ndimage.grey_closing(grey, (41, 41))  # wider than strokes, in pixels
    ink = (paper - grey) / np.sqrt(np.maximum(paper, 10))
    # Every fourth row is enough for the medians, and saves 6 % of the time.
    grain = np.median(abs(np.diff(ink, axis=0)[::4]))
    ink = (ink - np.median(ink[::4])).clip(0)  # grain makes the closing too bright
    lineless = without_lines(ink, 150)  # longer than the strokes of a digit, in pixels
    # The level of strokes: a mean in which paper hardly counts, but well above the grain. The floor
    # of 2.6 is a stroke 41 of 255 grey levels darker than white paper.
    level = max(np.average(lineless, weights=lineless**1.5 + 1e-9), 27 * grain, 2.6)
    # Boxes are found in ink, with its lines: faint ones by a low threshold, others by a high one.
    boxless = without_boxes(without_boxes(ink / level, EDGE / 2), EDGE)
    return np.minimum(lineless / level, boxless), paper


# -------------------------------------------------------------------- Your own images: the digits
# A connected part of a page's ink: its place, slices of rows and columns; its own ink, float
# (height, width); whether the border of the page cuts it.
Part = namedtuple("Part", "place ink is_cut")


def may_be_digit(part, ink):
    """Return whether a part of a page's ink may be a digit."""
    height, width = part.ink.shape
    # A thin 1 from the top of the page to its bottom is in the middle; a margin line is not.
    columns = part.place[1]
    middle = (columns.start + columns.stop) / 2 / ink.shape[1]
    is_tall_1 = height >= len(ink) - 2 and width < height / 8 and 0.4 < middle < 0.6
    if not (14 < height <= 170 or is_tall_1):  # a speck, or left to smaller copies
        return False
    # Any other part that the border cuts is a fold or the edge of something, unless it is large.
    if part.is_cut and part.ink.size <= min(ink.shape) ** 2 / 8 and not is_tall_1:
        return False
    steepness = ndimage.gaussian_gradient_magnitude(ink[part.place], 1)
    if not part.ink.any() or np.percentile(steepness[part.ink > 0], 80) <= 0.1:  # a shadow
        return False
    is_round = min(height, width) > 0.6 * max(height, width)
    is_full = (part.ink[1:-1, 1:-1] > EDGE).mean() > 0.73
    return not (is_round and is_full)  # a punched hole or a blot


def without_circles(parts):
    """Return parts, except those with another part within their box: circles around digits."""
    edges = []
    for part in parts:
        rows, columns = part.place
        edges.append([rows.start, columns.start, -rows.stop, -columns.stop])
    edges = np.reshape(edges, (-1, 4))  # all four are larger for a part within
    are_circles = (edges[:, np.newaxis] < edges).all(axis=2).any(axis=1)
    return [part for part, is_circle in zip(parts, are_circles, strict=True) if not is_circle]


def possible_digits(ink, joined):
    """Return parts of ink, float (height, width), within the mask joined, that may be digits."""
    border = np.ones(ink.shape, bool)
    border[1:-1, 1:-1] = False
    components, _ = ndimage.label(joined, np.ones((3, 3)))  # corners touch
    # Each part grows by a pixel, its soft edge; what is not beside ink is dropped.
    components = np.where(components, components, ndimage.maximum_filter(components, 3))
    components = components * ndimage.binary_dilation(ink > EDGE)
    parts = []
    for number, place in enumerate(ndimage.find_objects(components), start=1):
        if place:  # None where cut_apart left a piece without ink
            own = np.where(components[place] == number, ink[place], 0)
            parts.append(Part(place, own, (own[border[place]] > EDGE).any()))
    return without_circles([part for part in parts if may_be_digit(part, ink)])


def cut_apart(joined, parts, usual):
    """Return the mask joined, cut where parts that are several digits are thinnest."""
    joined = joined.copy()
    for part in parts:
        rows, columns = part.place
        height, width = part.ink.shape
        count = round(width / (0.8 * max(usual, height)))
        room = max(usual, height) // 4  # how far a cut may be from where equal shares meet
        thickness = part.ink.sum(axis=0)
        for number in range(1, count):
            start = width * number // count - room
            cut = start + thickness[start : start + 2 * room + 1].argmin()
            joined[rows, columns.start + cut] = False
    return joined


def find_digits(page):
    """Return the digits of a grey Pillow image, a list of parts, and their share of its ink."""
    ink, paper = lift_ink(page)
    joined = ndimage.binary_dilation(ink > EDGE, np.ones((7, 1)))  # joins a 5 to its bar
    parts = possible_digits(ink, joined)
    heights = [len(part.ink) for part in parts] or [0]
    usual = np.percentile(heights, 50, method="higher")
    limit = 1.4 if len(parts) > 1 else 1.5  # alone in a picture, a wide part is often one digit
    wide = [part for part in parts if part.ink.shape[1] >= limit * max(usual, len(part.ink))]
    if wide:
        parts = possible_digits(ink, cut_apart(joined, wide, usual))
    parts = [part for part in parts if 0.5 * usual < len(part.ink) < 2.5 * usual]
    # Strokes have paper on both sides. The edge of something wide has it on one side only.
    evenness = [paper[part.place].min() / paper[part.place].max() for part in parts]
    if parts and np.mean(evenness) < 0.65:
        return [], 0
    written = sum(np.count_nonzero(part.ink > EDGE) for part in parts)
    return parts, written / max(1, np.count_nonzero(ink > EDGE))


def to_mnist_form(ink):
    """Return a digit's ink, float (height, width), as MNIST has it: uint8 (28, 28)."""
    # Thin, pale strokes are doubled and widened to a twelfth of the digit's size (MNIST: a tenth).
    # A stroke's width is its area divided by half of its outline.
    outline = np.hypot(*np.gradient(ink)).sum()
    width = ink.sum() / max(outline / 2, 1e-9)
    missing = round(max(ink.shape) / 12 - width)
    if missing > 0:
        ink = ndimage.grey_dilation(np.pad(2 * ink, missing), (missing + 1, missing + 1))
    # Scaled into 20 x 20 and centred by its mass (LeCun et al., 1998, section III.A).
    image = Image.fromarray(np.uint8(np.clip(280 * ink - 55, 0, 255)))  # ink from 0.2 to 1.1
    image = image.crop(image.point(lambda value: 255 * (value > 60)).getbbox())
    digit = np.asarray(ImageOps.autocontrast(ImageOps.contain(image, (20, 20))))
    y, x = np.rint(ndimage.center_of_mass(digit)).astype(int)
    return np.pad(digit, 14)[y : y + 28, x : x + 28]  # 14 on either side of the centre


# ---------------------------------------------------------------- Your own images: what they show
def classify(parts, scale, model):
    """Return parts as digits; a pixel of their page is scale pixels of the original."""
    images = np.stack([to_mnist_form(part.ink) for part in parts])
    predictions = model.predict_on_batch(images[..., np.newaxis])
    digits = []
    for part, image, probabilities in zip(parts, images, predictions, strict=True):
        rows, columns = part.place
        height, width = part.ink.shape
        page_box = columns.start + 1, rows.start + 1, width - 2, height - 2  # without the soft edge
        box = tuple(round(scale * side) for side in page_box)
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
    # Three sure digits, not 1s, are enough, but not among many others, as in the grain of paper.
    if len(sure) >= max(3, len(digits) / 3):
        return True
    # Fewer must be most of the ink; where the border cuts them, nearly all, and one or all sure.
    if any(digit.is_cut for digit in digits):
        return share > 0.95 and (len(digits) == 1 or len(digits) == len(sure))
    # The pieces of a slanted line are neither sure nor level.
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
    """Return a text for each row: a space between numbers, doubt after each doubtful digit."""
    texts = []
    for row in rows:
        text, end = "", np.inf
        for digit in row:
            left, _, width, height = digit.box
            # A form's boxes spread the digits of a number. Labels above 9 need spaces in any case.
            if left - end > 1.5 * height or (text and len(digit.probabilities) > 10):
                text += " "
            text += str(digit.label) + ("" if digit.probability >= CONFIDENT else doubt)
            end = left + width
        texts.append(text)
    return texts


def most_convincing(candidates):
    """Return the best digits of candidates that are writing, with what others add; or []."""
    sure_texts = [text for digits, _, text in candidates if are_sure(digits)]
    writing = []
    for digits, share, text in candidates:
        # What two copies surely show is writing, whatever else is in the picture.
        if sure_texts.count(text) >= 2 or is_writing(digits, share):
            writing.append(digits)
    best, *others = sorted(writing, key=evidence, reverse=True) or [[]]
    for digits in filter(are_sure, others):  # digits of another size, elsewhere
        taken = [Bbox.from_bounds(*digit.box) for digit in best]
        for digit in digits:
            if Bbox.from_bounds(*digit.box).count_overlaps(taken) == 0:
                best = [*best, digit]
    return best


# --------------------------------------------------------------------- Your own images: --predict
def describe(path, reading, true_label, as_json):
    """Return a line, text or JSON, with what was read; true_label is None if it is not known."""
    if as_json:
        found = {"file": str(path), "digits": "\n".join(row_texts(reading.rows))}
        found["probabilities"] = [round(digit.probability, 4) for digit in reading.digits]
        found["boxes"] = [digit.box for digit in reading.digits]
        found["confident"] = all(digit.probability >= CONFIDENT for digit in reading.digits)
        return json.dumps(found if true_label is None else found | {"true": true_label})
    scores = ", ".join(f"{digit.label} {100 * digit.probability:.1f} %" for digit in reading.digits)
    line = f"{path}: {' / '.join(row_texts(reading.rows, doubt='?'))}  ({scores})"
    if true_label is not None and [digit.label for digit in reading.digits] != [true_label]:
        line += f"  WRONG, true {true_label}"
    return line


def plot_reading(axes, reading):
    """Draw the written part of a picture on Matplotlib axes, with a box around each digit."""
    width, height = (reading.scale * side for side in reading.image.size)
    axes.imshow(reading.image, cmap="gray", extent=(0, width, height, 0))
    for digit in reading.digits:
        color = BLUE if digit.probability >= CONFIDENT else ORANGE
        left, top, *size = digit.box
        axes.add_patch(plt.Rectangle((left, top), *size, fill=False, color=color))
        axes.text(left, top, digit.label, color=color, fontsize=9, ha="right", va="bottom")
    # Zoom in: on a whole page, the labels would cover the writing.
    lefts, tops, widths, heights = np.transpose([digit.box for digit in reading.digits])
    around = 2 * heights.max()
    axes.set_xlim(max(0, lefts.min() - around), min(width, (lefts + widths).max() + around))
    axes.set_ylim(min(height, (tops + heights).max() + around), max(0, tops.min() - around))


def as_page(rows):
    """Return what the network saw of rows of digits, side by side: uint8 (height, width)."""
    strips = [np.hstack([digit.image for digit in row]) for row in rows]
    width = max(strip.shape[1] for strip in strips)
    padded = [np.pad(strip, ((0, 0), (0, width - strip.shape[1]))) for strip in strips]
    return np.vstack(padded)


def plot_readings(readings):
    """Return a figure of pairs (path, Reading): pictures with boxes, and what the network saw."""
    figure = plt.figure("What was read", (10, 3 * len(readings)), layout="constrained", clear=True)
    grid = figure.subplots(len(readings), 2, squeeze=False, subplot_kw={"xticks": [], "yticks": []})
    for (original, seen), (path, reading) in zip(grid, readings, strict=True):
        plot_reading(original, reading)
        name = path.name.encode(errors="ignore").decode()  # without what no font has
        original.set_title(name, fontsize=9, parse_math=False, pad=14)  # above the labels
        seen.imshow(as_page(reading.rows), cmap="gray_r")
        seen.set_title("what the network saw", fontsize=9)
    return figure


def find_pictures(paths):
    """Return the paths of pictures; a folder stands for all files in it and in folders below."""
    found = []
    for path in map(os.path.expanduser, paths):  # Windows leaves ~ and * to the program
        pattern = glob.escape(path) if os.path.exists(path) else path
        for match in sorted(glob.glob(pattern)) or [path]:
            inside = glob.glob(os.path.join(glob.escape(match), "**", "*"), recursive=True)
            files = [Path(name) for name in sorted(inside) if not os.path.isdir(name)]
            found += files or [Path(match)]
    return found


def predict(settings):
    """Read the pictures of --predict, draw the first 20; return 1 if any could not be read."""
    model = load_model(settings.model)
    paths = find_pictures(settings.predict)
    labels = {str(label) for label in range(model.output_shape[1])}
    labelled = sum(path.parent.name in labels for path in paths)  # as in mine/7/photo.jpg
    readings, results = [], []
    for path in paths:
        try:
            reading = read_digits(path, model)
        except InputError as error:
            print_error(error)
            continue
        label = int(path.parent.name) if path.parent.name in labels else None
        print(describe(path, reading, label, settings.json), flush=True)
        results.append([digit.label for digit in reading.digits] == [label])
        if len(results) <= 20:
            readings.append((path, reading))
    if readings:
        settings.output_dir.mkdir(parents=True, exist_ok=True)
        plot_readings(readings).savefig(settings.output_dir / "predictions.png", dpi=120)
        if len(readings) > 4:  # more than a window shows well
            plt.close("What was read")
            plot_readings(readings[:4])
        if not settings.json:
            print(f"See {settings.output_dir / 'predictions.png'} (the first 20 pictures at most)")
    if labelled and not settings.json:
        print(f"correct: {sum(results)} of {labelled} ({sum(results) / labelled:.1%})")
    return 0 if len(results) == len(paths) else 1


# ---------------------------------------------------------------------------- A pad to draw on
def draw_strokes(strokes):
    """Return strokes, lists of (x, y) in pixels, as a grey Pillow image, black on white."""
    image = Image.new("L", (800, 400), 255)
    pen = ImageDraw.Draw(image)
    for stroke in strokes:
        pen.line(stroke, fill=0, width=25)  # as MNIST's 2.4 of 20, for digits half the pad high
        for point in stroke:
            pen.circle(point, 12, fill=0)
    return image


class Pad:
    """A Matplotlib figure to draw digits on, which are read at the end of each stroke."""

    def __init__(self, figure, model):
        self.canvas, self.model = figure.canvas, model
        places = [["pad", "pad", "seen"], ["pad", "pad", "bars"], ["clear", "undo", "bars"]]
        self.axes = figure.subplot_mosaic(places, height_ratios=[5, 5, 1])
        figure.subplots_adjust(left=0.02, right=0.98, bottom=0.06, top=0.9, hspace=0.4)
        self.paper = self.axes["pad"].imshow(draw_strokes([]), cmap="gray", vmin=0, vmax=255)
        pen = {"color": "black", "linewidth": 15, "solid_capstyle": "round"}
        self.lasso = LassoSelector(self.axes["pad"], self.end_stroke, props=pen)
        self.buttons = [Button(self.axes["clear"], "Clear"), Button(self.axes["undo"], "Undo")]
        self.buttons[0].on_clicked(lambda event: self.show([]))
        self.buttons[1].on_clicked(lambda event: self.show(self.strokes[:-1]))
        self.canvas.mpl_connect("axes_leave_event", lambda event: self.end_stroke(self.lasso.verts))
        self.show([])

    def end_stroke(self, stroke):
        """Add the stroke, a list of (x, y), if one was being drawn."""
        self.lasso.verts = None  # the lasso ignores the mouse until it is pressed again
        if stroke:
            self.show([*self.strokes, stroke])

    def show(self, strokes):
        """Show and read strokes: the digits, what the network saw, and the last digit's bars."""
        self.strokes = strokes
        drawing, seen, bars = draw_strokes(strokes), self.axes["seen"], self.axes["bars"]
        labels = range(self.model.output_shape[1])
        seen.clear()
        bars.clear()
        try:
            # A margin for strokes at the edge; an eighth of the size takes 16 ms to read, not 43.
            rows = read_digits(ImageOps.expand(drawing.reduce(8), 5, 255), self.model).rows
            self.axes["pad"].set_title(" / ".join(row_texts(rows, doubt="?")), fontsize=24)
            seen.imshow(as_page(rows), cmap="gray_r")
            bars.bar(labels, rows[-1][-1].probabilities, color=BLUE)
        except InputError:
            self.axes["pad"].set_title("No digit was read" if strokes else "Draw digits here")
        self.paper.set_data(drawing)
        self.axes["pad"].set(xticks=[], yticks=[])
        seen.set(title="what the network saw", xticks=[], yticks=[])
        bars.set(title="probability of the last digit", ylim=(0, 1), xticks=labels, yticks=[])
        self.canvas.draw_idle()


def draw(settings, windows):
    """Open a window with a pad in it, or raise InputError if windows cannot open."""
    if not windows:
        raise InputError("--draw needs a display (on Linux, python3-tk), no --no-show; see README")
    plt.rcParams["toolbar"] = "None"
    figure = plt.figure("Draw digits", (10, 5))
    figure.pad = Pad(figure, load_model(settings.model))  # keeps its callbacks alive


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
    two = one | {"nargs": 2}

    add = parser.add_argument
    add("--data", type=Path, metavar="SET", help="folder or .npz file (default: MNIST)")
    add("--limit", **one, help="use only the first N training and N test images")
    add("--output-dir", type=Path, default="output", metavar="FOLDER", help="(default: output)")
    add("--no-show", dest="show", action="store_false", help="only save figures, open no windows")

    add = parser.add_argument_group("model (two numbers: one for each convolution)").add_argument
    add("--filters", **two, help="number of filters (default: %(default)s)")
    add("--kernel-sizes", **two, help="kernel size in pixels (default: %(default)s)")
    add("--pool-sizes", **two, help="pooling window in pixels (default: %(default)s)")
    add("--dense-units", **one, help="units of the dense layer (default: %(default)s)")
    add("--activation", choices=("relu", "gelu", "silu", "tanh"), help="(default: %(default)s)")

    add = parser.add_argument_group("training").add_argument
    add("--epochs", **one, help="passes over the training images (default: %(default)s)")
    add("--batch-size", **one, help="images per training step (default: %(default)s)")
    add("--optimizer", choices=OPTIMIZERS, help="(default: %(default)s)")
    add("--learning-rate", type=float, metavar="RATE", help="peak (default: depends on optimizer)")
    add("--no-augment", dest="augment", action="store_false", help="train on unchanged images")
    add("--seed", type=int, metavar="N", help="seed of random numbers (default: %(default)s)")
    add("--resume", action="store_true", help="continue an interrupted run with its own options")

    group = parser.add_argument_group("use a trained model instead of training one")
    group.add_argument("--model", type=Path, metavar="FILE", help="(default: FOLDER/model.keras)")
    group.add_argument("--json", action="store_true", help="print what --predict reads as JSON")
    add = group.add_mutually_exclusive_group().add_argument
    add("--evaluate", action="store_true", help="evaluate it on --data")
    add("--predict", type=Path, nargs="+", metavar="IMAGE", help="read images or folders of them")
    add("--draw", action="store_true", help="open a window to draw digits on")

    parser.set_defaults(**DEFAULTS)
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
    settings.show &= not (settings.json and settings.predict)  # JSON is for other programs
    return settings


def print_error(error):
    """Print an error as one line on stderr."""
    print("digit_recognition.py:", " ".join(str(error).split())[:500], file=sys.stderr, flush=True)


def can_open_windows():
    """Return whether Matplotlib can open windows; if it cannot, have it only save figures."""
    backend = plt.get_backend()
    no_windows = backend_registry.list_builtin(BackendFilter.NON_INTERACTIVE)
    if backend.lower() in no_windows or "inline" in backend:  # a notebook shows figures by itself
        return False
    try:
        plt.close(plt.figure())
    except Exception as error:  # many types, one for each toolkit
        print_error(f"figures are saved, but {backend} cannot show them: {error}")
        plt.switch_backend("agg")
        return False
    return True


def show_windows():
    """Show all figures in windows that fit on a laptop's screen, until they are closed."""
    for figure in map(plt.figure, plt.get_fignums()):
        width, height = figure.get_size_inches()
        figure.dpi = min(figure.dpi, 1300 / width, 650 / height)
    if __name__ == "__main__":
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # else Ctrl-C waits for the mouse to move
    plt.show(block=True)


def run(settings):
    """Do what the settings ask for; return the exit code."""
    plt.style.use("default")  # whatever the user's matplotlibrc and keras.json say
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    plt.rcParams["webagg.open_in_browser"] = False  # print the address, on servers too
    if not settings.show:
        plt.switch_backend("agg")
    windows = settings.show and can_open_windows()
    code = 0
    if settings.predict:
        code = predict(settings)
    elif settings.evaluate:
        evaluate_trained(settings)
    elif settings.draw:
        draw(settings, windows)
    else:
        if settings.resume:
            record = settings.output_dir / "unfinished_run" / "settings.json"
            stored = json.loads(record.read_text())
            vars(settings).update(stored, output_dir=settings.output_dir, resume=True)
        train_and_evaluate(settings)
    if windows:
        show_windows()
    return code


def main(arguments=None):
    """Run with command-line arguments; return the exit code, errors printed as one line."""
    settings = parse_settings(arguments)
    try:
        return run(settings)
    except InputError as error:
        print_error(error)
    except json.JSONDecodeError:  # of a file that was being written
        print_error("the interrupted run is damaged; start a new one, without --resume")
    except OSError as error:
        print_error(f"{error}; --output-dir names the folder of results, or of a run to resume")
    except (MemoryError, tf.errors.ResourceExhaustedError):
        print_error("not enough memory; lower --batch-size or --limit, or use smaller images")
    except KeyboardInterrupt:
        unfinished = (settings.output_dir / "unfinished_run").exists()
        print_error(f"interrupted{'; --resume continues the training' if unfinished else ''}")
        return 130
    return 1


if __name__ == "__main__":
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, pythonw has none
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):  # IDLE's has no such method
        sys.stdout.reconfigure(errors="backslashreplace")
    warnings.simplefilter("ignore")  # most are Pillow's, about damaged metadata
    # Jupyter, Colab and VS Code have arguments of their own, and show each exit as an error.
    is_kernel = any(name in sys.argv[0] for name in ("ipykernel", "colab_kernel"))
    code = main([] if is_kernel else sys.argv[1:])
    if code:
        sys.exit(code)
