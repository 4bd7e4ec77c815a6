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
2.8 GHz Intel server and 10 s with one epoch. The sections: Settings > Data > Model > Training >
Evaluation > Figures > Your own images > Files > Command line.
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
from collections import namedtuple
from pathlib import Path

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
GROUPS = {"data": "data", "filters": "model", "epochs": "training", "predict": "your own images"}
GROUPS["output_dir"] = "output"  # of --help, by their first settings


def flag(default, text, low=None, high=None, **options):
    """Return a field of Settings that is a flag of argparse too; numbers go from low to high."""

    def number(word):
        if not low <= type(low)(word) <= high:
            raise ValueError
        return type(low)(word)

    if low is not None:
        # argparse's message for a ValueError: invalid whole number from 1 to 15 value: '16'
        number.__name__ = f"{'whole ' * isinstance(low, int)}number from {low} to {high}"
        options |= {"type": number, "metavar": "N"}
    if isinstance(default, bool):
        options["action"] = argparse.BooleanOptionalAction if default else "store_true"
    elif default:
        text += f" (default: {str(default).strip('()').replace(',', '')})"
    return dataclasses.field(default=default, metadata={"help": text, **options})


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that a run depends on: a field here, a flag there, a line in metrics.json."""

    data: str | None = flag(None, "an .npz or folder of IDX files (default: MNIST)", metavar="PATH")
    limit: int | None = flag(None, "only the first N images, for a quick look", 24, 10**9)
    filters: tuple = flag((16, 64), "filters of each block, in order", 1, 999, nargs="+")
    kernel_size: int = flag(5, "side of the convolutions' kernels", 1, 15)
    dense_units: int = flag(128, "width of the dense layer", 1, 9999)
    activation: str = flag("relu", "of the layers", choices=("relu", "gelu", "silu", "tanh"))
    epochs: int = flag(7, "passes over the images: more take longer and err less", 1, 9999)
    batch_size: int = flag(256, "images in a step", 1, 65536)
    learning_rate: float | None = flag(None, "highest (default: the optimizer's own)", 1e-9, 1e9)
    optimizer: str = flag("adam", "how steps are taken", choices=tuple(OPTIMIZERS))
    augment: bool = flag(True, "warp each training image a little, anew each epoch")
    seed: int = flag(0, "the same seed repeats a run", 0, 2**31 - 1)
    predict: tuple = flag((), "read these images, or those in folders", nargs="+", metavar="IMAGE")
    model: str | None = flag(None, "read with it (default: DIR/model.keras)", metavar="FILE")
    json: bool = flag(False, "print one JSON object a line")
    output_dir: str = flag("output", "folder for every file written", metavar="DIR")
    show: bool = flag(True, "open the figures in windows, where there is a display")
    resume: bool = flag(False, "go on with the interrupted run in the output folder")

    def recorded(self):
        """Return what decides a run's result, the flags above --predict and their values."""
        peak = self.learning_rate or OPTIMIZERS[self.optimizer][1]
        values = vars(self) | {"filters": list(self.filters), "learning_rate": peak}
        names = list(values)[: list(values).index("predict")]
        return {"--" + name.replace("_", "-"): values[name] for name in names}

    def command(self):
        """Return the command line that repeats the run, every setting spelled out."""
        words = ["python", "digit_recognition.py"]
        for option, value in self.recorded().items():
            if isinstance(value, bool):
                words.append(option if value else option.replace("--", "--no-"))
            elif value is not None:
                words += [option, *map(str, np.ravel(value))]
        return shlex.join(words)


class InputError(ValueError):
    """What was given cannot be used; one line names it, what is wrong and what to do."""


@contextlib.contextmanager
def advising(name, remedy):
    """Turn what goes wrong with the named thing, in whatever way, into an InputError."""
    try:
        yield
    except InputError as error:  # it brings a remedy of its own
        raise InputError(f"{name}: {error}") from None
    except Exception as error:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"{name}: {' '.join(text.split())[:150]}; {remedy}") from None


@functools.cache
def import_tensorflow():
    """Return (tensorflow, keras), imported on first use so that --help answers at once."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Off by default without AVX-512, where it takes a step of the stock model from 49 to 36 ms.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # The CUDA stub writes to file descriptor 2 before logging can be configured.
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
IDX_FILES = [f"*{part}-{kind}*" for part in ("train", "[kt]") for kind in ("images", "labels")]
DATA_FORMS = f"--data takes an .npz with {', '.join(ARRAYS)}, or a folder with IDX files: "
DATA_FORMS += "train-images-idx3-ubyte and its three companions, plain or .gz"
MAX_BYTES = 2 << 30  # more is a damaged or hostile file, not a data set for this script


def read_idx(path):
    """Return the uint8 array in an IDX file, plain or .gz (yann.lecun.com/exdb/mnist)."""
    opened = gzip.open if path.suffix == ".gz" else open
    with advising(path.name, DATA_FORMS), opened(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
        if content[:4] not in (b"\0\0\x08\x01", b"\0\0\x08\x03"):
            raise ValueError("its magic number is not that of IDX images or labels")
        shape = np.frombuffer(content, ">u4", count=content[3], offset=4).tolist()
        return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def as_numbers(images, labels, part):
    """Return images as uint8 (n, height, width, 1) and labels as int64 (n,); InputError if unfit.

    Floats from 0 to 1, one-hot labels and whole floats are understood.
    """
    images = images[..., None] if images.ndim == 3 else images
    grey = images.dtype.kind in "buif" and images.ndim == 4 and images.shape[3] == 1 and images.size
    if not grey or not 0 <= images.min() <= images.max() <= 255:
        form = "grey images, (n, height, width), from 0 to 255 or 0 to 1"
        raise InputError(f"x_{part} is {images.dtype} {images.shape}; give {form}")
    if images.dtype.kind in "bf" and images.max() <= 1:
        images = np.rint(images * np.float32(255))
    known = labels.dtype.kind in "buif"
    if known and labels.ndim == 2 and labels.shape[1] > 1:
        known = np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()
        labels = labels.argmax(axis=1)
    known = known and labels.shape in ((len(images),), (len(images), 1))
    if not known or not np.isin(labels, np.arange(1000)).all():
        form = "a whole number from 0 to 999, or a one-hot row, for each image"
        raise InputError(f"y_{part} is {labels.dtype} {labels.shape}; give {form}")
    return images.astype(np.uint8, copy=False), labels.ravel().astype(np.int64)


def load_data(path=None, limit=None):
    """Return x_train, y_train, x_test, y_test, classes: MNIST, or the data set at path.

    Images are uint8 (n, height, width, 1), labels int64 (n,) from 0 to classes - 1, the first
    limit of each part. Raises InputError naming what cannot be used.
    """
    source = Path(path or BUNDLED_DATA)
    with advising(source, DATA_FORMS):
        if source.is_dir():
            arrays = [read_idx(min(source.glob(name), default=source / name)) for name in IDX_FILES]
        elif path or source.exists():
            with zipfile.ZipFile(source) as archive, np.load(source, allow_pickle=False) as stored:
                if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
                    raise ValueError("it unpacks to more than 2 GiB")
                arrays = [stored[name] for name in ARRAYS]
        else:
            with advising("no such file, nor a download", "name a data set with --data"):
                arrays = sum(import_tensorflow()[1].datasets.mnist.load_data(), ())
        x_train, y_train = as_numbers(*arrays[:2], "train")
        x_test, y_test = as_numbers(*arrays[2:], "test")
        for holds, needed in [
            (len(x_train) >= 24 and y_train.min() < y_train.max(), "24 images, of two labels"),
            (x_train.shape[1:] == x_test.shape[1:], "images of one size"),
            (y_test.max() <= y_train.max(), "no label in y_test above those in y_train"),
        ]:
            if not holds:
                raise InputError(f"a data set needs {needed}; correct it")
    return x_train[:limit], y_train[:limit], x_test[:limit], y_test[:limit], int(y_train.max()) + 1


def split_validation(images, labels):
    """Return (images, labels) to train on and, the same in every run, (images, labels) held out."""
    order = np.random.default_rng(0).permutation(len(images))
    held_out, rest = np.split(order, [min(5000, len(images) // 12)])
    return (images[rest], labels[rest]), (images[held_out], labels[held_out])


# --------------------------------------------------------------------------------------- Model
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


def on_each_core(network, cores):
    """Return a Keras model that trains the network, an equal part of each batch on each core.

    On two cores a step takes 0.82 of the time that it takes with every layer on both.
    """
    tf, keras = import_tensorflow()

    class Parts(keras.Model):
        def call(self, images, training=False):
            if not training:
                return self.network(images)
            count = images.shape[0]
            sizes = [len(part) for part in np.array_split(range(count), min(cores, count))]
            parts = tf.split(images, sizes)
            # The last layer sees the whole batch, or Keras's loss would not find its logits.
            for layer in self.network.layers[:-1]:
                parts = [layer(part) for part in parts]
            return self.network.layers[-1](tf.concat(parts, axis=0))

    model = Parts()
    model.network = network
    return model


def compile_model(model, steps, settings):
    """Give the model a loss, a metric and an optimizer.

    Its learning rate climbs for a fifth of the steps, then falls to 0 along a cosine.
    """
    tf, keras = import_tensorflow()
    name, usual, options = OPTIMIZERS[settings.optimizer]
    peak, warmup = settings.learning_rate or usual, max(1, steps // 5)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warmup or 1, warmup_target=peak, warmup_steps=warmup
    )
    model.compile(
        optimizer=getattr(keras.optimizers, name)(schedule, **options),
        # Without smoothing the validation accuracy after one epoch is 0.15 points lower.
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.05),
        metrics=[keras.metrics.CategoricalAccuracy("accuracy")],
        # Sixteen steps a call spare Python's overhead, but Keras 3.15 fails so on several devices.
        steps_per_execution=1 if tf.distribute.has_strategy() else 16,
    )
    # Variables made while the first step is traced would have it traced again: a second more.
    model.optimizer.build(model.trainable_variables)


# ------------------------------------------------------------------------------------ Training
WARP = 0.8  # pixels of a 28 x 28 image, standard deviation; 0.6 and 1.0 validate worse
SHEETS = 16  # in a batch: as good as one an image, for a third of the time
UNFINISHED = "unfinished.npz"  # what --resume goes on from


def warp(images, seed, sheets):
    """Return images (n, height, width, 1) as if printed on rubber sheets that are pulled about.

    A sheet carries an equal part of the batch and is pulled at 4 x 4 points, which shifts, turns,
    scales, slants and bends it at once (elastic distortions: Simard et al., 2003).
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
    options = tf.data.Options()
    # Its thread sleeps for 10, 20, 40 ... ms and each epoch's end waits: 10.2 s in place of 6.5.
    options.autotune.enabled = False
    return starts.map(batch).prefetch(2).with_options(options)


def fit(model, batches, validation, epoch, progress, settings):
    """Train the compiled model for the epochs that progress lacks; save both after each.

    epoch: the batches' tf.Variable. Raises FloatingPointError if the loss becomes NaN.
    """
    variables, terminal = model.variables + model.optimizer.variables, sys.stdout.isatty()
    stop = import_tensorflow()[1].callbacks.TerminateOnNaN()
    for number in range(len(progress["history"]), settings.epochs):
        epoch.assign(number)
        print(f"Epoch {number + 1}/{settings.epochs}", end="\n" if terminal else "  ", flush=True)
        began, cpu_began = time.perf_counter(), time.process_time()
        found = model.fit(batches, verbose=int(terminal), callbacks=[stop], shuffle=False).history
        progress["train_seconds"] += time.perf_counter() - began
        progress["train_cpu_seconds"] += time.process_time() - cpu_began
        if not math.isfinite(found["loss"][0]):
            raise FloatingPointError("training diverged, the loss is NaN; lower --learning-rate")
        held_out = model.evaluate(*validation, batch_size=500, verbose=0, return_dict=True)
        row = {k: v[0] for k, v in found.items()} | {f"val_{k}": v for k, v in held_out.items()}
        progress["history"].append(row)
        print("  ".join(f"{name} {value:.4f}" for name, value in row.items()), flush=True)
        # Keras's BackupAndRestore writes two files in place: a kill in between tears them.
        with replacing(settings.output_dir) as fresh:
            arrays = [variable.numpy() for variable in variables]
            np.savez(fresh / UNFINISHED, *arrays, progress=json.dumps(progress))


def restore_progress(model, settings):
    """Put an interrupted run's state into the compiled model; return its progress; InputError."""
    path = Path(settings.output_dir, UNFINISHED)
    with advising(path, "nothing to resume, omit --resume"), np.load(path) as stored:
        progress = json.loads(str(stored["progress"]))
        for option, value in settings.recorded().items():
            if value != (before := progress["settings"].get(option)):
                raise InputError(f"--resume: {option} was {before}, now {value}; make it the same")
        for i, variable in enumerate(model.variables + model.optimizer.variables):
            variable.assign(stored[f"arr_{i}"])
    return progress


def train(training, validation, classes, settings):
    """Build and fit a model; return it and its progress: settings, history, seconds, replicas.

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
    with strategy.scope():
        network = build_model(training[0].shape[1:], classes, settings)
        model = on_each_core(network, cores) if apart and len(devices) == 1 else network
        compile_model(model, settings.epochs * len(batches), settings)
    prepare_folder(settings.output_dir)
    progress = {"settings": settings.recorded(), "replicas": len(devices), "history": []}
    progress |= {"train_seconds": 0.0, "train_cpu_seconds": 0.0}
    if settings.resume:
        progress = restore_progress(model, settings)
    network.summary()
    print(f"Training on {len(training[0])} images, validating on {len(validation[0])}", flush=True)
    fit(model, batches, (validation[0], one_hot[validation[1]]), epoch, progress, settings)
    return network, progress


# ---------------------------------------------------------------------------------- Evaluation
def evaluate(probabilities, labels):
    """Return the test figures, a dict, and the confusion matrix, int (true, predicted).

    probabilities: float (n, classes); labels: int (n,). The 95 % interval is Wilson's (1927): its
    ends x solve (accuracy - x)^2 = 1.96^2 x (1 - x) / n.
    """
    confusion = np.zeros(2 * probabilities.shape[1:], int)
    np.add.at(confusion, (labels, probabilities.argmax(axis=1)), 1)
    right, count, tail = confusion.diagonal(), len(labels), 1.96**2 / len(labels)
    accuracy = right.sum() / count
    likelihood = np.maximum(probabilities[np.arange(count), labels], 1e-7)
    return {
        "test_accuracy": accuracy,
        "test_interval": sorted(np.roots([1 + tail, -2 * accuracy - tail, accuracy**2])),
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
    wrong = f"{test['test_errors']} of {sum(test['count'])} wrong"
    share, low, high = (f"{100 * x:.2f}" for x in (test["test_accuracy"], *test["test_interval"]))
    lines.append(f"Test loss: {test['test_loss']:.4f}")
    lines.append(f"Test accuracy: {share} % ({wrong}, 95 % interval {low}-{high} %)")
    return "\n".join(lines)


# ------------------------------------------------------------------------------------- Figures
BLUE, ORANGE = "#0072b2", "#d55e00"  # colour-blind people tell these apart (Okabe and Ito, 2008)
FIGURES = ("training_curves.png", "sample_predictions.png", "confusion_matrix.png", "mistakes.png")


def plot_history(figure, history):
    """Draw training and validation accuracy and loss over the epochs, a dict an epoch."""
    figure.set_size_inches(10, 4)
    for axis, name in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        epochs = range(1, len(history) + 1)
        axis.plot(epochs, [row[name] for row in history], "o-", color=BLUE, label="training")
        held_out = [row[f"val_{name}"] for row in history]
        axis.plot(epochs, held_out, "s--", color=ORANGE, label="validation")
        axis.set(xlabel="epoch", ylabel=name, title=f"{name.capitalize()} over the epochs")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()


def plot_digits(figure, title, images, labels, probabilities):
    """Draw up to 30 images with predicted and true labels; wrong ones in orange."""
    figure.set_size_inches(9, 9.5)
    figure.suptitle(title)
    axes = figure.subplots(5, 6, subplot_kw={"frame_on": False, "xticks": [], "yticks": []}).flat
    for axis, image, label, row in zip(axes, images, labels, probabilities, strict=False):
        wrong = row.argmax() != label
        axis.imshow(image[..., 0], cmap="gray_r")
        text = f"predicted {row.argmax()}, true {label}\n{row.max():.1%}{' WRONG' if wrong else ''}"
        axis.set_title(text, fontsize=9, color=ORANGE if wrong else "black")


def plot_confusion(figure, confusion):
    """Draw the confusion matrix, int (true, predicted), with its counts."""
    figure.set_size_inches(2 * [max(6, 0.6 * len(confusion))])
    axis, ticks = figure.subplots(), range(len(confusion))
    # The cube root lets a single mistake be seen beside a diagonal of a thousand.
    shades = np.cbrt(confusion / confusion.max())
    axis.imshow(shades, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(confusion):
        color = "white" if shades[row, column] > 0.6 else "black"
        axis.text(column, row, confusion[row, column], ha="center", va="center", color=color)
    axis.set(xticks=ticks, yticks=ticks, xlabel="predicted label", ylabel="true label")
    axis.set_title("Test images by true and predicted label")


# ----------------------------------------------------------------------------- Your own images
CONFIDENT = 0.8  # of the validation images 1.6 % are below, with three quarters of all mistakes
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
STROKE = (11, 18)  # fifths of a pixel; 80 % of MNIST's strokes are 9 to 18 wide
Reading = namedtuple("Reading", "digits probabilities images confident")


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


def lift_ink(image):
    """Return the ink in a grey Pillow image, float (height, width): 0 on paper, 1 in strokes.

    The paper, dark or light, is the quadratic surface that most pixels are close to: least
    squares with Cauchy's weights. Raises InputError if nothing stands out from it.
    """
    grey = np.asarray(image.filter(ImageFilter.GaussianBlur(max(image.size) / 180)), float)
    y, x = np.mgrid[-1 : 1 : 1j * image.height, -1 : 1 : 1j * image.width]
    terms = np.polynomial.polynomial.polyvander2d(y, x, (2, 2))
    # Bending has a price, or the surface would follow a digit that fills the image.
    ridge = np.diag([0, 0, 0.03, 0, 0.03, 0.03, 0.03, 0.03, 0.03])
    some = np.s_[:: image.height // 60 + 1, :: image.width // 60 + 1]  # is enough for nine numbers
    sample, levels = terms[some].reshape(-1, 9), grey[some].ravel()
    rest = levels - np.median(levels)
    for _ in range(40):
        weights = sample.T / (10**2 + rest**2)  # a pixel ten grey levels off counts half
        surface = np.linalg.solve(weights @ sample + ridge * weights[0].sum(), weights @ levels)
        rest = levels - sample @ surface
    ink = (grey - terms @ surface) * np.sign(rest.mean())
    noise = 3.14 * np.percentile(abs(rest), 25)  # the standard deviation of a normal distribution
    level = min(6 * noise, ink.max())
    for _ in range(5):
        level = ink[ink >= level / 2].mean()
    if not level >= max(5 * noise, 8):  # NaN, too, on paper without a mark
        raise InputError("no digit stands out from the paper; write larger or darker")
    return ink / level


def runs(profile, gap):
    """Return the places where the profile (n,) is not 0, an int array for each run of them."""
    places = np.flatnonzero(profile)
    return np.split(places, np.flatnonzero(np.diff(places) > 1 + gap) + 1)


def find_digits(stroke):
    """Return (rows, columns), two slices, of each digit in a bool image, from left to right.

    Blank columns part digits, but a gap of a hair is a broken stroke; what is small is a speck.
    """
    boxes, height = [], max(np.ptp(run) for run in map(np.flatnonzero, stroke.T) if run.size)
    for columns in runs(stroke.any(axis=0), 0.04 * height):
        profile = stroke[:, columns].sum(axis=1)
        pieces = runs(profile, 0)
        area = max(profile[piece].sum() for piece in pieces)
        rows = np.concatenate([piece for piece in pieces if profile[piece].sum() >= 0.1 * area])
        boxes.append((rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    height = max(bottom - top for top, bottom, _, _ in boxes)
    return [np.s_[a:b, c:d] for a, b, c, d in boxes if max(b - a, d - c) >= height / 2]


def to_mnist_form(ink):
    """Return a digit's ink, float (height, width), as MNIST has it: uint8 (28, 28).

    Scaled into 20 x 20 and centred by its mass (LeCun et al., 1998, section III.A), once strokes
    thinner or thicker than MNIST's are brought to its range.
    """
    ink = np.pad(255 * np.clip((ink - 0.2) / 0.9, 0, 1), max(ink.shape) // 4)
    # 100 pixels for the digit and its margins: five for each of MNIST's.
    image = ImageOps.autocontrast(ImageOps.contain(Image.fromarray(np.uint8(ink)), (150, 150)))
    solid = np.asarray(image) > 99
    edge = sum(np.diff(solid, axis=axis).sum() for axis in (0, 1)) * math.pi / 4
    width = 2 * solid.sum() / edge
    reach = round((np.clip(width, *STROKE) - width) / 2)
    resize = ImageFilter.MaxFilter if reach > 0 else ImageFilter.MinFilter
    image = image.filter(resize(2 * abs(reach) + 1))
    image = image.crop(image.point(lambda value: 255 * (value > 99)).getbbox())
    digit = np.asarray(ImageOps.autocontrast(ImageOps.contain(image, (20, 20))))
    centre = np.average(np.argwhere(digit), axis=0, weights=digit[digit > 0])
    top, left = np.rint(centre).astype(int)
    return np.pad(digit, 14)[top : top + 28, left : left + 28]


def prepare(image):
    """Return the digits in a grey Pillow image as MNIST has them, uint8 (n, 28, 28).

    An image in MNIST's form, light on black, within 20 x 20, centred by its mass, passes
    unchanged. Raises InputError if no digit is found.
    """
    pixels = np.asarray(image)
    if pixels.shape == (28, 28) and pixels.max() > 127:
        places, weights = np.argwhere(pixels), pixels[pixels > 0]
        off_centre = abs(np.average(places, axis=0, weights=weights) - 14).max()
        if off_centre < 0.6 and np.ptp(places, axis=0).max() < 20:
            return pixels[None]
    side = np.clip(max(image.size), 128, 800)
    page = ImageOps.contain(image, (side, side))
    if max(image.size) < 8 or min(page.size) < 8:
        raise InputError("too small for a digit; give an image of 8 x 8 pixels or more")
    ink = lift_ink(page)
    return np.stack([to_mnist_form(ink[box]) for box in find_digits(ink > 0.4)])


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

    It has the digits from left to right, a str; their probabilities, float32 (n, classes); their
    images as the network saw them, uint8 (n, 28, 28); and whether all are confident, above 0.8.
    model: a Keras model, or a path. Raises InputError if the image or the model cannot be used.
    """
    model = load_model(str(model)) if isinstance(model, str | Path) else model
    name = image_or_path if isinstance(image_or_path, str | Path) else "image"
    with advising(name, "give a whole image, such as a PNG or JPEG, or a folder of them"):
        images = prepare(open_grey(image_or_path))
    probabilities = np.asarray(model(images[..., None], training=False))
    digits, best = probabilities.argmax(axis=1), probabilities.max(axis=1)
    return Reading("".join(map(str, digits)), probabilities, images, bool(best.min() >= CONFIDENT))


def plot_readings(figure, readings):
    """Draw a row for each of {path: Reading}: original, what the network saw, probabilities."""
    axes = figure.subplots(len(readings), 3, squeeze=False, subplot_kw={"xticks": [], "yticks": []})
    for (original, seen, shares), (path, reading) in zip(axes, readings.items(), strict=True):
        original.imshow(open_grey(path), cmap="gray")
        original.set_title(path.name, fontsize=9)
        seen.imshow(np.hstack(reading.images), cmap="gray_r")
        seen.set_title(f"what the network saw: {reading.digits}", fontsize=9)
        shares.imshow(reading.probabilities, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for row, best in enumerate(reading.probabilities):
            look = {"color": "white" if best.max() > 0.6 else "black", "fontsize": 6}
            shares.text(best.argmax(), row, f"{best.max():.0%}", ha="center", va="center", **look)
        shares.set_xticks(range(reading.probabilities.shape[1]))
        shares.set_title("probability of each label", fontsize=9)


# --------------------------------------------------------------------------------------- Files
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
        with replacing(folder):
            pass
        for left in Path(folder).glob(".writing-*"):  # by a run that was killed while writing
            if time.time() - left.stat().st_mtime > 60:
                shutil.rmtree(left, ignore_errors=True)


# -------------------------------------------------------------------------------- Command line
def run(settings):
    """Load, train, evaluate, plot, save and print: the whole job; return the exit code."""
    x_train, y_train, x_test, y_test, classes = load_data(settings.data, settings.limit)
    model, progress = train(*split_validation(x_train, y_train), classes, settings)
    probabilities = model.predict(x_test, batch_size=500, verbose=0)
    test, confusion = evaluate(probabilities, y_test)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != y_test)
    worst = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]
    history = progress.pop("history")
    metrics = test | progress | {"epochs": settings.epochs, "seed": settings.seed}
    metrics |= {"parameters": model.count_params(), "command": settings.command()}
    metrics["machine"] = f"{platform.platform()}, {os.cpu_count()} cores"
    modules = {module.__name__: module.__version__ for module in (*import_tensorflow(), np)}
    metrics["versions"] = {"python": platform.python_version(), **modules}
    import matplotlib.pyplot as plt

    if not settings.show:
        plt.switch_backend("agg")
    digits = (x_test, y_test, probabilities)
    figures = {name: plt.figure(layout="constrained") for name in FIGURES}
    curves, samples, matrix, mistakes = figures.values()
    plot_history(curves, history)
    plot_digits(samples, "The first test images", *digits)
    plot_confusion(matrix, confusion)
    plot_digits(mistakes, "The most confident mistakes", *(array[worst] for array in digits))
    with replacing(settings.output_dir) as fresh:
        model.save(fresh / "model.keras")
        rows = [[number, *row.values()] for number, row in enumerate(history, 1)]
        header = ",".join(["epoch", *history[0]])
        np.savetxt(fresh / "history.csv", rows, "%.6g", ",", header=header, comments="")
        (fresh / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
        for name, figure in figures.items():
            figure.savefig(fresh / name, dpi=120)
    Path(settings.output_dir, UNFINISHED).unlink(missing_ok=True)
    names = ", ".join(["model.keras", "history.csv", "metrics.json", *FIGURES])
    print(f"Saved in {settings.output_dir}: {names}\n{report(test)}", flush=True)
    if plt.get_backend().lower() != "agg":
        plt.show()
    return 0


def predict(settings):
    """Read the images of --predict; return the exit code, 1 if any could not be read."""
    from matplotlib.figure import Figure

    warnings.simplefilter("ignore")  # Pillow's, on damaged metadata
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    model = load_model(settings.model or str(Path(settings.output_dir, "model.keras")))
    prepare_folder(settings.output_dir)
    code, paths, readings = 0, [], {}
    for path in map(Path, settings.predict):
        inside = sorted(path.iterdir()) if path.is_dir() else []
        paths += [p for p in inside if p.suffix.lower() in IMAGE_SUFFIXES] or [path]
    for path in paths:
        try:
            reading = readings[path] = read_digits(path, model)
        except InputError as error:
            code = complain(error, 1)
            continue
        shares = reading.probabilities.max(axis=1).astype(float).round(4).tolist()
        pairs = list(zip(reading.probabilities.argmax(axis=1), shares, strict=True))
        text = "".join(f"{label}{'?' * (share < CONFIDENT)}" for label, share in pairs)
        text += "  (" + ", ".join(f"{label} {100 * share:.1f} %" for label, share in pairs) + ")"
        found = {"file": str(path), "digits": reading.digits, "probabilities": shares}
        found["confident"] = reading.confident
        print(json.dumps(found) if settings.json else f"{path}: {text}", flush=True)
    if readings:
        readings = dict(list(readings.items())[:20])
        figure = Figure(figsize=(9, 2.2 * len(readings)), layout="constrained")
        plot_readings(figure, readings)
        with replacing(settings.output_dir) as fresh:
            figure.savefig(fresh / "predictions.png", dpi=120)
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
    for field in dataclasses.fields(Settings):
        if field.name in GROUPS:
            group = parser.add_argument_group(GROUPS[field.name])
        option = "--" + field.name.replace("_", "-")
        group.add_argument(option, default=field.default, **field.metadata)
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
    except (FloatingPointError, OSError) as error:
        return complain(f"{error}; files written earlier in {settings.output_dir} are untouched", 1)
    except KeyboardInterrupt as interrupt:
        command, begun = ["python", *sys.argv], Path(settings.output_dir, UNFINISHED).exists()
        if begun and not (settings.resume or settings.predict):
            command.append("--resume")
        return complain(f"interrupted; go on with {shlex.join(command)}", (*interrupt.args, 130)[0])


if __name__ == "__main__":
    sys.exit(main())
