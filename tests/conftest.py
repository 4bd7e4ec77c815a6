"""What the tests share: real digits from the bundled set, and the script run as a user runs it."""

import functools
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "digit_recognition.py"
QUICK = ["--limit", "10000", "--epochs", "3"]

# Two processes of tests share two cores: with a thread each, all tests end 8 % sooner.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")


def pytest_collection_finish():
    """Draw without windows. Spare garbage collection what the imports made: 7 % of the time."""
    import matplotlib  # not above: pytest's first process, which runs no test, needs none of these

    matplotlib.use("agg")
    gc.freeze()
    gc.set_threshold(100_000)  # 2 % more
    # A shell has its jobs in the background ignore Ctrl-C, and so would the script that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def make_settings(*words):
    """The settings of a command line."""
    import digit_recognition

    return digit_recognition.parse_settings([str(word) for word in words])


def run_script(*arguments, cwd=None, timeout=120, **options):
    """Run the script in a new Python and return the finished process, its output as text."""
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    options = {"text": True} | options
    return subprocess.run(command, cwd=cwd, timeout=timeout, capture_output=True, **options)


def start_script(*arguments, **options):
    """Start the script in a new Python; return the process, its output unbuffered text."""
    command = [sys.executable, "-u", str(SCRIPT), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **(pipes | options))


@pytest.fixture
def run_as_program(monkeypatch):
    """A function that runs the script as python does, but in this process: returns its code."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        try:
            with warnings.catch_warnings():
                runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as stop:
            return stop.code
        return 0

    return run


@pytest.fixture(scope="session")
def mnist():
    """The bundled data set, (x_train, y_train), (x_test, y_test): images (n, 28, 28, 1)."""
    import digit_recognition

    (x_train, y_train), (x_test, y_test) = digit_recognition.load_mnist()
    training = x_train[..., np.newaxis], y_train.astype(np.int64)
    return training, (x_test[..., np.newaxis], y_test.astype(np.int64))


@pytest.fixture(scope="session")
def digits(mnist):
    """MNIST's test images without the channel, uint8 (10000, 28, 28), and their labels."""
    images, labels = mnist[1]
    return images[..., 0], labels


def run_without_a_display(*arguments):
    """Run the script where it can open no window, or, where one always can, with --no-show."""
    if sys.platform == "linux":
        return run_script(*arguments, env={"PATH": "/usr/bin"})
    return run_script(*arguments, "--no-show")


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A real run on 10,000 images: (process, output folder)."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of all workers: the first to come trains for both
    folder, record = shared / "a finished run", shared / "finished.json"
    try:
        folder.mkdir()
    except FileExistsError:
        deadline = time.monotonic() + 120
        while not record.exists():
            assert time.monotonic() < deadline, "the other worker's run never ended"
            time.sleep(0.1)
        process = subprocess.CompletedProcess(**json.loads(record.read_text()))
    else:
        process = run_without_a_display(*QUICK, "--output-dir", folder / "output")
        (shared / "finished.new").write_text(json.dumps(vars(process)))
        (shared / "finished.new").rename(record)
    return process, folder / "output"


@pytest.fixture(scope="session")
def metrics(finished):
    return json.loads((finished[1] / "metrics.json").read_text())


@pytest.fixture(scope="session")
def network(finished):
    """The path of the network that the finished run trained: loaded once, not by 50 tests."""
    import digit_recognition

    path, load = finished[1] / "model.keras", digit_recognition.load_model
    load_once = functools.cache(load)

    def load_model(wanted, *image_shape):
        return load_once(path, *image_shape) if wanted == path else load(wanted, *image_shape)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digit_recognition, "load_model", load_model)
        yield path


@pytest.fixture(scope="session")
def model(network):
    """That network."""
    import digit_recognition

    return digit_recognition.load_model(network)


@pytest.fixture(autouse=True)
def close_figures():
    """Close a test's figures: a later run would first clear all of their axes."""
    from matplotlib import pyplot as plt

    yield
    plt.close("all")


@pytest.fixture
def main(capsys):
    """Run a command line in this process: returns (exit code, stdout, stderr)."""
    import digit_recognition

    def run(*arguments):
        try:
            code = digit_recognition.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(scope="session")
def small(mnist):
    """A small data set as a dict of arrays: 240 training images, 60 test images."""
    (x_train, y_train), (x_test, y_test) = mnist
    return {
        "x_train": x_train[:240, ..., 0],
        "y_train": y_train[:240].astype(np.uint8),
        "x_test": x_test[:60, ..., 0],
        "y_test": y_test[:60].astype(np.uint8),
    }
