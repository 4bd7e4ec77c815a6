# /// script
# requires-python = ">=3.10,<3.14"
# dependencies = ["tensorflow>=2.20", "numpy>=2.0", "matplotlib>=3.9", "pillow>=11.1"]
# ///
"""Train a small convolutional network to read handwritten digits, then read your own with it.

    python digit_recognition.py                        train on MNIST, evaluate, plot: 99.54 %
    python digit_recognition.py --epochs 1             the same in ten seconds: 99.20 %
    python digit_recognition.py --data FOLDER          on another data set of the same form
    python digit_recognition.py --predict photo.jpg    read the digits in a picture

What each setting does is measured in README.md, under "Next steps, measured".

The percentages are means of five seeds on the test images; training takes 60 s on two cores of a
2.8 GHz Intel server and 10 s with one epoch. The sections stand in the order of the data:

    Settings > Data > Model > Training > Evaluation > Figures > Your own images > Files >
    Command line, whose run() is the table of contents
"""

import argparse
import contextlib
import dataclasses
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
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter, ImageOps

# ------------------------------------------------------------------------------------ Settings

OPTIMIZERS = {  # Keras's name, peak learning rate, options
    "adam": ("Adam", 0.01, {"beta_1": 0.7, "beta_2": 0.9}),
    "adamw": ("AdamW", 0.01, {"beta_1": 0.7, "beta_2": 0.9}),
    "muon": ("Muon", 0.01, {"adam_beta_1": 0.7, "adam_beta_2": 0.9, "exclude_layers": ["prob"]}),
    "rmsprop": ("RMSprop", 0.002, {}),
    "sgd": ("SGD", 0.1, {"momentum": 0.9, "nesterov": True}),
}
ACTIVATIONS = ("relu", "gelu", "silu", "tanh")


def flag(default, group, text, low=None, high=None, **options):
    """Return a field of Settings that is a flag of argparse too; numbers go from low to high."""

    def number(word):
        with contextlib.suppress(ValueError):
            if low <= type(low)(word) <= high:
                return type(low)(word)
        kind = "whole number" if isinstance(low, int) else "number"
        raise argparse.ArgumentTypeError(f"{word!r} is not a {kind} from {low} to {high}")

    if low is not None:
        options |= {"type": number, "metavar": "N"}
    if isinstance(default, bool):
        options["action"] = argparse.BooleanOptionalAction if default else "store_true"
    elif default:
        text += f" (default: {str(default).strip('()').replace(',', '')})"
    return dataclasses.field(default=default, metadata={"group": group, "help": text, **options})


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that a run depends on: a field here, a flag there, a line in metrics.json."""

    data: str | None = flag(
        None, "data", "an .npz or a folder of IDX files (default: MNIST)", metavar="PATH"
    )
    limit: int | None = flag(None, "data", "only the first N images, for a quick look", 24, 10**9)
    filters: tuple = flag((16, 64), "model", "filters of each block, in order", 1, 999, nargs="+")
    kernel_size: int = flag(5, "model", "side of the convolutions' kernels", 1, 15)
    dense_units: int = flag(128, "model", "width of the dense layer", 1, 9999)
    activation: str = flag("relu", "model", "what follows each layer", choices=ACTIVATIONS)
    epochs: int = flag(
        7, "training", "passes over the images: more take longer and err less", 1, 9999
    )
    batch_size: int = flag(256, "training", "images in a step", 1, 65536)
    learning_rate: float | None = flag(
        None, "training", "peak of the schedule (default: the optimizer's own)", 1e-9, 1e9
    )
    optimizer: str = flag("adam", "training", "how steps are taken", choices=tuple(OPTIMIZERS))
    augment: bool = flag(True, "training", "warp each training image a little, anew each epoch")
    seed: int = flag(0, "training", "the same seed repeats a run", 0, 2**31 - 1)
    predict: tuple = flag(
        (),
        "your own images",
        "read these images, or the images in these folders",
        nargs="+",
        metavar="IMAGE",
    )
    model: str | None = flag(
        None, "your own images", "read with it (default: DIR/model.keras)", metavar="FILE"
    )
    json: bool = flag(False, "your own images", "print one JSON object a line")
    output_dir: str = flag("output", "output", "folder for every file written", metavar="DIR")
    show: bool = flag(True, "output", "open the figures in windows, where there is a display")
    resume: bool = flag(False, "output", "go on with the interrupted run in the output folder")

    def recorded(self):
        """Return what decides a run's result, as a dict for JSON."""
        groups = {field.name: field.metadata["group"] for field in dataclasses.fields(self)}
        names = [name for name, group in groups.items() if group in ("data", "model", "training")]
        peak = self.learning_rate or OPTIMIZERS[self.optimizer][1]
        values = {name: getattr(self, name) for name in names}
        return values | {"filters": list(self.filters), "learning_rate": peak}

    def command(self):
        """Return the command line that repeats the run, every setting spelled out."""
        words = ["python", "digit_recognition.py"]
        for name, value in self.recorded().items():
            if isinstance(value, bool):
                words.append(f"--{'' if value else 'no-'}{name}")
            elif value is not None:
                values = value if isinstance(value, list) else [value]
                words += ["--" + name.replace("_", "-"), *map(str, values)]
        return shlex.join(words)


class InputError(ValueError):
    """What was given cannot be used; one line names it, what is wrong and what to do."""


def reason(error):
    """Return an exception's message as one short line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:150]


@contextlib.contextmanager
def advising(name, remedy):
    """Turn what goes wrong with the named thing, in whatever way, into an InputError."""
    try:
        yield
    except InputError as error:  # it brings a remedy of its own
        raise InputError(f"{name}: {error}") from None
    except Exception as error:
        raise InputError(f"{name}: {reason(error)}; {remedy}") from None


@functools.cache
def import_tensorflow():
    """Return (tensorflow, keras), imported on first use so that --help answers at once.

    The CUDA stub writes to file descriptor 2 before logging can be configured, so that is held
    back, and shown only if the import fails.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Off by default without AVX-512, where it takes a step of the stock model from 49 to 36 ms.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            import keras
            import tensorflow
        except Exception:
            held_back.seek(0)
            os.write(stderr, held_back.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    return tensorflow, keras


# ---------------------------------------------------------------------------------------- Data

BUNDLED_DATA = Path(__file__).resolve().parent / "data" / "mnist.npz"
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
# The test files are called t10k-, or test- by EMNIST.
IDX_FILES = ["*train-images?idx3*", "*train-labels?idx1*"]
IDX_FILES += ["*t[1e]*[kt]-images?idx3*", "*t[1e]*[kt]-labels?idx1*"]
DATA_FORMS = f"--data takes an .npz with {', '.join(ARRAYS)}, or a folder with IDX files: "
DATA_FORMS += "train-images-idx3-ubyte and its three companions, plain or .gz"
MAX_BYTES = 2 << 30  # more is a damaged or hostile file, not a data set for this script


def read_idx(path):
    """Return the uint8 array in an IDX file, plain or .gz (yann.lecun.com/exdb/mnist)."""
    with advising(path, DATA_FORMS):
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if content[:4] not in (b"\0\0\x08\x01", b"\0\0\x08\x03"):
            raise ValueError("its magic number is not that of IDX images or labels")
        shape = np.frombuffer(content, ">u4", count=content[3], offset=4).tolist()
        return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def read_npz(path):
    """Return the four arrays of an .npz, never unpickled."""
    with advising(path, DATA_FORMS):
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
                raise ValueError("it unpacks to more than 2 GiB")
        with np.load(path, allow_pickle=False) as stored:
            return [stored[name] for name in ARRAYS]


def as_images(images, name):
    """Return images as uint8 (n, height, width, 1), floats from 0 to 1 scaled; InputError."""
    images = images[..., None] if images.ndim == 3 else images
    fit = images.dtype.kind in "buif" and images.ndim == 4 and images.shape[3] == 1 and images.size
    low, high = (images.min(), images.max()) if fit else (math.nan, math.nan)
    if not 0 <= low <= high <= 255:
        found = f"{name}: {images.dtype} {images.shape} from {low} to {high}"
        raise InputError(f"{found}; give grey images, (n, height, width), from 0 to 255 or 0 to 1")
    if images.dtype.kind in "bf" and high <= 1:
        images = np.rint(images * np.float32(255))
    return images.astype(np.uint8, copy=False)


def as_labels(labels, name):
    """Return labels as int64 (n,); one-hot rows and whole floats are understood; InputError."""
    fit = labels.dtype.kind in "buif" and labels.ndim in (1, 2) and labels.size
    if fit and labels.ndim == 2 and labels.shape[1] > 1:
        fit = np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()
        labels = labels.argmax(axis=1)
    labels = labels.ravel()
    if not fit or not ((labels >= 0) & (labels < 1000) & (labels % 1 == 0)).all():
        raise InputError(f"{name}: give whole numbers from 0 to 999, (n,), or one-hot rows")
    return labels.astype(np.int64)


def load_data(path=None, limit=None):
    """Return x_train, y_train, x_test, y_test, classes: MNIST, or the data set at path.

    Images are uint8 (n, height, width, 1), labels int64 (n,) from 0 to classes - 1, the first
    limit of each part. Raises InputError naming what cannot be used.
    """
    source = Path(path or BUNDLED_DATA)
    if source.is_dir():
        arrays = [read_idx(min(source.glob(name), default=source / name)) for name in IDX_FILES]
    elif path or source.exists():
        arrays = read_npz(source)
    else:
        with advising(f"{source}: no such file, nor a download", "name a data set with --data"):
            train, test = import_tensorflow()[1].datasets.mnist.load_data()
            arrays = [*train, *test]
    x_train, x_test = (as_images(arrays[i], f"{source}: {ARRAYS[i]}") for i in (0, 2))
    y_train, y_test = (as_labels(arrays[i], f"{source}: {ARRAYS[i]}") for i in (1, 3))
    for fit, needed in [
        (len(x_train) == len(y_train) and len(x_test) == len(y_test), "a label for each image"),
        (x_train.shape[1:] == x_test.shape[1:], "images of one size"),
        (len(x_train) >= 24 and y_train.min() < y_train.max(), "24 images or more, of two labels"),
        (y_test.max() <= y_train.max(), "no label in y_test above those in y_train"),
    ]:
        if not fit:
            raise InputError(f"{source}: a data set needs {needed}; correct it")
    return x_train[:limit], y_train[:limit], x_test[:limit], y_test[:limit], int(y_train.max()) + 1


def split_validation(images, labels):
    """Return (images, labels) to train on and (images, labels) held out, the same in every run.

    5,000 of MNIST's 60,000 are held out, one in twelve of a smaller set.
    """
    order = np.random.default_rng(0).permutation(len(images))
    held_out, rest = np.split(order, [min(5000, len(images) // 12)])
    return (images[rest], labels[rest]), (images[held_out], labels[held_out])


# --------------------------------------------------------------------------------------- Model

LABEL_SMOOTHING = 0.05  # 0 is 0.15 points worse on the validation set after one epoch


def build_model(image_shape, classes, settings):
    """Return an untrained Keras model: raw pixels (n, height, width, 1) in, probabilities out.

    Raises InputError if the images are too small for so many blocks.
    """
    keras = import_tensorflow()[1]
    layers, blocks, size = keras.layers, [], min(image_shape[:2])
    for filters in settings.filters:
        # Images of a few pixels keep their border, or a third block would have nothing to see.
        padding = "same" if size < 2 * settings.kernel_size else "valid"
        size = (size if padding == "same" else size - settings.kernel_size + 1) // 2
        blocks.append(layers.Conv2D(filters, settings.kernel_size, padding=padding))
        # Pooling before ReLU gives the same function as after it, a tenth faster.
        blocks += [layers.MaxPooling2D(), layers.Activation(settings.activation)]
    if size < 1:
        raise InputError(f"--filters: images {image_shape} cannot be halved so often; name fewer")
    network = [
        keras.Input(image_shape, name="pixels"),
        layers.Rescaling(1 / 255),
        *blocks,
        layers.Flatten(),
        layers.Dense(settings.dense_units, activation=settings.activation),
        layers.Dense(classes, activation="softmax", name="probabilities"),
    ]
    return keras.Sequential(network, name="digit_recognition")


def compile_model(model, steps, settings):
    """Give the model a loss, a metric and an optimizer.

    Its learning rate climbs for a fifth of the steps, then falls to 0 along a cosine.
    """
    tf, keras = import_tensorflow()
    name, _, options = OPTIMIZERS[settings.optimizer]
    peak, warmup = settings.recorded()["learning_rate"], max(1, steps // 5)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warmup), warmup_target=peak, warmup_steps=warmup
    )
    # Sixteen steps a call spare Python's overhead, but Keras 3.15 fails so on several devices.
    alone = tf.distribute.get_strategy().num_replicas_in_sync == 1
    model.compile(
        optimizer=getattr(keras.optimizers, name)(schedule, **options),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=LABEL_SMOOTHING),
        metrics=[keras.metrics.CategoricalAccuracy("accuracy")],
        steps_per_execution=16 if alone else 1,
    )
    # Variables made while the first step is traced would have it traced again: a second more.
    model.optimizer.build(model.trainable_variables)


# ------------------------------------------------------------------------------------ Training

WARP = 0.8  # pixels of a 28 x 28 image, standard deviation; 0.6 and 1.0 validate worse
SHEETS = 16  # in a batch


def warp(images, seed, sheets):
    """Return images (n, height, width, 1) as if printed on rubber sheets that are pulled about.

    A sheet is pulled at 4 x 4 points, which shifts, turns, scales, slants and bends it at once
    (elastic distortions: Simard et al., 2003). Each carries an equal part of the batch: as good
    as one an image, for a third of the time.
    """
    tf = import_tensorflow()[0]
    _, height, width, _ = images.shape
    pulls = tf.random.stateless_normal((sheets, 4, 4, 2), seed, stddev=WARP * width / 28)
    pulls = tf.image.resize(pulls, (height, width), "bicubic")
    rows = tf.reshape(pulls[..., 0] + tf.range(height, dtype="float32")[:, None], (sheets, -1))
    columns = tf.reshape(pulls[..., 1] + tf.range(width, dtype="float32"), (sheets, -1))
    pixels = tf.reshape(tf.cast(images, "float32"), (sheets, -1, height * width))
    pixels, warped = tf.transpose(pixels, (0, 2, 1)), 0.0
    for row in (tf.floor(rows), tf.floor(rows) + 1):
        for column in (tf.floor(columns), tf.floor(columns) + 1):
            weight = (1 - abs(rows - row)) * (1 - abs(columns - column))
            source = tf.clip_by_value(row, 0, height - 1) * width
            source = tf.cast(source + tf.clip_by_value(column, 0, width - 1), "int32")
            warped += weight[..., None] * tf.gather(pixels, source, batch_dims=1)
    return tf.reshape(tf.transpose(warped, (0, 2, 1)), tf.shape(images))


def without_autotuning(dataset):
    """Return the dataset without tf.data's autotuning thread.

    It sleeps for 10, 20, 40 ... ms and each epoch's end waits for it: 10.2 s in place of 6.5 s.
    """
    options = import_tensorflow()[0].data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def training_batches(images, labels, epoch, settings):
    """Return a tf.data.Dataset of the shuffled and warped batches of one epoch.

    Seed, epoch (an int64 tf.Variable) and place alone decide what a batch holds, so that a
    resumed run sees what an uninterrupted one would have seen.
    """
    tf = import_tensorflow()[0]
    count, batch_size = len(images), min(settings.batch_size, len(images))
    images, labels = tf.constant(images), tf.constant(labels)

    def batch(first):
        places = tf.range(first, first + batch_size)
        order = tf.random.experimental.index_shuffle(places, [settings.seed, epoch], count - 1)
        pixels = tf.ensure_shape(tf.gather(images, order), (batch_size, *images.shape[1:]))
        if settings.augment:
            seed = [settings.seed, epoch * count + first]
            pixels = warp(pixels, seed, math.gcd(batch_size, SHEETS))
        return pixels, tf.gather(labels, order)

    starts = tf.data.Dataset.range(0, count - batch_size + 1, batch_size)
    return without_autotuning(starts.map(batch).prefetch(2))


def on_each_core(network, cores):
    """Return a Keras model that trains the network, an equal part of each batch on each core.

    On two cores a step takes 0.82 of the time that it takes with every layer on both; with more
    than four, the parts would be small, and TensorFlow's own threads serve the layers.
    """
    tf, keras = import_tensorflow()

    class Parts(keras.Model):
        def __init__(self):
            super().__init__()
            self.network = network

        def call(self, images, training=False):
            if not training:
                return self.network(images)
            sizes = [len(part) for part in np.array_split(range(images.shape[0]), cores)]
            parts = tf.split(images, [size for size in sizes if size])
            # The last layer sees the whole batch, or Keras's loss would not find its logits.
            for layer in self.network.layers[:-1]:
                parts = [layer(part) for part in parts]
            return self.network.layers[-1](tf.concat(parts, axis=0))

    return Parts()


def watch(model, epoch_variable, progress, folder):
    """Return a Keras callback that times the epochs, stops at NaN and saves what is done.

    It keeps progress up to date: a dict with history, train_seconds and train_cpu_seconds.
    """

    def clock(sign):
        progress["train_seconds"] += sign * time.perf_counter()
        progress["train_cpu_seconds"] += sign * time.process_time()

    def begin_epoch(epoch, logs):
        epoch_variable.assign(epoch)
        clock(-1)

    def check_loss(batch, logs):
        if not math.isfinite(logs["loss"]):
            raise FloatingPointError("training diverged, the loss is NaN; lower --learning-rate")

    def end_epoch(epoch, logs):
        for name, value in logs.items():
            progress["history"].setdefault(name, []).append(value)
        if not sys.stdout.isatty():
            figures = "  ".join(f"{name} {value:.4f}" for name, value in logs.items())
            print(f"Epoch {epoch + 1}/{progress['settings']['epochs']}  {figures}", flush=True)
        # Keras's BackupAndRestore writes two files in place: a kill in between tears them.
        arrays = [variable.numpy() for variable in model.variables + model.optimizer.variables]
        with replacing(folder) as fresh:
            np.savez(fresh / UNFINISHED, *arrays, progress=json.dumps(progress))

    events = {"on_epoch_begin": begin_epoch, "on_train_batch_end": check_loss}
    events |= {"on_test_begin": lambda logs: clock(+1), "on_epoch_end": end_epoch}
    return import_tensorflow()[1].callbacks.LambdaCallback(**events)


def restore_progress(model, settings):
    """Put an interrupted run's state into the compiled model and return its progress.

    Raises InputError if there is no such run in settings.output_dir, or it had other settings.
    """
    path = Path(settings.output_dir) / UNFINISHED
    with advising(path, "nothing to resume, omit --resume"):
        with np.load(path, allow_pickle=False) as stored:
            progress = json.loads(str(stored["progress"]))
            arrays = [stored[f"arr_{i}"] for i in range(len(stored.files) - 1)]
        for name, value in settings.recorded().items():
            before, option = progress["settings"].get(name), name.replace("_", "-")
            if value != before:
                raise InputError(
                    f"--resume: --{option} was {before}, now {value}; make it the same"
                )
        variables = model.variables + model.optimizer.variables
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
    return progress


def train(training, validation, classes, settings):
    """Build and fit a model; return it and its progress (see watch).

    training, validation: (images, labels). Every GPU takes part. Raises InputError if the run
    cannot start or resume, FloatingPointError if it diverges.
    """
    tf, keras = import_tensorflow()
    cores = os.cpu_count()
    apart = 1 < cores <= 4 and not tf.config.list_physical_devices("GPU")
    with contextlib.suppress(RuntimeError):  # if TensorFlow has started, its threads are set
        tf.config.threading.set_intra_op_parallelism_threads(1 if apart else 0)
    keras.utils.set_random_seed(settings.seed)
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    strategy = tf.distribute.get_strategy()
    if len(devices) > 1:
        strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
    epoch, one_hot = tf.Variable(0, dtype="int64"), np.eye(classes, dtype="float32")
    batches = training_batches(training[0], one_hot[training[1]], epoch, settings)
    held_out = tf.data.Dataset.from_tensor_slices((validation[0], one_hot[validation[1]]))
    with strategy.scope():
        network = build_model(training[0].shape[1:], classes, settings)
        model = on_each_core(network, cores) if apart and len(devices) == 1 else network
        compile_model(model, settings.epochs * len(batches), settings)
    prepare_folder(settings.output_dir)
    progress = {"settings": settings.recorded(), "history": {}, "replicas": len(devices)}
    progress |= {"train_seconds": 0.0, "train_cpu_seconds": 0.0}
    if settings.resume:
        progress = restore_progress(model, settings)
    network.summary()
    print(f"Training on {len(training[0])} images, validating on {len(validation[0])}", flush=True)
    model.fit(
        batches,
        validation_data=without_autotuning(held_out.batch(500)),
        epochs=settings.epochs,
        initial_epoch=len(progress["history"].get("loss", [])),
        callbacks=[watch(model, epoch, progress, settings.output_dir)],
        shuffle=False,
        verbose=1 if sys.stdout.isatty() else 0,
    )
    return network, progress


# ---------------------------------------------------------------------------------- Evaluation


def wilson_interval(successes, trials, z=1.96):
    """Return the ends of the 95 % confidence interval of a share (Wilson, 1927)."""
    share, shrink = successes / trials, 1 + z**2 / trials
    centre = share + z**2 / (2 * trials)
    margin = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return (centre - margin) / shrink, (centre + margin) / shrink


def evaluate(probabilities, labels):
    """Return the test figures, a dict, and the confusion matrix, int (true, predicted).

    probabilities: float (n, classes); labels: int (n,).
    """
    count, classes = probabilities.shape
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (labels, probabilities.argmax(axis=1)), 1)
    right = confusion.diagonal()
    likelihood = np.maximum(probabilities[np.arange(count), labels], 1e-7)
    return {
        "test_accuracy": right.sum() / count,
        "test_interval": wilson_interval(right.sum(), count),
        "test_errors": int(count - right.sum()),
        "test_loss": float(-np.log(likelihood).mean()),
        "precision": (right / np.maximum(confusion.sum(axis=0), 1)).tolist(),
        "recall": (right / np.maximum(confusion.sum(axis=1), 1)).tolist(),
        "count": confusion.sum(axis=1).tolist(),
    }, confusion


def report(test):
    """Return the test figures as text: a line for each label, the answer last."""
    lines = ["label  precision    recall   count"]
    for label, row in enumerate(zip(test["precision"], test["recall"], test["count"], strict=True)):
        lines.append(f"{label:5}  {100 * row[0]:7.2f} % {100 * row[1]:7.2f} % {row[2]:7}")
    low, high = (100 * end for end in test["test_interval"])
    wrong = f"{test['test_errors']} of {sum(test['count'])} wrong"
    lines.append(f"Test loss: {test['test_loss']:.4f}")
    interval = f"95 % interval {low:.2f}-{high:.2f} %"
    lines.append(f"Test accuracy: {100 * test['test_accuracy']:.2f} % ({wrong}, {interval})")
    return "\n".join(lines)


# ------------------------------------------------------------------------------------- Figures

BLUE, ORANGE = "#0072b2", "#d55e00"  # colour-blind people tell these apart (Okabe and Ito, 2008)


def plot_history(history):
    """Return a figure of training and validation accuracy and loss over the epochs."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, name in zip(axes, ("accuracy", "loss"), strict=True):
        epochs = range(1, len(history[name]) + 1)
        axis.plot(epochs, history[name], "o-", color=BLUE, label="training")
        axis.plot(epochs, history[f"val_{name}"], "s--", color=ORANGE, label="validation")
        axis.set(xlabel="epoch", ylabel=name, title=f"{name.capitalize()} over the epochs")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    return figure


def plot_digits(images, labels, probabilities, title):
    """Return a figure of up to 30 images with predicted and true labels; wrong ones in orange."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(5, 6, figsize=(9, 9.5), layout="constrained")
    figure.suptitle(title)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, label, row in zip(axes.flat, images, labels, probabilities, strict=False):
        wrong = row.argmax() != label
        axis.imshow(image[..., 0], cmap="gray_r")
        text = f"predicted {row.argmax()}, true {label}\n{row.max():.1%}{' WRONG' if wrong else ''}"
        axis.set_title(text, fontsize=9, color=ORANGE if wrong else "black")
    return figure


def plot_confusion(confusion):
    """Return a figure of the confusion matrix, int (true, predicted), with its counts."""
    import matplotlib.pyplot as plt

    side, ticks = max(6.0, 0.6 * len(confusion)), range(len(confusion))
    figure, axis = plt.subplots(figsize=(side, side), layout="constrained")
    # The cube root lets a single mistake be seen beside a diagonal of a thousand.
    shades = np.cbrt(confusion / confusion.max())
    axis.imshow(shades, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(confusion):
        color = "white" if shades[row, column] > 0.6 else "black"
        axis.text(column, row, confusion[row, column], ha="center", va="center", color=color)
    axis.set(xticks=ticks, yticks=ticks, xlabel="predicted label", ylabel="true label")
    axis.set_title("Test images by true and predicted label")
    return figure


# ----------------------------------------------------------------------------- Your own images

CONFIDENT = 0.8  # of the validation images 1.6 % are below, with three quarters of all mistakes
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
STROKE = (1.9, 4.0)  # pixels; 80 % of MNIST's strokes are 1.8 to 3.5 wide


class Reading(NamedTuple):
    """The digits of an image from left to right, and what was seen of them."""

    digits: str
    probabilities: np.ndarray  # float32 (n, classes)
    images: np.ndarray  # uint8 (n, 28, 28), what the network was given
    confident: bool  # whether each digit's probability reaches CONFIDENT


def open_grey(source):
    """Return a path's, an array's or a Pillow image as a grey Pillow image: upright, on white."""
    image = Image.fromarray(source) if isinstance(source, np.ndarray) else source
    image = image if isinstance(image, Image.Image) else Image.open(image)
    image.draft("L", (1600, 1600))  # lets a large JPEG be decoded at a fraction of its size
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # 16 bits and more, which convert() would clip
        values = np.asarray(image, np.float32) - min(image.getextrema())
        image = Image.fromarray(np.uint8(255 * values / max(values.max(), 1e-9)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L")


def otsu(values):
    """Return the threshold that best parts values into two classes (Otsu, 1979)."""
    counts, edges = np.histogram(values, 256)
    below, sums = np.cumsum(counts), np.cumsum(counts * (edges[:-1] + edges[1:]) / 2)
    above = below[-1] - below
    gap = sums / np.maximum(below, 1) - (sums[-1] - sums) / np.maximum(above, 1)
    return edges[1 + np.argmax(below * above * gap**2)]


def lift_ink(image):
    """Return how far each pixel stands out from the paper, float32 (height, width), and the noise.

    A quadratic surface is fitted to the paper's brightness, which is the larger of Otsu's two
    classes, again and again; the smaller one is the ink, be it dark or light.
    """
    grey = np.asarray(image.filter(ImageFilter.GaussianBlur(max(image.size) / 250)), np.float32)
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in grey.shape), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=-1)
    step = max(1, max(grey.shape) // 60)  # a few thousand pixels are enough for six numbers
    sample, values = terms[::step, ::step].reshape(-1, 6), grey[::step, ::step].ravel()
    paper, used = np.ones(len(values), bool), 3
    for _ in range(6):
        known = sample[paper, :used]
        ridge = np.diag([0, 0, 0, 1, 1, 1])[:used, :used] * 0.03 * len(known)
        surface = np.linalg.solve(known.T @ known + ridge, known.T @ values[paper])
        rest = values - sample[:, :used] @ surface
        paper, used = rest > otsu(rest), 6
        dark_ink = paper.mean() > 0.5
        paper = paper if dark_ink else ~paper
    level = np.median(rest[paper])
    ink = grey - (terms @ surface).astype(np.float32) - level
    return -ink if dark_ink else ink, 1.4826 * np.median(np.abs(rest[paper] - level))


def runs(profile):
    """Return the (start, stop) of each run of True in a bool array (n,)."""
    edges = np.flatnonzero(np.diff(np.pad(profile.astype(np.int8), 1)))
    return edges.reshape(-1, 2).tolist()


def find_digits(stroke):
    """Return (top, bottom, left, right) of each digit in a bool image, from left to right.

    Blank columns part digits. A piece less than half as high as the highest is a speck, or a part
    of the neighbour close to it; a gap of a hair within a digit's width is a broken stroke.
    """
    pieces, digits = [], []
    for left, right in runs(stroke.any(axis=0)):
        rows = np.array(runs(stroke[:, left:right].any(axis=1)))
        area = np.array([stroke[top:bottom, left:right].sum() for top, bottom in rows])
        rows = rows[area >= 0.08 * area.sum()]
        pieces.append((rows[0, 0], rows[-1, 1], left, right))
    height = max(bottom - top for top, bottom, _, _ in pieces)
    for top, bottom, left, right in pieces:
        if digits:
            above, below, start, stop = digits[-1]
            small = min(below - above, bottom - top) < height / 2
            close = left - stop <= (0.15 if small else 0.05) * height
            if close and right - start <= 1.1 * height:
                top, bottom, left = min(above, top), max(below, bottom), start
                digits.pop()
        digits.append((top, bottom, left, right))
    return [box for box in digits if max(box[1] - box[0], box[3] - box[2]) >= height / 2]


def to_mnist_form(ink):
    """Return a digit, float (height, width) from 0 to 1, as MNIST has it: uint8 (28, 28).

    Scaled into 20 x 20 and centred by its mass (LeCun et al., 1998, section III.A), once strokes
    thinner or thicker than MNIST's are brought to its range.
    """
    solid = np.pad(ink > 0.5, 1)
    edge = (solid[1:] != solid[:-1]).sum() + (solid[:, 1:] != solid[:, :-1]).sum()
    width = 2 * solid.sum() / (edge * math.pi / 4) * 20 / max(ink.shape)
    image = Image.fromarray(np.uint8(255 * ink))
    image.thumbnail((100, 100))  # Pillow's filters below take time with the square of the size
    reach = round((np.clip(width, *STROKE) - width) / 2 * max(image.size) / 20)
    image = ImageOps.expand(ImageOps.autocontrast(image), abs(reach))
    resize = ImageFilter.MaxFilter if reach > 0 else ImageFilter.MinFilter
    image = image.filter(resize(2 * abs(reach) + 1))
    image = image.crop(image.point(lambda value: 255 * (value > 99)).getbbox())
    size = [max(1, round(side * 20 / max(image.size))) for side in image.size]
    digit = np.asarray(image.resize(size, Image.Resampling.BICUBIC), np.float32)
    digit = np.rint(np.clip(digit * 255 / np.percentile(digit[digit > 50], 90), 0, 255))
    rows, columns = (
        np.average(np.arange(n), weights=digit.sum(1 - i)) for i, n in enumerate(digit.shape)
    )
    top, left = round(rows), round(columns)
    return np.pad(digit.astype(np.uint8), 14)[top : top + 28, left : left + 28]


def is_mnist_form(pixels):
    """Return whether an image is 28 x 28, light on black, within 20 x 20, centred by its mass."""
    if pixels.shape != (28, 28) or pixels.max() < 128:
        return False
    profiles = pixels.sum(axis=0, dtype=float), pixels.sum(axis=1, dtype=float)
    centres = [np.average(np.arange(28), weights=profile) for profile in profiles]
    extent = max(np.ptp(np.flatnonzero(profile)) for profile in profiles)
    return extent < 20 and max(abs(centre - 14) for centre in centres) < 0.6


def prepare(image):
    """Return the digits in a grey Pillow image as MNIST has them, uint8 (n, 28, 28).

    An image in MNIST's form passes unchanged. Raises InputError if no digit is found.
    """
    if is_mnist_form(np.asarray(image)):
        return np.asarray(image)[None]
    if max(image.size) < 8:
        raise InputError("too small for a digit; give an image of 8 x 8 pixels or more")
    scale = min(max(math.ceil(112 / max(image.size)), 1), 800 / max(image.size))
    size = [max(1, round(side * scale)) for side in image.size]
    ink, noise = lift_ink(image.resize(size, Image.Resampling.BICUBIC))
    level = np.median(ink[ink > otsu(ink)])
    if level < max(5 * noise, 8):
        raise InputError("no digit stands out from the paper; write larger or darker")
    boxes = find_digits(ink > max(0.4 * level, min(4 * noise, 0.6 * level)))
    low = max(0.15 * level, 2.5 * noise)
    ink = np.clip((ink - low) / (0.9 * level - low), 0, 1)
    return np.stack([to_mnist_form(ink[a:b, c:d]) for a, b, c, d in boxes])


@functools.cache
def load_model(path):
    """Return the Keras model in a .keras file (its code is never run); InputError if unfit."""
    if not Path(path).exists():
        raise InputError(f"{path}: no such model; train it first: python digit_recognition.py")
    with advising(path, "name a trained model with --model"):
        model = import_tensorflow()[1].saving.load_model(path, compile=False, safe_mode=True)
        if model.input_shape[1:] != (28, 28, 1):
            raise ValueError(f"it takes images of shape {model.input_shape[1:]}, not (28, 28, 1)")
    return model


def read_digits(image_or_path, model="output/model.keras"):
    """Return the Reading of an image: a path, a Pillow image, or an array, uint8 (height, width).

    model: a Keras model, or a path. Raises InputError if the image or the model cannot be used.
    """
    model = load_model(str(model)) if isinstance(model, str | Path) else model
    name = image_or_path if isinstance(image_or_path, str | Path) else "image"
    with warnings.catch_warnings(), advising(name, "give a whole PNG or JPEG image"):
        warnings.simplefilter("ignore", UserWarning)  # Pillow's, on damaged metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        images = prepare(open_grey(image_or_path))
    probabilities = np.asarray(model(images[..., None], training=False))
    digits = "".join(map(str, probabilities.argmax(axis=1)))
    confident = bool(probabilities.max(axis=1).min() >= CONFIDENT)
    return Reading(digits, probabilities, images, confident)


def plot_readings(readings):
    """Return a figure of (path, Reading) pairs: original, what the network saw, probabilities."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.2 * len(readings)), layout="constrained")
    rows = figure.subplots(len(readings), 3, squeeze=False)
    for (original, seen, shares), (path, reading) in zip(rows, readings, strict=True):
        original.imshow(open_grey(path), cmap="gray")
        original.set_title(path.name, fontsize=9)
        original.axis("off")
        seen.imshow(np.hstack(reading.images), cmap="gray_r")
        seen.set_title(f"what the network saw: {reading.digits}", fontsize=9)
        seen.axis("off")
        shares.imshow(reading.probabilities, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for row, best in enumerate(reading.probabilities):
            look = {"color": "white" if best.max() > 0.6 else "black", "fontsize": 6}
            shares.text(best.argmax(), row, f"{best.max():.0%}", ha="center", va="center", **look)
        shares.set(xticks=range(reading.probabilities.shape[1]), yticks=[])
        shares.set_title("probability of each label", fontsize=9)
    return figure


# --------------------------------------------------------------------------------------- Files

UNFINISHED = "unfinished.npz"  # what --resume goes on from


@contextlib.contextmanager
def replacing(folder):
    """Yield a new folder; if all goes well, its files take the place of those in folder.

    A reader, another run or a power cut finds each file whole: the old one or the new one.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as fresh:
        yield Path(fresh)
        for file in sorted(Path(fresh).iterdir()):
            with open(file, "rb+") as written:
                os.fsync(written.fileno())
            os.replace(file, Path(folder) / file.name)


def prepare_folder(folder):
    """Make the output folder and prove that it can be written; InputError if it cannot."""
    with advising(folder, "name another with --output-dir"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for left in Path(folder).glob(".writing-*"):  # by a run that was killed while writing
            if time.time() - left.stat().st_mtime > 60:
                shutil.rmtree(left, ignore_errors=True)


def write_outputs(folder, model, history, metrics, figures):
    """Write model.keras, history.csv, metrics.json and the figures (name -> figure) to folder."""
    with replacing(folder) as fresh:
        model.save(fresh / "model.keras")
        table = np.column_stack([np.arange(len(history["loss"])) + 1, *history.values()])
        header = ",".join(["epoch", *history])
        np.savetxt(fresh / "history.csv", table, "%.6g", ",", header=header, comments="")
        (fresh / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
        for name, figure in figures.items():
            figure.savefig(fresh / name, dpi=120)
    (Path(folder) / UNFINISHED).unlink(missing_ok=True)


# -------------------------------------------------------------------------------- Command line


def run(settings):
    """Load, train, evaluate, plot, save and print: the whole job; return the exit code."""
    x_train, y_train, x_test, y_test, classes = load_data(settings.data, settings.limit)
    training, validation = split_validation(x_train, y_train)
    model, progress = train(training, validation, classes, settings)
    probabilities = model.predict(x_test, batch_size=500, verbose=0)
    test, confusion = evaluate(probabilities, y_test)
    versions = {module.__name__: module.__version__ for module in (*import_tensorflow(), np)}
    metrics = test | {
        "epochs": settings.epochs,
        "parameters": model.count_params(),
        "train_seconds": progress["train_seconds"],
        "train_cpu_seconds": progress["train_cpu_seconds"],
        "seed": settings.seed,
        "settings": settings.recorded(),
        "command": settings.command(),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
        "replicas": progress["replicas"],
        "versions": {"python": platform.python_version(), **versions},
    }
    import matplotlib.pyplot as plt

    if not settings.show:
        plt.switch_backend("agg")
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != y_test)
    worst = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]
    digits = (x_test, y_test, probabilities)
    figures = {
        "training_curves.png": plot_history(progress["history"]),
        "sample_predictions.png": plot_digits(*digits, "The first test images"),
        "confusion_matrix.png": plot_confusion(confusion),
        "mistakes.png": plot_digits(*(d[worst] for d in digits), "The most confident mistakes"),
    }
    write_outputs(settings.output_dir, model, progress["history"], metrics, figures)
    names = ", ".join(["model.keras", "history.csv", "metrics.json", *figures])
    print(f"Saved in {settings.output_dir}: {names}\n{report(test)}", flush=True)
    if plt.get_backend().lower() != "agg":
        plt.show()
    return 0


def image_paths(paths):
    """Return the images among paths, and in those that are folders; the rest as they are."""
    found = []
    for path in map(Path, paths):
        inside = sorted(path.iterdir()) if path.is_dir() else []
        found += [p for p in inside if p.suffix.lower() in IMAGE_SUFFIXES] or [path]
    return found


def predict(settings):
    """Read the images of --predict; return the exit code, 1 if any could not be read."""
    model = load_model(settings.model or str(Path(settings.output_dir, "model.keras")))
    prepare_folder(settings.output_dir)
    code, readings = 0, []
    for path in image_paths(settings.predict):
        try:
            if path.is_dir():
                raise InputError(f"{path}: no images in this folder ({' '.join(IMAGE_SUFFIXES)})")
            reading = read_digits(path, model)
        except InputError as error:
            code = complain(error, 1)
            continue
        readings.append((path, reading))
        best = [round(float(row.max()), 4) for row in reading.probabilities]
        pairs = list(zip(reading.probabilities.argmax(axis=1), best, strict=True))
        shown = "".join(f"{label}{'?' * (share < CONFIDENT)}" for label, share in pairs)
        shares = ", ".join(f"{label} {100 * share:.1f} %" for label, share in pairs)
        found = {"file": str(path), "digits": reading.digits, "probabilities": best}
        found["confident"] = reading.confident
        print(json.dumps(found) if settings.json else f"{path}: {shown}  ({shares})", flush=True)
    if readings:
        with replacing(settings.output_dir) as fresh:
            plot_readings(readings[:20]).savefig(fresh / "predictions.png", dpi=120)
    return code


def parse_arguments(arguments=None):
    """Return the Settings of a command line, a list of words; exit with code 2 if it is wrong."""
    parser = argparse.ArgumentParser(
        prog="digit_recognition.py",
        description=__doc__.partition("\n\nThe percentages")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.error = lambda message: sys.exit(complain(f"{message}; see --help", 2))
    groups = {}
    for field in dataclasses.fields(Settings):
        options = dict(field.metadata)
        group = options.pop("group")
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        option = "--" + field.name.replace("_", "-")
        groups[group].add_argument(option, default=field.default, **options)
    values = vars(parser.parse_args(arguments))
    return Settings(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def complain(message, code):
    """Print one line on stderr and return the exit code."""
    print(f"digit_recognition.py: {message}", file=sys.stderr, flush=True)
    return code


def main(arguments=None):
    """Do what the command line asks for; return the exit code."""
    settings = parse_arguments(arguments)

    def stop(number, frame):
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        return predict(settings) if settings.predict else run(settings)
    except InputError as error:
        return complain(error, 1 if settings.predict else 2)
    except FloatingPointError as error:
        return complain(error, 1)
    except OSError as error:
        name = error.filename or settings.output_dir
        return complain(f"{name}: {reason(error)}; files written earlier are untouched", 1)
    except KeyboardInterrupt as interrupt:
        command = "the same command"
        if not settings.predict and Path(settings.output_dir, UNFINISHED).exists():
            folder = shlex.quote(settings.output_dir)
            command = f"{settings.command()} --output-dir {folder} --resume"
        return complain(f"interrupted; go on with {command}", (*interrupt.args, 130)[0])


if __name__ == "__main__":
    sys.exit(main())
