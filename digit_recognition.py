# /// script
# requires-python = ">=3.10,<3.14"
# dependencies = [
#   "tensorflow>=2.20", "numpy>=2.0", "matplotlib>=3.9", "pillow>=11.1", "scipy>=1.14",
#   "scikit-learn>=1.6",
# ]
# ///
"""Train a small convolutional network to read handwritten digits, then read your own with it.

    python digit_recognition.py                        train on MNIST, evaluate, plot: 99.59 %
    python digit_recognition.py --epochs 1             the same, in less time: 99.40 %
    python digit_recognition.py --data FOLDER          on another data set of the same form
    python digit_recognition.py --predict photo.jpg    read the digits in a picture
    python digit_recognition.py --draw                 draw digits and see them read

The percentages are means of five seeds on the test images; README.md has them with their times.
"""

import argparse
import contextlib
import functools
import gzip
import json
import math
import os
import platform
import shlex
import shutil
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import scipy
from PIL import Image, ImageDraw, ImageOps

# ------------------------------------------------------------------------------------ Settings
# Keras's name, highest learning rate, options: in a run so short, shorter averages do better.
OPTIMIZERS = {
    "adam": ("Adam", 0.01, {"beta_1": 0.7, "beta_2": 0.9}),
    "adamw": ("AdamW", 0.01, {"beta_1": 0.7, "beta_2": 0.9}),
    "muon": ("Muon", 0.01, {"adam_beta_1": 0.7, "adam_beta_2": 0.9, "exclude_layers": ["prob"]}),
    "rmsprop": ("RMSprop", 0.002, {}),
    "sgd": ("SGD", 0.1, {"momentum": 0.9, "nesterov": True}),
}
# These settings change what is read, shown and written; the others decide what a run learns.
NOT_LEARNED = ("predict", "draw", "model", "json", "output_dir", "show", "resume")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that says what is wrong in one line, without the usage above it."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def between(kind, low, high):
    """Return a type for argparse: an int or a float from low to high."""
    name = "whole number" if kind is int else "number"

    def convert(word):
        with contextlib.suppress(ValueError):
            value = kind(word)
            if low <= value <= high:
                return value
        raise argparse.ArgumentTypeError(f"{word!r} is not a {name} from {low} to {high}")

    return convert


def parse_settings(words=None):
    """Return the settings of a command line, a list of words; exit with code 2 if it is wrong."""
    raw, on_or_off = argparse.RawDescriptionHelpFormatter, argparse.BooleanOptionalAction
    prog, count = "digit_recognition.py", between(int, 1, 9999)
    width, side = between(int, 1, 999), between(int, 1, 15)
    parser = Parser(prog, description=__doc__, formatter_class=raw, allow_abbrev=False)
    add = parser.add_argument_group("data").add_argument
    add("--data", metavar="PATH", help="an .npz or a folder of IDX files (default: MNIST)")
    add("--limit", type=between(int, 24, 10**9), help="read only so many images of each part")

    add = parser.add_argument_group("model").add_argument
    add("--filters", type=width, nargs="+", default=[16, 64], help="of each block (default: 16 64)")
    add("--kernel-size", type=side, default=5, help="in the first block, later 3 (default: 5)")
    add("--pool-size", type=side, default=3, help="in the first block, later 2 (default: 3)")
    add("--dense-units", type=count, default=128, help="width of the dense layer (default: 128)")
    functions = ("relu", "gelu", "silu", "tanh")
    add("--activation", choices=functions, default="relu", help="of the layers (default: relu)")

    add = parser.add_argument_group("training").add_argument
    add("--epochs", type=count, default=5, help="more take longer and err less (default: 5)")
    add("--batch-size", type=between(int, 1, 65536), default=128, help="images (default: 128)")
    add("--learning-rate", type=between(float, 1e-9, 1e9), help="its peak (default: each its own)")
    add("--optimizer", choices=OPTIMIZERS, default="adam", help="takes the steps (default: adam)")
    add("--augment", action=on_or_off, default=True, help="warp images, vary pens (default: on)")
    add("--seed", type=between(int, 0, 2**31 - 1), default=0, help="repeats a run (default: 0)")

    group = parser.add_argument_group("your own images")
    add_one_of = group.add_mutually_exclusive_group().add_argument
    add_one_of("--predict", nargs="+", metavar="IMAGE", help="read images, or folders of them")
    add_one_of("--draw", action="store_true", help="open a pad to draw digits on and see them read")
    add = group.add_argument
    add("--model", metavar="FILE", help="to read with (default: output/model.keras)")
    add("--json", action="store_true", help="print one JSON object an image")

    add = parser.add_argument_group("output").add_argument
    add("--output-dir", default="output", metavar="DIR", help="for all files (default: output)")
    add("--show", action=on_or_off, default=True, help="open windows, if possible (default: on)")
    add("--resume", action="store_true", help="go on with the interrupted run in DIR")

    settings = parser.parse_args(words)
    settings.model = settings.model or f"{settings.output_dir}/model.keras"
    settings.learning_rate = settings.learning_rate or OPTIMIZERS[settings.optimizer][1]
    return settings


def learned_by(settings):
    """Return the settings that decide what a run learns, a dict from flag to value."""
    values = {name: value for name, value in vars(settings).items() if name not in NOT_LEARNED}
    return {"--" + name.replace("_", "-"): value for name, value in values.items()}


def command_line(settings):
    """Return the command that repeats a run, with every setting spelled out."""
    words = ["python", "digit_recognition.py"]
    for flag, value in learned_by(settings).items():
        if value is True:
            words.append(flag)
        elif value is False:
            words.append(flag.replace("--", "--no-"))
        elif value is not None:
            words += [flag, *map(str, np.atleast_1d(value))]
    return shlex.join(words)


class InputError(ValueError):
    """What was given cannot be used; one sentence says what, why, and what to do."""


def reason(error):
    """Return in one line why something failed."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:400]  # Keras and h5py can fill a page


def import_tensorflow():
    """Import TensorFlow and Keras without their greetings; --help need not wait for it."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # oneDNN is off by default without AVX-512, where it takes a step from 49 to 36 ms.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # TensorFlow greets on file descriptor 2 before its logging can be configured.
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as greetings:
        os.dup2(greetings.fileno(), 2)
        try:
            import keras  # noqa: F401
        except Exception:
            greetings.seek(0)
            os.write(stderr, greetings.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


# ---------------------------------------------------------------------------------------- Data
BUNDLED_DATA = Path(__file__).resolve().parent / "data" / "mnist.npz"
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
# In the order of ARRAYS; what MNIST calls t10k, EMNIST calls test.
IDX_FILES = ("*train-images*", "*train-labels*", "*[kt]-images*", "*[kt]-labels*")
DATA_FORMS = f"--data takes an .npz with {', '.join(ARRAYS)}, or a folder with IDX files: "
DATA_FORMS += "train-images-idx3-ubyte and its three companions, plain or .gz"
MAX_BYTES = 2 << 30  # more is a damaged or hostile file, not a data set for this script


def read_idx(path):
    """Return the uint8 array in an IDX file, plain or .gz (yann.lecun.com/exdb/mnist)."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if content[:4] not in (b"\0\0\x08\x01", b"\0\0\x08\x03"):
            raise ValueError("its magic number is not that of IDX images or labels")
        shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + shape.nbytes).reshape(shape)
    except Exception as error:  # damaged bytes make gzip, zlib and NumPy raise many kinds
        raise ValueError(f"{path.name}: {reason(error)}") from None


def read_arrays(source):
    """Return the four arrays of a data set, in the order of ARRAYS."""
    if source.is_dir():
        return [read_idx(min(source.glob(name), default=source / name)) for name in IDX_FILES]
    if source == BUNDLED_DATA and not source.exists():
        import keras

        training, test = keras.datasets.mnist.load_data()
        return [*training, *test]
    with zipfile.ZipFile(source) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
            raise ValueError("it unpacks to more than 2 GiB")
    with np.load(source, allow_pickle=False) as stored:
        return [stored[name] for name in ARRAYS]


def as_images(array, name):
    """Return images as uint8 (n, height, width, 1), from 0 to 255; ValueError if they are none."""
    if array.ndim == 3:
        array = array[..., np.newaxis]
    if array.dtype.kind not in "buif" or array.ndim != 4 or array.shape[3] != 1 or not array.size:
        raise ValueError(f"{name} is {array.dtype} {array.shape}, not grey (n, height, width)")
    if not 0 <= array.min() <= array.max() <= 255:
        raise ValueError(f"{name} has pixels that are not from 0 to 255")
    if array.dtype.kind in "bf" and array.max() <= 1:
        array = np.rint(array * np.float32(255))
    return array.astype(np.uint8, copy=False)


def as_labels(array, name, count):
    """Return labels or one-hot rows as int64 (count,); ValueError if they are none."""
    numeric = array.dtype.kind in "buif"
    if numeric and array.ndim == 2 and array.shape[1] > 1:
        one_hot = np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all()
        if one_hot:
            array = array.argmax(axis=1)
    fits = array.shape in ((count,), (count, 1))
    if not numeric or not fits or not np.isin(array, range(1000)).all():
        form = f"{count} whole numbers from 0 to 999, or one-hot rows"
        raise ValueError(f"{name} is {array.dtype} {array.shape}, not {form}")
    return array.ravel().astype(np.int64)


def load_data(path=None, limit=None):
    """Return x_train, y_train, x_test, y_test, classes: MNIST, or the data set at path.

    Images are uint8 (n, height, width, 1), labels int64 (n,) from 0 to classes - 1, the first
    limit of each part. Raises InputError naming what cannot be used.
    """
    source = Path(path or BUNDLED_DATA)
    try:
        x_train, y_train, x_test, y_test = read_arrays(source)
        x_train, x_test = as_images(x_train, "x_train"), as_images(x_test, "x_test")
        y_train = as_labels(y_train, "y_train", len(x_train))
        y_test = as_labels(y_test, "y_test", len(x_test))
        if len(x_train) < 24 or y_train.min() == y_train.max():
            raise ValueError("it has fewer than 24 training images, or one label only")
        if x_train.shape[1:] != x_test.shape[1:] or y_test.max() > y_train.max():
            raise ValueError("its test images have another size or labels above those in training")
    except Exception as error:  # damaged bytes make zipfile and NumPy raise many kinds
        lacking = "" if path or source.exists() else "no such file, nor a download: "
        raise InputError(f"{source}: {lacking}{reason(error)}; {DATA_FORMS}") from None
    classes = int(y_train.max()) + 1
    return x_train[:limit], y_train[:limit], x_test[:limit], y_test[:limit], classes


def split_validation(images, labels):
    """Return (images, labels) to train on and, the same in every run, (images, labels) held out."""
    from sklearn.model_selection import train_test_split

    held_out = min(5000, len(images) // 12)
    parts = train_test_split(images, labels, test_size=held_out, random_state=0)
    x_train, x_validation, y_train, y_validation = parts
    return (x_train, y_train), (x_validation, y_validation)


# --------------------------------------------------------------------------------------- Model
def normalization():
    """Return a layer that brings each feature to mean 0 and deviation 1, and learns no weights.

    Batch normalization (Ioffe and Szegedy, 2015), without offset or scale: by the batch in
    training, then by its average. Of training images whose writers were held out, the network reads
    99.53 % with it, and a first pooling by 3, in half the time in which it reads 99.44 % without.
    """
    from keras.layers import BatchNormalization

    # The average follows within ten steps, or a run of few steps would end before it had.
    return BatchNormalization(center=False, scale=False, momentum=0.9)


def convolution_blocks(image_shape, settings):
    """Return the layers of the blocks: convolution, pooling, normalization and activation.

    Max pooling commutes with functions that only rise, as ReLU and tanh do, though not gelu and
    silu, and is a tenth faster before them.
    """
    from keras.layers import Activation, Conv2D, MaxPooling2D

    layers, size = [], min(image_shape[:2])
    # The first pooling by 3 in place of 2 halves the time; in a short run it validates as well.
    kernel_size, pool_size = settings.kernel_size, settings.pool_size
    for filters in settings.filters:
        # Small images keep their border, or a further block would have nothing to see.
        padding = "valid" if size >= 2 * kernel_size else "same"
        if padding == "valid":
            size -= kernel_size - 1
        size = math.ceil(size / pool_size)
        layers.append(Conv2D(filters, kernel_size, padding=padding, use_bias=False))
        layers.append(MaxPooling2D(pool_size, padding="same"))
        layers.append(normalization())
        layers.append(Activation(settings.activation))
        # On a pooled image, kernels of 3 take a fifth less time than those of 5.
        kernel_size, pool_size = 3, 2
    return layers


def build_model(image_shape, classes, settings):
    """Return an untrained Keras model: raw pixels (n, height, width, 1) in, probabilities out."""
    from keras import Input, Sequential
    from keras.layers import Activation, Dense, Flatten, Rescaling

    layers = [
        Input(image_shape, name="pixels"),
        Rescaling(1 / 255),
        *convolution_blocks(image_shape, settings),
        Flatten(),
        Dense(settings.dense_units, use_bias=False),
        normalization(),
        Activation(settings.activation),
        Dense(classes, activation="softmax", name="probabilities"),
    ]
    return Sequential(layers, name="digit_recognition")


def compile_model(model, image_count, settings):
    """Give the model a loss, a metric and an optimizer for image_count images an epoch.

    Its learning rate climbs for a fifth of the steps, then falls to 0 along a cosine.
    """
    import keras
    import tensorflow as tf

    name, _, options = OPTIMIZERS[settings.optimizer]
    steps = settings.epochs * (image_count // min(settings.batch_size, image_count))
    warmup = max(1, steps // 5)
    peak, decay = settings.learning_rate, max(1, steps - warmup)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps=decay, warmup_target=peak, warmup_steps=warmup
    )
    model.compile(
        optimizer=getattr(keras.optimizers, name)(schedule, **options),
        # 0.1 and 0.15 read as many digits of held-out writers, within the spread between seeds.
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.05),
        metrics=[keras.metrics.CategoricalAccuracy("accuracy")],
        # Sixteen steps a call spare Python's overhead, but fail on several devices in Keras 3.15.
        steps_per_execution=1 if tf.distribute.has_strategy() else 16,
    )
    # Variables made while the first step is traced would have it traced again: a second more.
    model.optimizer.build(model.trainable_variables)


@functools.cache
def load_model(path):
    """Return the Keras model in a .keras file (its code is never run); InputError if unfit.

    A path is read once in a process: to use what was trained since, pass read_digits a model.
    """
    if not Path(path).exists():
        raise InputError(f"{path}: no such model; train it first: python digit_recognition.py")
    import_tensorflow()
    import keras

    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        if model.input_shape[1:] != (28, 28, 1):
            raise ValueError(f"it takes images of shape {model.input_shape[1:]}, not (28, 28, 1)")
    except Exception as error:  # a file that is no model raises whatever Keras and h5py think of
        raise InputError(f"{path}: {reason(error)}; name a trained model with --model") from None
    return model


# ------------------------------------------------------------------------------------ Training
# Standard deviation of a pull in pixels of a 28 x 28 image: see warp. 0.6 validates better on
# images of the writers who are trained on, by 0.1 points, and no better on those of others.
WARP = 0.8
# Rubber sheets a batch, fewer where they would not share it equally: as good as one an image, for a
# third of the time.
SHEETS = 16
EVALUATION_BATCH = 500  # images that are read at once: divides 5,000 and 10,000
UNFINISHED = "unfinished-"  # begins the name of the folder from which --resume goes on
BACKUP = "training_metadata.json"  # what Keras writes there last at the end of an epoch


def warp(images, seed, sheets):
    """Return images (n, height, width, 1) as if printed on rubber sheets that are pulled about.

    A sheet carries an equal part of the batch and is pulled at 4 x 4 points, which shifts, turns,
    scales, slants and bends it at once (elastic distortions: Simard et al., 2003).
    """
    import tensorflow as tf

    _, height, width, _ = images.shape
    pulls = tf.random.stateless_normal((sheets, 4, 4, 2), seed, stddev=WARP * width / 28)
    pulls = tf.image.resize(pulls, (height, width), "bicubic")
    rows = pulls[..., 0] + tf.range(height, dtype="float32")[:, tf.newaxis]
    columns = pulls[..., 1] + tf.range(width, dtype="float32")
    rows = tf.reshape(rows, (sheets, height * width))
    columns = tf.reshape(columns, (sheets, height * width))

    pixels = tf.reshape(tf.cast(images, "float32"), (sheets, -1, height * width))
    pixels = tf.transpose(pixels, (0, 2, 1))  # sheets, places, images of a sheet
    warped = 0.0
    # A warped pixel is the bilinear mean of the four pixels around the place it is pulled from.
    for row in (tf.floor(rows), tf.floor(rows) + 1):
        for column in (tf.floor(columns), tf.floor(columns) + 1):
            weight = (1 - abs(rows - row)) * (1 - abs(columns - column))
            inside_row = tf.clip_by_value(row, 0, height - 1)
            inside_column = tf.clip_by_value(column, 0, width - 1)
            place = tf.cast(inside_row * width + inside_column, "int32")
            warped += weight[..., tf.newaxis] * tf.gather(pixels, place, batch_dims=1)
    return tf.reshape(tf.transpose(warped, (0, 2, 1)), tf.shape(images))


def change_pens(images, seed):
    """Return images (n, height, width, 1), half of them as if each were written with another pen.

    A power of the grey levels makes strokes and their soft edges wider or narrower. With it, the
    network reads 92 % of scikit-learn's digits, scaled to 20 x 20 only, and 87 % without.
    """
    import tensorflow as tf

    half = len(images) // 2
    powers = 4 ** tf.random.stateless_uniform((half, 1, 1, 1), seed, -1, 1)
    return tf.concat([255 * (images[:half] / 255) ** powers, images[half:]], axis=0)


def training_batches(images, labels, epoch, settings):
    """Return a tf.data.Dataset of the shuffled and warped batches of one epoch.

    Seed, epoch (an int64 tf.Variable) and place alone decide what a batch holds, so that a
    resumed run sees what an uninterrupted one would have seen.
    """
    import tensorflow as tf

    count = len(images)
    batch_size = min(settings.batch_size, count)
    images, labels = tf.constant(images), tf.constant(labels)

    def make_batch(start):
        positions = tf.range(start, start + batch_size)
        chosen = tf.random.experimental.index_shuffle(positions, [settings.seed, epoch], count - 1)
        batch = tf.ensure_shape(tf.gather(images, chosen), (batch_size, *images.shape[1:]))
        if settings.augment:
            seen_before = epoch * count + start
            batch = warp(batch, [settings.seed, seen_before], math.gcd(batch_size, SHEETS))
            # The other way round, or both would draw the same numbers.
            batch = change_pens(batch, [seen_before, settings.seed])
        return batch, tf.gather(labels, chosen)

    starts = tf.data.Dataset.range(0, count - batch_size + 1, batch_size)
    options = tf.data.Options()
    # Autotuning sleeps for 10, 20, 40 ... ms and each epoch's end waits: 10.2 s in place of 6.5.
    options.autotune.enabled = False
    return starts.map(make_batch).prefetch(2).with_options(options)


def choose_strategy():
    """Return the tf.distribute strategy: where there are several GPUs, all of them train."""
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def unfinished_folders(settings):
    """Return the folders from which --resume could go on, in the order of their last use."""
    backups = Path(settings.output_dir).glob(f"{UNFINISHED}*/{BACKUP}")
    return sorted((backup.parent for backup in backups), key=os.path.getmtime)


def interrupted_run(settings):
    """Return the folder from which --resume goes on; InputError if it cannot."""
    try:
        folder = unfinished_folders(settings)[-1]
        earlier = json.loads((folder / "settings.json").read_text())
    except (IndexError, OSError, ValueError):
        raise InputError(f"{settings.output_dir}: nothing to resume, omit --resume") from None
    for flag, value in learned_by(settings).items():
        if earlier.get(flag) != value:
            change = f"{flag} was {earlier.get(flag)}, now {value}"
            raise InputError(f"--resume: {change}; make it the same")
    return folder


@contextlib.contextmanager
def unfinished_folder(settings):
    """Yield a folder for what a run needs to go on after an interruption.

    The folder is removed when the run is complete, or is cut short before its first epoch is. A
    complete run also removes what older runs have left there.
    """
    if settings.resume:
        folder = interrupted_run(settings)
    else:
        folder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=settings.output_dir))
        (folder / "settings.json").write_text(json.dumps(learned_by(settings)))
    began = folder.stat().st_mtime
    try:
        yield folder
        (folder / BACKUP).unlink()
        for other in folder.parent.glob(UNFINISHED + "*"):
            with contextlib.suppress(FileNotFoundError):  # another run has just removed it
                if other.stat().st_mtime < began:  # untouched since: no run is at work in it
                    shutil.rmtree(other)
    finally:
        if not (folder / BACKUP).exists():
            shutil.rmtree(folder, ignore_errors=True)


def read_history(path):
    """Return what a CSVLogger wrote, a structured array with a row an epoch, from epoch 1."""
    rows = np.genfromtxt(path, delimiter=",", names=True, ndmin=1)
    rows["epoch"] += 1
    # A run killed between an epoch's row and its backup repeats the epoch: its last row counts.
    last_rows = {row["epoch"]: row for row in rows}
    return np.array(list(last_rows.values()))


def train(model, training, validation, folder, settings):
    """Train the compiled model, going on from the folder's backup; return history and seconds.

    training, validation: (images, one-hot labels); history: see read_history; seconds: (wall, CPU).
    Raises InputError if the backup is damaged, FloatingPointError if the loss becomes NaN.
    """
    import tensorflow as tf
    from keras import callbacks

    epoch = tf.Variable(0, dtype="int64")
    backup = callbacks.BackupAndRestore(folder, double_checkpoint=True, delete_checkpoint=False)
    backup.set_model(model)
    try:
        backup.on_train_begin()  # as fit does, but here a damaged backup can be named
    except Exception as error:  # a damaged file makes h5py and Keras raise many kinds
        raise InputError(f"{folder}: {reason(error)}; nothing to resume, omit --resume") from None
    mark_epoch = callbacks.LambdaCallback(
        on_epoch_begin=lambda number, logs: epoch.assign(number),
        on_epoch_end=lambda number, logs: os.utime(folder),  # a sign that it is in use
    )
    table = callbacks.CSVLogger(folder / "history.csv", append=True)
    began, cpu_began = time.perf_counter(), time.process_time()
    model.fit(
        training_batches(*training, epoch, settings),
        epochs=settings.epochs,
        shuffle=False,  # training_batches does
        validation_data=validation,
        validation_batch_size=EVALUATION_BATCH,
        callbacks=[mark_epoch, callbacks.TerminateOnNaN(), table, backup],
        verbose=1 if sys.stdout.isatty() else 2,  # a bar, or a line an epoch
    )
    seconds = (time.perf_counter() - began, time.process_time() - cpu_began)
    history = read_history(folder / "history.csv")
    if not math.isfinite(history["loss"][-1]):
        (folder / BACKUP).unlink(missing_ok=True)
        raise FloatingPointError("the loss is NaN or infinite; lower --learning-rate")
    return history, seconds


# ---------------------------------------------------------------------------------- Evaluation
def evaluate(probabilities, labels):
    """Return the test metrics, a dict, and a text: scikit-learn's report, then loss and accuracy.

    probabilities: float (n, classes); labels: int (n,). The 95 % interval is Wilson's (1927).
    """
    from sklearn.metrics import classification_report, log_loss

    count, every_label = len(labels), range(probabilities.shape[1])
    predicted = probabilities.argmax(axis=1)
    right = int((predicted == labels).sum())
    interval = scipy.stats.binomtest(right, count).proportion_ci(method="wilson")
    loss = log_loss(labels, probabilities, labels=every_label)
    options = {"labels": every_label, "zero_division": 0}
    report = classification_report(labels, predicted, digits=4, **options)
    metrics = {
        "test_accuracy": right / count,
        "test_interval": [interval.low, interval.high],
        "test_errors": count - right,
        "test_images": count,
        "test_loss": loss,
        "report": classification_report(labels, predicted, output_dict=True, **options),
    }
    spread = f"95 % interval {100 * interval.low:.2f}-{100 * interval.high:.2f} %"
    answer = f"{100 * right / count:.2f} % ({count - right} of {count} wrong, {spread})"
    return metrics, f"{report}\nTest loss: {loss:.4f}\nTest accuracy: {answer}"


# ------------------------------------------------------------------------------------- Figures
BLUE, ORANGE = "#0072b2", "#d55e00"  # colour-blind people tell these apart (Okabe and Ito, 2008)


def plot_history(figure, history):
    """Draw training and validation accuracy and loss over the epochs."""
    for axis, name in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        axis.plot(history["epoch"], history[name], "o-", color=BLUE, label="training")
        axis.plot(history["epoch"], history[f"val_{name}"], "s--", color=ORANGE, label="validation")
        axis.set(xlabel="epoch", ylabel=name, title=f"{name.capitalize()} over the epochs")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()


def plot_digits(figure, title, images, labels, probabilities):
    """Draw up to 28 images with predicted and true labels; wrong ones in orange."""
    figure.suptitle(title)
    axes = figure.subplots(4, 7, subplot_kw={"frame_on": False, "xticks": [], "yticks": []})
    for axis, image, label, row in zip(axes.flat, images, labels, probabilities, strict=False):
        predicted = row.argmax()
        color, mark = ("black", "") if predicted == label else (ORANGE, " WRONG")
        axis.imshow(image[..., 0], cmap="gray_r")
        text = f"predicted {predicted}, true {label}\n{row.max():.1%}{mark}"
        axis.set_title(text, fontsize=9, color=color)


def plot_confusion(figure, labels, predicted, classes):
    """Draw how often each of the labels, int (n,), was taken for which of the classes."""
    from matplotlib.colors import PowerNorm
    from sklearn.metrics import ConfusionMatrixDisplay

    axis = figure.subplots()
    # The cube root lets a single mistake be seen beside a diagonal of a thousand.
    look = {"cmap": "Blues", "colorbar": False, "im_kw": {"norm": PowerNorm(1 / 3)}}
    display = ConfusionMatrixDisplay.from_predictions(
        labels, predicted, labels=range(classes), values_format="d", ax=axis, **look
    )
    for text in display.text_[display.confusion_matrix == 0]:
        text.remove()
    axis.set(xlabel="predicted label", ylabel="true label")
    axis.set_title("Test images by true and predicted label")


def draw_figures(history, images, labels, probabilities):
    """Return the figures of a run, a dict from file name to Matplotlib figure."""
    import matplotlib.pyplot as plt

    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]
    look = {"layout": "constrained", "clear": True}
    side = max(6.5, 0.6 * classes)  # inches of 100 pixels: a laptop screen shows seven

    curves = plt.figure("Training curves", figsize=(10, 4), **look)
    plot_history(curves, history)
    samples = plt.figure("Sample predictions", figsize=(10, 6.5), **look)
    plot_digits(samples, "The first test images", images, labels, probabilities)
    matrix = plt.figure("Confusion matrix", figsize=(side, side), **look)
    plot_confusion(matrix, labels, predicted, classes)
    mistakes = plt.figure("Mistakes", figsize=(10, 6.5), **look)
    shown = (images[worst], labels[worst], probabilities[worst])
    plot_digits(mistakes, "The most confident mistakes", *shown)
    return {
        "training_curves.png": curves,
        "sample_predictions.png": samples,
        "confusion_matrix.png": matrix,
        "mistakes.png": mistakes,
    }


def plot_readings(figure, readings):
    """Draw a row for each of {path: Reading}: the original with boxes, what the network saw."""
    from matplotlib.patches import Rectangle

    axes = figure.subplots(len(readings), 2, squeeze=False, subplot_kw={"xticks": [], "yticks": []})
    for (original, seen), (path, reading) in zip(axes, readings.items(), strict=True):
        image, side = open_grey(path)
        width, height = side * np.array(image.size) / max(image.size)
        original.imshow(image, cmap="gray", extent=(0, width, height, 0))
        original.set_title(path.name, fontsize=9, parse_math=False)
        best, labels = reading.probabilities.max(axis=1), reading.probabilities.argmax(axis=1)
        for (left, top, *size), share, label in zip(reading.boxes, best, labels, strict=True):
            color = BLUE if share >= CONFIDENT else ORANGE
            original.add_patch(Rectangle((left, top), *size, fill=False, color=color))
            original.text(left, top, label, color=color, fontsize=9, ha="right", va="bottom")
        rows = np.split(reading.images, reading.row_starts)
        page = np.zeros((28 * len(rows), 28 * max(map(len, rows))), np.uint8)
        for number, row in enumerate(rows):
            page[28 * number : 28 * number + 28, : 28 * len(row)] = np.hstack(row)
        seen.imshow(page, cmap="gray_r")
        seen.set_title("what the network saw", fontsize=9)


# ----------------------------------------------------------------------------- Your own images
# Numbers without a reason were chosen on pages of tests/pages.py with seeds from 1000 on, and on
# scikit-learn's digits.
CONFIDENT = 0.8  # of the validation images 2.2 % are below, with three of four mistakes
SIDE = 1280  # pixels of a photo at most; digits are found at heights of 20 to 120
CORNERS = ([0, 0, -1, -1], [0, -1, 0, -1])  # rows and columns of an array's four
Reading = namedtuple("Reading", "digits probabilities images confident boxes row_starts")


def open_grey(source):
    """Open a path, an array or a Pillow image; return it grey, upright, on white, and a side.

    It has no side longer than SIDE pixels; the side returned is the longer one of the original.
    """
    image = Image.fromarray(source) if isinstance(source, np.ndarray) else source
    image = image if isinstance(image, Image.Image) else Image.open(image)
    side = max(image.size)
    if image is not source:  # which drafting would change
        image.draft("L", (SIDE, SIDE))  # lets a large JPEG be decoded at a fraction of its size
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # 16 bits and more, which convert() would clip
        values = np.asarray(image, np.float32) - min(image.getextrema())
        image = Image.fromarray(np.uint8(255 * values / max(values.max(), 1e-9)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L")
    image.thumbnail((SIDE, SIDE))
    return image, side


def without_lines(ink):
    """Return ink, float (height, width), less thin horizontal lines of 120 pixels and more."""
    thick = scipy.ndimage.grey_dilation(ink, (5, 1))  # so that a line may be slanted
    line = scipy.ndimage.grey_opening(thick, (1, 120))
    thin = ink - scipy.ndimage.grey_opening(ink, (7, 1))  # what crosses a line is not thin
    return ink - np.minimum(line, thin)


def lift_ink(page):
    """Return the ink of a grey Pillow image, float32: 0 on paper, about 1 in dark strokes.

    Paper is what a grey closing makes of grey levels: it fills what is dark and narrow, so strokes,
    but not shadows. Over the square root of the light, grain is alike in light and in shadow.
    """
    grey = scipy.ndimage.gaussian_filter(np.asarray(page, np.float32), 1)
    paper = scipy.ndimage.grey_closing(grey, (41, 41))
    ink = (paper - grey) / np.sqrt(np.maximum(paper, 10))
    noise = np.median(abs(np.diff(ink, axis=0)))
    ink = (ink - np.median(ink)).clip(0)  # grain makes the closing too bright
    ink = np.minimum(without_lines(ink), without_lines(ink.T).T)
    # If all corners are dark, the page lies on a table: what is as dark is not paper.
    brightest = paper[CORNERS].max()
    if brightest < 0.65 * np.percentile(paper, 75):
        ink[paper < 1.25 * brightest] = 0
    level = ink.max()
    for _ in range(8):  # towards the mean of strokes: of all that is above half of it
        level = ink[ink >= level / 2].mean()
    return ink / max(level, 27 * noise, 0.4)  # lest grain be ink where there is no stroke


def to_mnist_form(ink):
    """Return a digit's ink, float (height, width), as MNIST has it: uint8 (28, 28).

    Scaled into 20 x 20 and centred by its mass (LeCun et al., 1998, section III.A).
    """
    image = Image.fromarray(np.uint8(np.clip(280 * ink - 55, 0, 255)))
    image = image.crop(image.point(lambda value: 255 * (value > 60)).getbbox())
    sides = [max(round(20 * side / max(image.size)), 1) for side in image.size]
    digit = np.asarray(ImageOps.autocontrast(image.resize(sides)))
    top, left = np.rint(scipy.ndimage.center_of_mass(digit)).astype(int)
    return np.pad(digit, 14)[top : top + 28, left : left + 28]  # 14 on either side of the centre


def find_digits(page):
    """Return images, boxes and row starts of dark digits in a grey Pillow image.

    As read_digits returns them, but boxes in lengths of the page's longer side. Digits are 20 to
    120 pixels high, half the usual height or more, and touch the page's border only if all do.
    """
    ink = lift_ink(page)
    stroke = scipy.ndimage.binary_dilation(ink > 0.4)  # by a pixel all around
    near = tall = scipy.ndimage.binary_dilation(stroke, np.ones((5, 1)))
    for _ in range(2):
        labels = scipy.ndimage.label(near, np.ones((3, 3)))[0] * stroke
        places = scipy.ndimage.find_objects(labels)
        edges = [(columns.start, rows.start, columns.stop, rows.stop) for rows, columns in places]
        left, top, right, bottom = np.array(edges, int).reshape(-1, 4).T
        height, longer = bottom - top, np.maximum(right - left, bottom - top)
        # The table, or paper that is darker than its digits, fills two corners.
        corners = np.bincount(labels[CORNERS], minlength=len(places) + 1)
        fit = (longer >= 7) & (longer <= 120) & (corners[1:] < 2)
        margin = np.min([left, top, page.width - right, page.height - bottom], axis=0)
        inside = fit & (margin > 2)
        fit = inside if inside.any() else fit
        # Specks are many, so that each counts less than a digit.
        usual = np.median(np.repeat(height[fit], height[fit])) if fit.any() else 0
        # Once more, with small parts, as of an open 4 or the bar of a 5, joined to what is near.
        small = np.append(False, fit & (height < 0.65 * usual))[labels]
        reach = int(0.3 * usual) + 1, int(0.2 * usual) + 1
        near = tall | scipy.ndimage.maximum_filter(small, reach)
    fit &= (height > max(20, 0.5 * usual)) & (longer < 2 * usual)
    digits, middle = np.flatnonzero(fit), (top + bottom) / 2
    digits = digits[np.argsort(middle[digits])]
    starts = np.flatnonzero(np.diff(middle[digits]) > 0.5 * usual) + 1
    digits = np.concatenate([row[np.argsort(left[row])] for row in np.split(digits, starts)])
    parts = [np.where(labels[places[n]] == n + 1, ink[places[n]], 0) for n in digits]
    images = [to_mnist_form(part) for part in parts]
    boxes = np.stack([left + 1, top + 1, right - left - 2, height - 2], axis=1)[digits]
    return np.array(images), boxes / max(page.size), starts


def copies(image):
    """Yield a grey Pillow image, unless dark, its negative, unless bright, and smaller copies."""
    for page, least in ((image, 64), (ImageOps.invert(image), 95)):
        if np.median(page) < least:
            continue
        if min(page.size) >= 8 and max(page.size) < 128:
            page = ImageOps.contain(page, (128, 128))
        while min(page.size) >= 8 and max(page.size) > 60:
            yield page
            page = page.resize([math.ceil(side / 2**0.5) for side in page.size], Image.BILINEAR)


def read_image(image, model):
    """Return probabilities, images, boxes and row starts of the digits in a grey Pillow image.

    They are as find_digits returns them, of the copy with most evidence. A digit's evidence is its
    probability less 0.7, times its size to the power of 0.75. Returns None if there is no digit.
    """
    found = [find_digits(page) for page in copies(image)]
    if image.size == (28, 28) and image.getbbox() and not np.median(image):  # as MNIST has it
        box, no_starts = np.array([[0, 0, 1, 1]]), np.array([], int)
        found.append((np.asarray(image)[np.newaxis], box, no_starts))
    best, most = None, -math.inf
    for images, boxes, starts in found:
        if len(images):
            probabilities = np.asarray(model(images[..., np.newaxis], training=False))
            evidence = (boxes[:, 2:].max(axis=1) ** 0.75) @ (probabilities.max(axis=1) - 0.7)
            if evidence > most:
                best, most = (probabilities, images, boxes, starts), evidence
    return best


def read_digits(image_or_path, model="output/model.keras"):
    """Return the Reading of an image: a path, a Pillow image, or an array, uint8 (height, width).

    It has the digits, a str with a newline between rows; their probabilities, float32 (n, classes);
    their images as the network saw them, uint8 (n, 28, 28); whether all are confident, 0.8 or more;
    their boxes, int (n, 4): left, top, width, height, in pixels of the upright original; and
    row_starts, the indices of the digits that begin a new row.
    model: a Keras model, or a path. Raises InputError if the image or the model cannot be used.
    """
    model = load_model(str(model)) if isinstance(model, str | Path) else model
    name = image_or_path if isinstance(image_or_path, str | Path) else "image"
    try:
        image, side = open_grey(image_or_path)
    except Exception as error:  # a damaged file raises whatever Pillow thinks of
        remedy = "give a whole image, such as a PNG or JPEG, or a folder of them"
        raise InputError(f"{name}: {reason(error)}; {remedy}") from None
    found = read_image(image, model)
    if not found:
        raise InputError(f"{name}: no digit stands out from the paper; write larger or darker")
    probabilities, images, boxes, starts = found
    labels, best = probabilities.argmax(axis=1).astype(str), probabilities.max(axis=1)
    digits = "\n".join("".join(row) for row in np.split(labels, starts))
    boxes = np.rint(side * boxes).astype(int)
    return Reading(digits, probabilities, images, bool(best.min() >= CONFIDENT), boxes, starts)


# ---------------------------------------------------------------------------- A pad to draw on
PAD_HINT = "Draw digits here.  Keys: c clear, z undo, s save, q quit"
NO_WINDOW = "--draw: no window can be opened: it takes a display and, on Debian, python3-tk"


def draw_strokes(strokes):
    """Return strokes, lists of (x, y) in pixels, as a grey Pillow image, black on white."""
    image = Image.new("L", (800, 400), 255)
    pen = ImageDraw.Draw(image)
    for stroke in strokes:
        # As MNIST's strokes, 2.4 of 20 pixels, are 25 in a digit of half the pad's height.
        pen.line(stroke, fill=0, width=25)
        for point in stroke:
            pen.circle(point, 12, fill=0)
    return image


class Pad:
    """A Matplotlib figure to draw digits on, which are read at the end of each stroke."""

    def __init__(self, figure, model, folder):
        from matplotlib.widgets import Button, LassoSelector

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
            while Path(self.folder, f"drawing-{number}.png").exists():
                number += 1
            draw_strokes(self.strokes).save(f"{self.folder}/drawing-{number}.png")
            print(f"Saved {self.folder}/drawing-{number}.png", flush=True)
        self.show()

    def show(self):
        """Read the drawing; show the digits, what the network saw, and the last digit's bars."""
        drawing, seen, bars = draw_strokes(self.strokes), self.axes["seen"], self.axes["bars"]
        labels = range(self.model.output_shape[1])
        probabilities = np.zeros(len(labels))
        seen.clear()
        bars.clear()
        try:
            # Half the pixels are enough, and are read in 70 ms, all of them in 125.
            reading = read_digits(drawing.reduce(2), self.model)
            self.axes["pad"].set_title(reading.digits.replace("\n", " / "), fontsize=24)
            seen.imshow(np.hstack(reading.images), cmap="gray_r")
            probabilities = reading.probabilities[-1]
        except InputError:  # so far there is nothing to read
            self.axes["pad"].set_title(PAD_HINT, fontsize=12)
        self.paper.set_data(drawing)
        self.axes["pad"].set(xticks=[], yticks=[])
        seen.set(title="what the network saw", xticks=[], yticks=[])
        bars.bar(labels, probabilities, color=BLUE)
        bars.set(title="probability of the last digit", ylim=(0, 1), xticks=labels, yticks=[])
        self.canvas.draw_idle()


def draw(settings):
    """Show the pad until its window is closed; InputError if no window can be opened."""
    import matplotlib.pyplot as plt

    # Matplotlib's other keys would give the pad's a second meaning.
    others = [name for name in plt.rcParams.find_all("keymap") if name != "keymap.quit"]
    plt.rcParams.update({name: [] for name in others}, toolbar="None")
    with contextlib.suppress(Exception):  # each kind of window has exceptions of its own
        plt.figure("Draw digits", figsize=(10, 5))
    if not plt.get_fignums() or plt.get_backend().lower() == "agg":
        raise InputError(NO_WINDOW)
    model = load_model(settings.model)
    prepare_folder(settings.output_dir)
    pad = Pad(plt.gcf(), model, settings.output_dir)  # noqa: F841, its callbacks live as it does
    plt.show()


# ------------------------------------------------------------------------------- The whole run
@contextlib.contextmanager
def replacing(folder):
    """Yield a new folder; if the block ends well, its files take the place of those in folder."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as fresh:
        yield Path(fresh)
        for file in sorted(Path(fresh).iterdir()):
            os.replace(file, Path(folder) / file.name)


def prepare_folder(folder):
    """Make the output folder and prove that it can be written; InputError if it cannot."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"{folder}: {reason(error)}; name another with --output-dir") from None
    for left in Path(folder).glob(".writing-*"):  # by a run that was killed while writing
        if time.time() - left.stat().st_mtime > 60:
            shutil.rmtree(left, ignore_errors=True)


def describe_run(model, seconds, settings):
    """Return what else metrics.json says: costs, and what repeats the run."""
    import keras
    import tensorflow as tf

    versions = {module.__name__: module.__version__ for module in (tf, keras, np)}
    return {
        "train_seconds": seconds[0],
        "train_cpu_seconds": seconds[1],
        "epochs": settings.epochs,
        "seed": settings.seed,
        "parameters": model.count_params(),
        "replicas": model.distribute_strategy.num_replicas_in_sync,
        "command": command_line(settings),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), **versions},
    }


def save_run(folder, model, history, metrics, figures):
    """Write the files of a finished run into the output folder; return their names."""
    with replacing(folder) as fresh:
        model.save(fresh / "model.keras")
        header = ",".join(history.dtype.names)
        table = fresh / "history.csv"
        np.savetxt(table, history, "%.6g", delimiter=",", header=header, comments="")
        (fresh / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
        for name, figure in figures.items():
            figure.savefig(fresh / name, dpi=120)
    return ["model.keras", "history.csv", "metrics.json", *figures]


def run(settings):
    """Load, train, evaluate, draw, save and print: the whole job."""
    import_tensorflow()
    import keras
    import matplotlib.pyplot as plt

    if not settings.show:
        plt.switch_backend("agg")
    x_train, y_train, x_test, y_test, classes = load_data(settings.data, settings.limit)
    one_hot = keras.utils.to_categorical(y_train, classes)
    training, validation = split_validation(x_train, one_hot)
    del x_train  # 47 MB of the peak: its images have been copied
    keras.utils.set_random_seed(settings.seed)
    strategy = choose_strategy()
    with strategy.scope():
        model = build_model(x_test.shape[1:], classes, settings)
    prepare_folder(settings.output_dir)
    with unfinished_folder(settings) as folder:
        model.summary()
        counts = f"{len(training[0])} images, validating on {len(validation[0])}"
        print(f"Training on {counts}", flush=True)
        with strategy.scope():
            compile_model(model, len(training[0]), settings)
        history, seconds = train(model, training, validation, folder, settings)
        # Sixteen steps a call, which training gains by, cost predict half a second to trace.
        model.steps_per_execution = 1
        probabilities = model.predict(x_test, batch_size=EVALUATION_BATCH, verbose=0)
        metrics, report = evaluate(probabilities, y_test)
        metrics |= describe_run(model, seconds, settings)
        figures = draw_figures(history, x_test, y_test, probabilities)
        names = save_run(settings.output_dir, model, history, metrics, figures)
    print(f"Saved in {settings.output_dir}: {', '.join(names)}\n{report}", flush=True)
    if plt.get_backend().lower() != "agg":
        plt.show()
    plt.close("all")


# -------------------------------------------------------------------------------- Command line
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def image_files(paths):
    """Return the paths of images, those in folders among them in the order of their names."""
    found = []
    for path in map(Path, paths):
        inside = sorted(path.iterdir()) if path.is_dir() else []
        images = [file for file in inside if file.suffix.lower() in IMAGE_SUFFIXES]
        found += images or [path]
    return found


def describe_reading(path, reading, as_json):
    """Return the line that says what was read in an image; a doubtful digit has a question mark."""
    shares = reading.probabilities.max(axis=1).astype(float)
    if as_json:
        found = {"file": str(path), "digits": reading.digits}
        found["probabilities"] = shares.round(4).tolist()
        return json.dumps(found | {"boxes": reading.boxes.tolist(), "confident": reading.confident})
    marks, details = [], []
    for label, share in zip(reading.probabilities.argmax(axis=1), shares, strict=True):
        marks.append(f"{label}?" if share < CONFIDENT else f"{label}")
        details.append(f"{label} {100 * share:.1f} %")
    text = " / ".join("".join(row) for row in np.split(marks, reading.row_starts))
    return f"{path}: {text}  ({', '.join(details)})"


def predict(settings):
    """Read the images of --predict and draw the first 20; return 1 if any could not be read."""
    from matplotlib.figure import Figure

    warnings.simplefilter("ignore")  # Pillow's, on damaged metadata
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    model = load_model(settings.model)
    prepare_folder(settings.output_dir)
    code, readings = 0, {}
    for path in image_files(settings.predict):
        try:
            readings[path] = read_digits(path, model)
            print(describe_reading(path, readings[path], settings.json), flush=True)
        except InputError as error:
            code = complain(error, 1)
    if readings:
        readings = dict(list(readings.items())[:20])
        figure = Figure(figsize=(10, 3 * len(readings)), layout="constrained")
        plot_readings(figure, readings)
        with replacing(settings.output_dir) as fresh:
            figure.savefig(fresh / "predictions.png", dpi=120)
    return code


def complain(message, code):
    """Print one line on stderr and return the exit code."""
    print(f"digit_recognition.py: {message}", file=sys.stderr, flush=True)
    return code


def terminate(number, frame):
    """Handle SIGTERM as Python handles Ctrl-C."""
    raise KeyboardInterrupt("SIGTERM")


def main(words=None):
    """Do what the command line asks for; return the exit code."""
    settings = parse_settings(words)
    signal.signal(signal.SIGTERM, terminate)
    try:
        if settings.predict:
            return predict(settings)
        if settings.draw:
            draw(settings)
        else:
            run(settings)
        return 0
    except InputError as error:
        return complain(error, 1 if settings.predict else 2)
    except (FloatingPointError, OSError) as error:
        remains = f"files written earlier in {settings.output_dir} are untouched"
        return complain(f"{reason(error)}; {remains}", 1)
    except KeyboardInterrupt as interrupt:
        command = ["python", *sys.argv]
        no_run = settings.predict or settings.draw
        if not no_run and not settings.resume and unfinished_folders(settings):
            command.append("--resume")
        code = 143 if interrupt.args else 130
        return complain(f"interrupted; go on with {shlex.join(command)}", code)


if __name__ == "__main__":
    sys.exit(main())
