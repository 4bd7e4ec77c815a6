"""What the tests share: real digits from the bundled set, and the script run as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest

import digit_recognition

SCRIPT = Path(digit_recognition.__file__)
QUICK = ["--limit", "12000", "--epochs", "3", "--batch-size", "128", "--no-show"]

matplotlib.use("agg")
digit_recognition.import_tensorflow()  # quietly, before a test imports it


def make_settings(optimizer="adam", **changes):
    """The settings of a command line without words, but for the changes."""
    settings = digit_recognition.parse_settings(["--optimizer", optimizer])
    vars(settings).update(changes)
    return settings


def run_script(*arguments, cwd=None, timeout=120, **options):
    """Run the script in a new Python and return the finished process, its output as text."""
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, timeout=timeout, capture_output=True, text=True, check=False, **options
    )


@pytest.fixture(scope="session")
def mnist():
    """The bundled data set: x_train, y_train, x_test, y_test, classes."""
    return digit_recognition.load_data()


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A real run on 12,000 images: (process, output folder)."""
    folder = tmp_path_factory.mktemp("a finished run") / "output"
    return run_script(*QUICK, "--output-dir", folder), folder


@pytest.fixture(scope="session")
def metrics(finished):
    return json.loads((finished[1] / "metrics.json").read_text())


@pytest.fixture(scope="session")
def network(finished):
    """The path of the network that the finished run trained."""
    return str(finished[1] / "model.keras")


@pytest.fixture
def main(capsys):
    """Run main() in this process: returns (exit code, stdout, stderr)."""

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
    x_train, y_train, x_test, y_test, _ = mnist
    return {
        "x_train": x_train[:240, ..., 0],
        "y_train": y_train[:240].astype(np.uint8),
        "x_test": x_test[:60, ..., 0],
        "y_test": y_test[:60].astype(np.uint8),
    }
