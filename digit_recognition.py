"""Train a small convolutional network to read handwritten digits, then read your own with it.

python digit_recognition.py                        train on MNIST, evaluate, plot
python digit_recognition.py --epochs 1             the same, in less time
python digit_recognition.py --data SET             the same, on another data set
python digit_recognition.py --evaluate --data SET  evaluate the trained network on other data
python digit_recognition.py --predict photo.jpg    read the digits in a picture
python digit_recognition.py --draw                 draw digits and see them read
"""

import argparse
import contextlib
import gzip
import json
import os
import platform
import shutil
import sys
import tempfile
import time
import warnings
import zipfile
from collections import namedtuple
from pathlib import Path

# ------------------------------------------------------------------------------------ Settings
# Keras's name, highest learning rate, options: in so few steps, shorter averages do better.
OPTIMIZERS = {
    "adam": ("Adam", 0.01, {"beta_1": 0.7, "beta_2": 0.9}),
    "adamw": ("AdamW", 0.01, {"beta_1": 0.7, "beta_2": 0.9}),
    "muon": ("Muon", 0.01, {"adam_beta_1": 0.7, "adam_beta_2": 0.9, "exclude_layers": ["prob"]}),
    "rmsprop": ("RMSprop", 0.002, {}),
    "sgd": ("SGD", 0.1, {"momentum": 0.9, "nesterov": True}),
}


def whole_number(word):
    """Return the whole number above 0 that a word of the command line stands for."""
    if not word.isdecimal() or int(word) == 0:
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number above 0")
    return int(word)


def parse_settings(words=None):
    """Return the settings of a command line, a list of words; exit with code 2 if it is wrong."""
    parser = argparse.ArgumentParser(
        usage="python digit_recognition.py [options], which --help explains",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    number = {"type": whole_number, "metavar": "N"}
    parser.add_argument("--data", type=Path, metavar="SET", help="folder or .npz (default: MNIST)")
    parser.add_argument("--limit", **number, help="read only the first N images of each part")
    parser.add_argument("--output-dir", type=Path, default="output", help="(default: output)")
    parser.add_argument("--model", type=Path, metavar="FILE", help="(default: model.keras there)")
    parser.add_argument("--json", action="store_true", help="print what is read as JSON")
    parser.add_argument("--no-show", dest="show", action="store_false", help="open no windows")
    group = parser.add_argument_group("network; the first three take a number a convolution")
    group.add_argument("--filters", **number, nargs="+", default=[16, 64], help="(default: 16 64)")
    group.add_argument("--kernel-sizes", **number, nargs="+", default=[5, 3], help="(default: 5 3)")
    group.add_argument("--pool-sizes", **number, nargs="+", default=[3, 2], help="(default: 3 2)")
    group.add_argument("--dense-units", **number, default=128, help="(default: 128)")
    functions = ("relu", "gelu", "silu", "tanh")
    group.add_argument("--activation", choices=functions, default="relu", help="(default: relu)")
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", **number, default=5, help="passes over the images (default: 5)")
    group.add_argument("--batch-size", **number, default=128, help="images a step (default: 128)")
    group.add_argument("--optimizer", choices=OPTIMIZERS, default="adam", help="(default: adam)")
    group.add_argument("--learning-rate", type=float, help="its peak (default: the optimizer's)")
    group.add_argument("--no-augment", dest="augment", action="store_false", help="change no image")
    group.add_argument("--seed", type=int, default=0, help="repeats a run (default: 0)")
    group = parser.add_argument_group("instead of a new training").add_mutually_exclusive_group()
    group.add_argument("--resume", action="store_true", help="go on with the interrupted one")
    group.add_argument("--evaluate", action="store_true", help="evaluate the trained network")
    group.add_argument("--predict", type=Path, nargs="+", metavar="IMAGE", help="or a folder")
    group.add_argument("--draw", action="store_true", help="open a pad to draw digits on")

    settings = parser.parse_args(words)
    if not len(settings.filters) == len(settings.kernel_sizes) == len(settings.pool_sizes):
        parser.error("--filters, --kernel-sizes and --pool-sizes take as many numbers each")
    if settings.learning_rate is None:
        settings.learning_rate = OPTIMIZERS[settings.optimizer][1]
    if not 0 < settings.learning_rate < float("inf"):
        parser.error(f"--learning-rate {settings.learning_rate} is not a number above 0")
    if settings.seed not in range(2**32):
        parser.error(f"--seed {settings.seed} is not a whole number from 0 to {2**32 - 1}")
    if settings.model and not (settings.evaluate or settings.predict or settings.draw):
        parser.error("--model is for --evaluate, --predict and --draw; training makes a new one")
    settings.model = settings.model or settings.output_dir / "model.keras"
    return settings


def complain(error):
    """Print an error as one line on stderr."""
    print("digit_recognition.py:", " ".join(str(error).split())[:500], file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, pythonw has none
    sys.stderr = sys.stderr or open(os.devnull, "w", errors="replace")  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):  # IDLE's has no such method, and needs none
        sys.stdout.reconfigure(errors="backslashreplace")
    warnings.simplefilter("ignore")  # Pillow's, on damaged metadata
    SETTINGS = parse_settings()  # before TensorFlow takes seconds to load: --help answers at once

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # without AVX-512 36 ms a step, not 49
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
STDERR = None
with contextlib.suppress(OSError):  # in IDLE on Windows there is nothing to silence
    STDERR = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where TensorFlow greets, whatever its log level
try:
    import h5py
    import keras
    import matplotlib.pyplot as plt
    import numpy as np
    import tensorflow as tf
    from keras import layers, ops
    from matplotlib.backends import BackendFilter, backend_registry
    from matplotlib.widgets import Button, LassoSelector
    from PIL import Image, ImageDraw, ImageOps
    from scipy import ndimage
    from scipy.stats import binomtest
    from sklearn.metrics import ConfusionMatrixDisplay, classification_report, log_loss
    from sklearn.model_selection import train_test_split
except KeyboardInterrupt:
    sys.exit(130)
except Exception as error:  # packages that do not fit each other raise many kinds
    sys.exit(f"digit_recognition.py: {error}; run python -m pip install -r requirements.txt")
finally:
    if STDERR is not None:
        os.dup2(STDERR, 2)


class InputError(ValueError):
    """What was given cannot be used; one sentence says what, why, and what to do."""


# ---------------------------------------------------------------------------------------- Data
BUNDLED_DATA = Path(__file__).resolve().parent / "data" / "mnist.npz"
DATA_FORM = "--data takes a folder of IDX files or an .npz; pictures and tables become one by "
DATA_FORM += 'np.savez("set.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)'


def load_data(path=None, limit=None):
    """Return (x_train, y_train), (x_test, y_test), classes: of MNIST, or of the data set at path.

    Images are uint8 (n, height, width, 1), labels int64 (n,): the first limit of each part.
    """
    path = path or BUNDLED_DATA
    try:
        if path == BUNDLED_DATA and not path.exists():
            (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
        else:
            (x_train, y_train), (x_test, y_test) = read_data_set(path)
    except Exception as error:  # damaged bytes and a failed download raise many kinds
        advice = "restore it, or delete what is left" if path == BUNDLED_DATA else DATA_FORM
        raise InputError(f"{path}: {error}; {advice}") from None
    classes = max(2, int(y_train.max()) + 1)
    training = x_train[:limit, ..., np.newaxis], y_train[:limit].astype(np.int64)
    test = x_test[:limit, ..., np.newaxis], y_test[:limit].astype(np.int64)
    return training, test, classes


def split_validation(images, labels):
    """Return (images, labels) to train on and, the same in every run, (images, labels) held out."""
    if len(images) < 12:
        raise InputError(f"there are {len(images)} images to train on; 12 are needed at least")
    held_out = min(5000, len(images) // 12)
    parts = train_test_split(images, labels, test_size=held_out, random_state=0)
    x_train, x_validation, y_train, y_validation = parts
    return (x_train, y_train), (x_validation, y_validation)


# --------------------------------------------------------------------------------------- Model
def build_model(image_shape, classes, settings):
    """Return an untrained Keras model: raw pixels (n, height, width, 1) in, probabilities out."""
    # Batch normalization (Ioffe and Szegedy, 2015) without weights: of other writers' images, the
    # network reads 99.53 % with it in half the time in which it reads 99.44 % without. Momentum is
    # low, since the averages of means and deviations have to follow within a short run.
    normalization = {"center": False, "scale": False, "momentum": 0.5}
    model = keras.Sequential(name="digit_recognition")
    model.add(keras.Input(image_shape, name="pixels"))
    model.add(layers.Rescaling(1 / 255))
    blocks = zip(settings.filters, settings.kernel_sizes, settings.pool_sizes, strict=True)
    for filters, kernel_size, pool_size in blocks:
        _, height, width, _ = model.output_shape
        if kernel_size > min(height, width):
            left = f"{height} x {width} of the images' {image_shape[0]} x {image_shape[1]} pixels"
            raise InputError(f"--kernel-sizes: {kernel_size} is too large where {left} are left")
        model.add(layers.Conv2D(filters, kernel_size, use_bias=False))
        # ReLU and pooling may change places; pooling first is a tenth faster.
        model.add(layers.MaxPooling2D(pool_size, padding="same"))
        model.add(layers.BatchNormalization(**normalization))
        model.add(layers.Activation(settings.activation))
    model.add(layers.Flatten())
    model.add(layers.Dense(settings.dense_units, use_bias=False))
    model.add(layers.BatchNormalization(**normalization))
    model.add(layers.Activation(settings.activation))
    model.add(layers.Dense(classes, activation="softmax", name="probabilities"))
    return model


def compile_model(model, steps, settings):
    """Compile: the learning rate climbs for a fifth of the steps, then falls along a cosine."""
    warmup = max(1, steps // 5)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        warmup_target=settings.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(1, steps - warmup),
    )
    name, _, options = OPTIMIZERS[settings.optimizer]
    model.compile(
        optimizer=getattr(keras.optimizers, name)(schedule, **options),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=16,  # spares Python's overhead
    )


# ------------------------------------------------------------------------------------ Training
LABEL_SMOOTHING = 0.05  # 0.1 and 0.15 read as many digits of held-out writers


def warp(images, seed):
    """Return images (n, height, width, 1), each shifted, turned, scaled and slanted a little."""
    count, height, width, _ = images.shape
    # The pixel at p, (x, y), shows what was at matrix (p - centre) + centre + shift.
    centre = tf.constant([(width - 1) / 2, (height - 1) / 2])
    matrix = tf.eye(2) + tf.random.stateless_normal((count, 2, 2), seed, stddev=0.08)
    shift = tf.random.stateless_normal((count, 2), seed + 1, stddev=width / 28)
    offset = shift + centre - tf.linalg.matvec(matrix, centre)
    # Keras takes eight numbers an image: two rows of matrix and offset, then two zeros.
    rows = tf.concat([matrix, offset[..., tf.newaxis]], axis=2)
    transforms = tf.pad(tf.reshape(rows, (count, 6)), [[0, 0], [0, 2]])
    return ops.image.affine_transform(images, transforms)


def change_pens(images, seed):
    """Return images (n, height, width, 1), half of them as if written with another pen each."""
    # Powers of grey levels, from 1/4 to 4, make strokes and their soft edges wider or narrower.
    half = images.shape[0] // 2
    powers = 4 ** tf.random.stateless_uniform((half, 1, 1, 1), seed, -1, 1)
    return tf.concat([255 * (images[:half] / 255) ** powers, images[half:]], axis=0)


def training_batches(images, labels, settings):
    """Return a Dataset of shuffled batches of images and one-hot labels, changed in each epoch."""
    batch_size = min(settings.batch_size, len(images))
    # Smoothed here, not in the loss, so that the validation's loss is that of true labels.
    labels = (1 - LABEL_SMOOTHING) * labels + LABEL_SMOOTHING / labels.shape[1]
    images, labels = tf.constant(images), tf.constant(labels, "float32")

    def make_batch(places, seed):
        batch = tf.cast(tf.gather(images, places), "float32")
        if settings.augment:
            batch = warp(batch, seed)
            batch = change_pens(batch, seed + 2)
        return batch, tf.gather(labels, places)

    # Places are shuffled, which is faster than images, and each batch comes with a random seed.
    places = tf.data.Dataset.range(len(images)).shuffle(len(images), settings.seed)
    places = places.batch(batch_size, drop_remainder=True)
    seeds = tf.data.Dataset.random(settings.seed, rerandomize_each_iteration=True).batch(2)
    batches = tf.data.Dataset.zip(places, seeds).map(make_batch).prefetch(2)
    options = tf.data.Options()
    # Autotuning sleeps for 10, 20, 40 ... ms and each epoch's end waits: 10.2 s in place of 6.5.
    options.autotune.enabled = False
    return batches.with_options(options)


def train(model, batches, validation, settings):
    """Train, or go on with --resume; return {name: list of values by epoch}, or InputError."""
    unfinished = settings.output_dir / "unfinished"
    unfinished.mkdir(parents=True, exist_ok=True)
    try:
        lock = h5py.File(unfinished / "lock", "w")  # noqa: F841, is locked while it is open
    except BlockingIOError:
        raise InputError(f"another run is at work in {unfinished}; name another folder") from None
    backups = list(unfinished.glob("*.*"))
    if settings.resume and not backups:
        raise InputError(f"{unfinished}: there is no interrupted run; omit --resume")
    if not settings.resume:
        for file in backups:
            file.unlink()
    backup = keras.callbacks.BackupAndRestore(unfinished, delete_checkpoint=False)
    try:
        history = model.fit(
            batches,
            epochs=settings.epochs,
            validation_data=validation,
            validation_batch_size=500,
            callbacks=[keras.callbacks.TerminateOnNaN(), backup],
            verbose=1 if sys.stdout.isatty() else 2,  # a bar, or a line an epoch
        )
    except ValueError:  # Keras's, of weights that do not fit
        raise InputError(f"{unfinished} is damaged or has other options; repeat them") from None
    if not history.epoch:
        raise InputError("--resume: all epochs are trained; ask for more with --epochs")
    if not np.isfinite(history.history["loss"]).all():
        raise InputError("the loss became NaN or infinite; lower --learning-rate")
    return {"epoch": [epoch + 1 for epoch in history.epoch], **history.history}


# ---------------------------------------------------------------------------------- Evaluation
def score(probabilities, labels):
    """Return test metrics, a dict, and a report, of probabilities (n, classes), labels (n,)."""
    count, every_label = len(labels), range(probabilities.shape[1])
    predicted = probabilities.argmax(axis=1)
    wrong = int((predicted != labels).sum())
    accuracy = 1 - wrong / count
    interval = binomtest(count - wrong, count).proportion_ci(method="wilson")  # 95 %, Wilson, 1927
    loss = log_loss(labels, probabilities, labels=every_label)
    report = classification_report(labels, predicted, labels=every_label, digits=4, zero_division=0)
    metrics = {
        "test_accuracy": accuracy,
        "test_interval": [interval.low, interval.high],
        "test_errors": wrong,
        "test_images": count,
        "test_loss": loss,
    }
    spread = f"95 % interval {100 * interval.low:.2f}-{100 * interval.high:.2f} %"
    answer = f"{100 * accuracy:.2f} % ({wrong} of {count} wrong, {spread})"
    return metrics, f"{report}\nTest loss: {loss:.4f}\nTest accuracy: {answer}"


# ------------------------------------------------------------------------------------- Figures
BLUE, ORANGE = "#0072b2", "#d55e00"  # colour-blind people tell these apart (Okabe and Ito, 2008)


def plot_history(history):
    """Return a figure of training and validation accuracy and loss over the epochs."""
    figure = plt.figure("Training curves", (10, 4), layout="constrained", clear=True)
    for axis, name in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        axis.plot(history["epoch"], history[name], "o-", color=BLUE, label="training, changed")
        axis.plot(history["epoch"], history[f"val_{name}"], "s--", color=ORANGE, label="validation")
        axis.set(xlabel="epoch", ylabel=name, title=f"{name.capitalize()} over the epochs")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    return figure


def plot_digits(images, labels, probabilities, title="Test images"):
    """Return a figure of up to 28 images with predicted and true labels; wrong ones in orange."""
    figure = plt.figure(title, (10, 6.5), layout="constrained", clear=True)
    figure.suptitle(title)
    axes = figure.subplots(4, 7, subplot_kw={"frame_on": False, "xticks": [], "yticks": []})
    for axis, image, label, row in zip(axes.flat, images, labels, probabilities, strict=False):
        predicted = row.argmax()
        color, mark = ("black", "") if predicted == label else (ORANGE, " WRONG")
        axis.imshow(image[..., 0], cmap="gray_r")
        text = f"predicted {predicted}, true {label}\n{row.max():.1%}{mark}"
        axis.set_title(text, fontsize=9, color=color)
    return figure


def plot_mistakes(images, labels, probabilities):
    """Return a figure of the images that were taken for another digit with most confidence."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    worst = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]
    return plot_digits(images[worst], labels[worst], probabilities[worst], "The worst mistakes")


def plot_confusion(labels, probabilities):
    """Return a figure of how often each of the labels was taken for which."""
    classes = probabilities.shape[1]
    side = min(max(6.5, 0.6 * classes), 30)  # a laptop's screen shows seven inches
    figure = plt.figure("Confusion matrix", (side, side), layout="constrained", clear=True)
    display = ConfusionMatrixDisplay.from_predictions(
        labels,
        probabilities.argmax(axis=1),
        labels=range(classes),
        ax=figure.subplots(),
        cmap="Blues",
        colorbar=False,
        im_kw={"norm": "symlog"},  # a single mistake is seen beside a diagonal of 1,000
    )
    for text in display.text_[display.confusion_matrix == 0]:
        text.remove()
    display.ax_.set_title("Test images by true and predicted label")
    return figure


# ------------------------------------------------------------------------------- The whole run
def train_and_evaluate(settings):
    """Load, build, train, evaluate, plot, save, print: the whole job."""
    (x_train, y_train), test, classes = load_data(settings.data, settings.limit)
    training, validation = split_validation(x_train, keras.utils.to_categorical(y_train, classes))
    keras.utils.set_random_seed(settings.seed)
    model = build_model(x_train.shape[1:], classes, settings)
    batches = training_batches(*training, settings)
    compile_model(model, settings.epochs * len(batches), settings)
    model.summary()
    print(f"Training on {len(training[0])} images, validating on {len(validation[0])}", flush=True)
    began, cpu_began = time.perf_counter(), time.process_time()
    history = train(model, batches, validation, settings)
    facts = {"settings": vars(settings), "train_seconds": time.perf_counter() - began}
    facts["train_cpu_seconds"] = time.process_time() - cpu_began

    with replacing(settings.output_dir) as folder:
        model.save(folder / "model.keras")
        table, header = np.column_stack(list(history.values())), ",".join(history)
        np.savetxt(folder / "history.csv", table, "%.6g", ",", header=header, comments="")
        plot_history(history).savefig(folder / "training_curves.png", dpi=120)
        metrics, report = evaluate(model, *test, facts, f"{folder}/")
        (folder / "metrics.json").write_text(metrics)
    shutil.rmtree(settings.output_dir / "unfinished", ignore_errors=True)
    print(f"Saved in {settings.output_dir}\n{report}", flush=True)


def evaluate(model, images, labels, facts, start):
    """Save figures in files that begin with start; return metrics and facts as JSON, a report."""
    model.steps_per_execution = 1  # sixteen, as in training, cost predict half a second to trace
    probabilities = model.predict(images, batch_size=500, verbose=0)
    metrics, report = score(probabilities, labels)
    metrics |= {
        "parameters": model.count_params(),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores, Python {sys.version}",
        "versions": {module.__name__: module.__version__ for module in (tf, keras, np)},
    }
    plot_digits(images, labels, probabilities).savefig(f"{start}sample_predictions.png", dpi=120)
    plot_confusion(labels, probabilities).savefig(f"{start}confusion_matrix.png", dpi=120)
    plot_mistakes(images, labels, probabilities).savefig(f"{start}mistakes.png", dpi=120)
    return json.dumps(metrics | facts, indent=1, default=str) + "\n", report


@contextlib.contextmanager
def replacing(folder):
    """Yield a new folder; if the block ends well, its files take the place of those in folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as fresh:
        yield Path(fresh)
        for file in Path(fresh).iterdir():
            os.replace(file, folder / file.name)


# ---------------------------------------------------------------------------- Other data sets
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
# In that order. MNIST's test images are called t10k-images, those of other sets test-images.
IDX_FILES = ("*train-images*", "*train-labels*", "*[kt]-images*", "*[kt]-labels*")


def read_idx(folder, pattern):
    """Return the uint8 array in the folder's one IDX file (yann.lecun.com/exdb/mnist) that fits."""
    names = sorted(file.name for file in folder.glob(pattern) if file.name[0] != ".")
    if len({name.removesuffix(".gz") for name in names}) != 1:
        raise ValueError(f"one file {pattern} is needed, found: {', '.join(names) or 'none'}")
    opened = gzip.open if names[0].endswith(".gz") else open
    with opened(folder / names[0], "rb") as file:
        content = file.read()
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"{names[0]} does not begin as IDX files of bytes do")
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + shape.nbytes).reshape(shape)


def check_part(images, labels):
    """Return grey images as uint8 (n, height, width), labels as int64 (n,), or raise ValueError."""
    if images.shape[3:] == (1,):
        images = images[..., 0]
    if labels.ndim == 2 and labels.shape[1] > 1:
        labels = labels.argmax(axis=1)
    if images.ndim != 3 or images.size == 0 or labels.size != len(images):
        raise ValueError(f"no (n, height, width) and (n,): {images.shape} and {labels.shape}")
    if images.dtype.kind not in "buif" or not 0 <= images.min() <= images.max() <= 255:
        raise ValueError("pixels are not numbers from 0 to 255")
    if labels.dtype.kind not in "buif" or not np.isin(labels, range(100)).all():
        raise ValueError("labels are not whole numbers from 0 to 99")
    if images.max() <= 1:
        images = np.rint(images * np.float32(255))
    return images.astype(np.uint8), labels.astype(np.int64).ravel()


def read_data_set(path):
    """Return (x_train, y_train), (x_test, y_test) of a data set; raise what is wrong with it."""
    if path.is_dir():
        x_train, y_train, x_test, y_test = (read_idx(path, pattern) for pattern in IDX_FILES)
        if any(path.glob("emnist-*")):
            print("EMNIST's images are stored transposed: they are turned upright")
            x_train, x_test = x_train.swapaxes(1, 2), x_test.swapaxes(1, 2)
    else:
        # NumPy alone would take what is no archive for a pickle, and say so.
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as stored:
            if not set(ARRAYS) <= set(stored.files):
                raise ValueError(f"it has the arrays {', '.join(stored.files)}")
            x_train, y_train, x_test, y_test = (stored[name] for name in ARRAYS)
    training, test = check_part(x_train, y_train), check_part(x_test, y_test)
    if training[0].shape[1:] != test[0].shape[1:] or test[1].max() > training[1].max():
        raise ValueError("its test images have another size, or labels that are not trained")
    return training, test


def load_model(path, image_shape=(28, 28, 1)):
    """Return the Keras model in a .keras file (its code is never run); InputError if unfit."""
    try:
        with zipfile.ZipFile(path):  # Keras calls a damaged file missing
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
        output = np.asarray(model(np.zeros((1, *model.input_shape[1:]))))
        if output.ndim != 2 or not np.isclose(output.sum(), 1):
            raise ValueError("its output is not (n, classes) of probabilities")
    except Exception as error:  # a file that is no model raises whatever Keras and h5py think of
        raise InputError(f"{path}: no model; train one, or name it by --model: {error}") from None
    if model.input_shape[1:] != image_shape:
        raise InputError(f"{path} takes images of {model.input_shape[1:]}, not of {image_shape}")
    return model


def evaluate_trained(settings):
    """Evaluate the trained network on the test images of a data set; save and print."""
    _, test, classes = load_data(settings.data, settings.limit)
    model = load_model(settings.model, test[0].shape[1:])
    if model.output_shape[1] < classes:
        raise InputError(f"{settings.model} tells {model.output_shape[1]} labels, not {classes}")
    with replacing(settings.output_dir) as folder:
        facts = {"settings": vars(settings)}
        metrics, report = evaluate(model, *test, facts, f"{folder}/evaluation-")
        (folder / "evaluation.json").write_text(metrics)
    print(f"Saved in {settings.output_dir}\n{report}", flush=True)


# ----------------------------------------------------------------------------- Your own images
# Numbers without a reason: chosen on tests/pages.py's pages, seeds 1000 on, and sklearn's digits.
Image.MAX_IMAGE_PIXELS = 250_000_000  # some phones' photos have 200 megapixels
CONFIDENT = 0.8  # of the validation images 2.2 % are below, with three of four mistakes
AREA = 3_000_000  # pixels of a picture at most: digits of 3 mm on A4 are 20 pixels high then
SMALLEST, LARGEST = 14, 120  # pixels of a digit: larger ones are found in smaller copies
LINE = 150  # pixels: a line of the paper is longer than a digit's strokes
STROKE = 41  # pixels of a window that is wider than the strokes of a digit of LARGEST pixels
FAINTEST = 2.6  # ink of a stroke at least, or EDGE of it: on white paper 41 of 255 grey levels
GRAIN = 27  # a stroke has at least so many times the ink of the paper's grain
EDGE = 0.4  # share of a stroke's ink at its edge
SHARP = 0.1  # ink by which it falls at its edge from pixel to pixel, where shade falls by less
UNLIKELY = 0.4  # probability: where no digit reaches it, none is written

# A connected part of the ink: its place in pixels, ink float (height, width), 0 elsewhere.
Part = namedtuple("Part", "left top width height ink")
# What was read: probabilities, float32 (classes,), of which the label has the highest; the box's
# left, top, width, height in pixels of the upright original; the image that the network saw.
Digit = namedtuple("Digit", "label probability probabilities box image")


def open_grey(source):
    """Return a grey, upright Pillow image of AREA at most, and the original's longer side.

    source: a path, a Pillow image, or an array, uint8 (height, width) or (height, width, 1).
    """
    if isinstance(source, np.ndarray):
        source = Image.fromarray(source[..., 0] if source.shape[2:] == (1,) else source)
    image = source if isinstance(source, Image.Image) else Image.open(source)
    side = max(image.size)
    if image is not source:
        image.draft("L", (1700, 1700))  # a large JPEG is decoded at a fraction of its size
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # 16 bits and more, which convert() would clip
        values = np.asarray(image, np.float32) - np.min(image)
        image = Image.fromarray(np.uint8(255 * values / max(values.max(), 1e-9)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        grounds = [Image.new("RGBA", image.size, color) for color in ("white", "black")]
        laid = [Image.alpha_composite(ground, image).convert("L") for ground in grounds]
        image = max(laid, key=np.ptp)  # on the ground that it stands out from
    image = image.convert("L")
    shrink = max(1, (image.width * image.height / AREA) ** 0.5)
    image.thumbnail([length / shrink for length in image.size])
    return image, side


def polarities(image):
    """Yield a grey Pillow image, unless it is dark, and its negative, unless it is bright."""
    # In deep shadow, paper is still as bright as its surroundings, which strokes darken.
    small = np.asarray(image.resize((128, 128), Image.BOX), np.float32)
    excess = small - ndimage.gaussian_filter(small, 16)
    usual = np.median(small)
    if usual >= 64 or np.median(excess) > -0.1 * excess.std():
        yield image
    if usual <= 160:
        yield ImageOps.invert(image)


def copies(image):
    """Yield the pages of polarities, enlarged if they are small, and smaller and smaller copies."""
    for page in polarities(image):
        if min(page.size) >= 8 and max(page.size) < 130:
            page = ImageOps.contain(page, (130, 130))
        least = np.clip(max(page.size) / 8, 60, 100)  # smaller ones show only a page's edges
        while min(page.size) >= 8 and max(page.size) > least:
            yield page
            page = ImageOps.scale(page, 0.5**0.5, Image.BILINEAR)


def without_lines(ink, length):
    """Return ink, float (height, width), less thin lines, level or upright, of so many pixels."""
    lines = np.zeros_like(ink)
    for across, along in (((9, 1), (1, length)), ((1, 9), (length, 1))):
        thick = ndimage.grey_dilation(ink, across)  # so that a line may be slanted
        line = ndimage.grey_opening(thick, along)
        thin = ink - ndimage.grey_opening(ink, across)  # what crosses a line is not thin
        lines = np.maximum(lines, np.minimum(line, thin))
    return ink - lines


def without_boxes(ink):
    """Take boxes, parts with ink along all four sides, from the ink, in place; return it."""
    labels = ndimage.label(ink > EDGE / 2, np.ones((3, 3)))[0]
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        own = labels[place] == number
        shorter = min(own.shape)
        depth = shorter // 5  # to which a round 0 covers less of its four sides
        sides = own[:depth], own[-depth:], own.T[:depth], own.T[-depth:]
        if depth > 2 and all(side.any(axis=0).mean() > 0.83 for side in sides):
            box = np.pad(ink[place], 8)  # or its sides would not be thin
            ink[place] = without_lines(box, round(0.8 * shorter))[8:-8, 8:-8]
    return ink


def lift_ink(page):
    """Return the ink of a grey Pillow image, float32: 0 on paper, about 1 in dark strokes.

    It is how much darker a pixel is than the paper there, which a grey closing shows: strokes, dark
    and narrow, are gone from it, shadows are not. Over the root of the light, all grain is alike.
    """
    grey = ndimage.gaussian_filter(np.asarray(page, np.float32), 1)
    paper = ndimage.grey_closing(grey, (STROKE, STROKE))
    ink = (paper - grey) / np.sqrt(np.maximum(paper, 10))  # darker paper shows no light
    grain = np.median(abs(np.diff(ink, axis=0)))
    ink = (ink - np.median(ink)).clip(0)  # grain makes the closing too bright
    plain = without_lines(ink, LINE)
    # The mean of strokes: a pixel counts by its ink, and paper hardly does.
    level = max(np.average(plain, weights=plain**1.5 + 1e-9), GRAIN * grain, FAINTEST)
    return np.minimum(plain / level, without_boxes(ink / level))


def find_parts(ink, steep, near):
    """Yield parts that may be digits: ink that the mask near connects; steep is its gradient."""
    labels = ndimage.label(near, np.ones((3, 3)))[0]  # corners touch
    labels = np.where(labels, labels, ndimage.maximum_filter(labels, 3))  # with its soft edge
    labels = labels * ndimage.binary_dilation(ink > EDGE)
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        if place is None:  # no stroke is left where a digit was cut off
            continue
        own = np.where(labels[place] == number, ink[place], 0)
        part = Part(place[1].start, place[0].start, *own.shape[::-1], own)
        right, below = ink.shape[1] - place[1].stop, ink.shape[0] - place[0].stop
        # What goes on beyond the border is an edge or a fold, unless it fills the picture.
        spans = min(np.subtract(ink.shape, own.shape)) <= 4  # from side to side
        share = own.size / min(ink.shape) ** 2  # of the largest square in the picture
        fills = share > (1 / 3 if spans else 1 / 4)
        inside = min(part.left, part.top, right, below) > 2
        fits = max(own.shape) >= 7 and part.height <= LARGEST
        if (inside or fills) and fits and np.percentile(steep[place][own > 0], 80) > SHARP:
            yield part


def cut_apart(near, part, height):
    """Clear near, bool (height, width), where a part of touching digits is thinnest."""
    count = round(part.width / (0.8 * height))
    thickness = part.ink.sum(axis=0)
    for number in range(1, count):
        start = part.width * number // count - height // 4
        cut = part.left + start + thickness[start : start + height // 2].argmin()
        near[part.top : part.top + part.height, cut] = False


def find_digits(page):
    """Return the dark digits of a grey Pillow image, a list of parts."""
    ink = lift_ink(page)
    steep = ndimage.gaussian_gradient_magnitude(ink, 1)
    near = ndimage.binary_dilation(ink > EDGE, np.ones((7, 1)))  # a 5's bar is above its bowl
    parts = list(find_parts(ink, steep, near))
    heights = [part.height for part in parts for _ in range(part.height)]  # so specks count little
    usual = int(np.median(heights)) if heights else 0
    for part in parts:
        if part.width >= 1.5 * max(usual, part.height):
            cut_apart(near, part, max(usual, part.height))
    least = max(SMALLEST, 0.5 * usual)
    return [part for part in find_parts(ink, steep, near) if least < part.height < 2 * usual]


def to_mnist_form(ink):
    """Return a digit's ink, float (height, width), as MNIST has it: uint8 (28, 28)."""
    # Scaled into 20 x 20 and centred by its mass (LeCun et al., 1998, section III.A).
    image = Image.fromarray(np.uint8(np.clip(280 * ink - 55, 0, 255)))  # ink from 0.2 to 1.1
    image = image.crop(image.point(lambda value: 255 * (value > 60)).getbbox())
    sides = [max(round(20 * side / max(image.size)), 1) for side in image.size]
    digit = np.asarray(ImageOps.autocontrast(image.resize(sides)))
    top, left = np.rint(ndimage.center_of_mass(digit)).astype(int)
    return np.pad(digit, 14)[top : top + 28, left : left + 28]  # 14 on either side of the centre


def read_parts(parts, scale, model):
    """Yield parts as digits; a pixel of their copy is scale pixels of the original."""
    images = np.stack([to_mnist_form(part.ink) for part in parts])
    found = model.predict_on_batch(images[..., np.newaxis])
    for part, image, probabilities in zip(parts, images, found, strict=True):
        label, probability = int(probabilities.argmax()), float(probabilities.max())
        edges = part.left + 1, part.top + 1, part.width - 2, part.height - 2  # less its soft edge
        box = tuple(round(scale * edge) for edge in edges)
        yield Digit(label, probability, probabilities, box, image)


def evidence(digits):
    """Return how much speaks for a reading: sure digits, and large ones more than small ones."""
    # 0.7 says nothing. If size counted in proportion, a blot would outweigh a page of digits.
    return sum((digit.probability - 0.7) * max(digit.box[2:]) ** 0.6 for digit in digits)


def into_rows(digits):
    """Return digits in rows, from left to right; the next row begins 0.7 of a height lower."""
    usual = np.median([digit.box[3] for digit in digits])
    rows = []
    for digit in sorted(digits, key=lambda digit: digit.box[1]):
        if not rows or digit.box[1] - rows[-1][-1].box[1] > 0.7 * usual:
            rows.append([])
        rows[-1].append(digit)
    return [sorted(row, key=lambda digit: digit.box) for row in rows]


def read_digits(source, model):
    """Return the digits in an image (see open_grey), rows of Digit; InputError if there is none."""
    name = source if isinstance(source, str | Path) else "image"
    try:
        image, side = open_grey(source)
    except Exception as error:  # a damaged file raises whatever Pillow thinks of
        raise InputError(f"{name}: {error}; give it whole, as a PNG or JPEG") from None
    readings = []
    for copy in copies(image):
        parts = find_digits(copy)
        if parts:
            readings.append(list(read_parts(parts, side / max(copy.size), model)))
    best = max(readings, key=evidence, default=[])
    if not any(digit.probability >= UNLIKELY for digit in best):
        raise InputError(f"{name}: no digit stands out from the paper; write larger or darker")
    return into_rows(best)


def row_texts(rows, doubt=""):
    """Return a text for each row of digits, with the mark of doubt after those in doubt."""
    texts = []
    for row in rows:
        words = [f"{digit.label}{'' if digit.probability >= CONFIDENT else doubt}" for digit in row]
        texts.append((" " if len(row[0].probabilities) > 10 else "").join(words))
    return texts


def describe(path, rows, label, as_json):
    """Return the line that says what was read in an image, and its true label, if not None."""
    digits = [digit for row in rows for digit in row]
    if as_json:
        found = {"file": str(path), "digits": "\n".join(row_texts(rows))}
        found["probabilities"] = [round(digit.probability, 4) for digit in digits]
        found["boxes"] = [digit.box for digit in digits]
        found["confident"] = all(digit.probability >= CONFIDENT for digit in digits)
        return json.dumps(found if label is None else found | {"true": int(label)})
    shares = ", ".join(f"{digit.label} {100 * digit.probability:.1f} %" for digit in digits)
    truth = "" if label is None or row_texts(rows) == [label] else f"  WRONG, true {label}"
    return f"{path}: {' / '.join(row_texts(rows, doubt='?'))}  ({shares}){truth}"


def as_page(rows):
    """Return what the network saw of rows of digits, side by side: uint8 (height, width)."""
    longest = max(len(row) for row in rows)
    blank = np.zeros((28, 28), np.uint8)
    images = [[digit.image for digit in row] + [blank] * (longest - len(row)) for row in rows]
    return np.block(images)


def plot_readings(readings):
    """Return a figure of {path: rows of Digit}: images with boxes, and what the network saw."""
    figure = plt.figure("What was read", (10, 3 * len(readings)), layout="constrained", clear=True)
    axes = figure.subplots(len(readings), 2, squeeze=False, subplot_kw={"xticks": [], "yticks": []})
    for (original, seen), (path, rows) in zip(axes, readings.items(), strict=True):
        image, side = open_grey(path)
        width, height = (side * length / max(image.size) for length in image.size)
        original.imshow(image, cmap="gray", extent=(0, width, height, 0))
        name = path.name.encode(errors="ignore").decode()  # without what no font can draw
        original.set_title(name, fontsize=9, parse_math=False, pad=14)  # above the labels
        digits = [digit for row in rows for digit in row]
        for digit in digits:
            color = BLUE if digit.probability >= CONFIDENT else ORANGE
            left, top, *size = digit.box
            original.add_patch(plt.Rectangle((left, top), *size, fill=False, color=color))
            original.text(left, top, digit.label, color=color, fontsize=9, ha="right", va="bottom")
        # The part of a page that is written on, or small writing would be covered by its labels.
        lefts, tops, widths, heights = np.transpose([digit.box for digit in digits])
        around = 2 * max(widths.max(), heights.max())
        original.set_xlim(max(0, lefts.min() - around), min(width, (lefts + widths).max() + around))
        original.set_ylim(min(height, (tops + heights).max() + around), max(0, tops.min() - around))
        seen.imshow(as_page(rows), cmap="gray_r")
        seen.set_title("what the network saw", fontsize=9)
    return figure


def image_files(paths):
    """Yield the paths of images, those in folders among them in the order of their names."""
    known = [suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN]
    for path in paths:
        files = sorted(path.glob("[!.]*")) if os.path.isdir(path) else []
        images = [file for file in files if file.suffix.lower() in known]
        for other in sorted(set(files) - set(images)):
            complain(f"{other}: passed over; save it as PNG or JPEG, or name it, if it is a folder")
        yield from images or [path]


def predict(settings):
    """Read the images of --predict, draw the first 20; return 1 if any could not be read."""
    model = load_model(settings.model)
    paths = list(image_files(settings.predict))
    names = [path.parent.name for path in paths]  # the true labels, as in mine/7/photo.jpg
    labelled = all(name.isdecimal() and int(name) < model.output_shape[1] for name in names)
    readings, right = {}, 0
    for path, name in zip(paths, names, strict=True):
        try:
            if os.path.isdir(path):
                raise InputError(f"{path}: a folder without pictures; save some as PNG or JPEG")
            readings[path] = read_digits(path, model)
            label = str(int(name)) if labelled else None
            right += row_texts(readings[path]) == [label]
            print(describe(path, readings[path], label, settings.json), flush=True)
            with contextlib.suppress(Exception), Image.open(path) as image:
                image.seek(1)  # raises where there is no second page, or a damaged one
                complain(f"{path}: its first page was read, no other")
        except InputError as error:
            complain(error)
    if readings:
        figure = plot_readings(dict(list(readings.items())[:20]))
        with replacing(settings.output_dir) as folder:
            figure.savefig(folder / "predictions.png", dpi=120)
        if not settings.json:
            print(f"Drawn, the first 20 at most, in {settings.output_dir / 'predictions.png'}")
    if labelled and not settings.json:
        print(f"right: {right} of {len(paths)} ({100 * right / len(paths):.1f} %)")
    return 0 if len(readings) == len(set(paths)) else 1


# ---------------------------------------------------------------------------- A pad to draw on
def draw_strokes(strokes):
    """Return strokes, lists of (x, y) in pixels, as a grey Pillow image, black on white."""
    image = Image.new("L", (800, 400), 255)
    pen = ImageDraw.Draw(image)
    for stroke in strokes:
        pen.line(stroke, fill=0, width=25)  # as MNIST's 2.4 of 20 pixels, in half the pad's height
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
        self.lasso.verts = None  # whatever the mouse does until it is pressed again
        if stroke:
            self.strokes.append(stroke)
            self.show()

    def act(self, key):
        """Do what a key or a button stands for."""
        self.end_stroke(self.lasso.verts)
        if key == "c":
            self.strokes.clear()
        elif key == "z":
            del self.strokes[-1:]
        elif key == "s":
            number = 1
            while (self.folder / f"drawing-{number}.png").exists():
                number += 1
            draw_strokes(self.strokes).save(self.folder / f"drawing-{number}.png")
            print(f"Saved {self.folder / f'drawing-{number}.png'}", flush=True)
        self.show()

    def show(self):
        """Read the drawing; show the digits, what the network saw, and the last digit's bars."""
        drawing, seen, bars = draw_strokes(self.strokes), self.axes["seen"], self.axes["bars"]
        labels = range(self.model.output_shape[1])
        seen.clear()
        bars.clear()
        try:
            rows = read_digits(drawing.reduce(2), self.model)  # in 33 ms, all pixels in 79
            self.axes["pad"].set_title(" / ".join(row_texts(rows)), fontsize=24)
            seen.imshow(as_page(rows), cmap="gray_r")
            bars.bar(labels, rows[-1][-1].probabilities, color=BLUE)
        except InputError:  # so far there is nothing to read
            self.axes["pad"].set_title("Draw digits here.  Keys: c clear, z undo, s save, q quit")
        self.paper.set_data(drawing)
        self.axes["pad"].set(xticks=[], yticks=[])
        seen.set(title="what the network saw", xticks=[], yticks=[])
        bars.set(title="probability of the last digit", ylim=(0, 1), xticks=labels, yticks=[])
        self.canvas.draw_idle()


def draw(settings):
    """Open a window with a pad in it."""
    # Matplotlib's other keys would give the pad's a second meaning.
    others = [name for name in plt.rcParams.find_all("keymap") if name != "keymap.quit"]
    plt.rcParams.update({name: [] for name in others}, toolbar="None")
    model = load_model(settings.model)
    settings.output_dir.mkdir(parents=True, exist_ok=True)
    figure = plt.figure("Draw digits", (10, 5))
    figure.pad = Pad(figure, model, settings.output_dir)  # its callbacks live as long as it does


# -------------------------------------------------------------------------------- Command line
def windows_open():
    """Return whether Matplotlib opens windows for figures, and have it only save them if not."""
    try:
        plt.switch_backend(plt.get_backend())  # MPLBACKEND's, which is not loaded before
    except ImportError as error:
        complain(f"figures are saved, but not shown: {error}")
        plt.switch_backend("agg")
    return plt.get_backend().lower() in backend_registry.list_builtin(BackendFilter.INTERACTIVE)


def main(settings):
    """Do what the settings ask for; return the exit code."""
    job = train_and_evaluate
    if settings.predict:
        job = predict
    elif settings.draw:
        job = draw
    elif settings.evaluate:
        job = evaluate_trained
    try:
        windows = windows_open() and settings.show
        if job is draw and not windows:
            raise InputError("--draw takes a display, python3-tk on Linux, and no --no-show")
        code = job(settings) or 0
        if windows:
            plt.show()
    except (InputError, OSError) as error:
        complain(error)
        code = 1
    except KeyboardInterrupt:
        advice = "; --resume goes on after the last whole epoch, if there is one"
        complain(f"interrupted{advice if job is train_and_evaluate else ''}")
        code = 130
    return code


if __name__ == "__main__":
    sys.exit(main(SETTINGS))
