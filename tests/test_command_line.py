"""Command line: the very commands that people type, from end to end, and everything mistyped."""

import contextlib
import gzip
import os
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import start_script
from test_data import idx, write_idx
from test_files import OUTPUTS

import digit_recognition as dr


def test_a_run_prints_summary_history_and_answer_and_saves_all(finished, metrics):
    process, folder = finished
    assert process.returncode == 0 and process.stderr == ""
    assert {path.name for path in folder.iterdir()} == OUTPUTS
    assert "Total params:" in process.stdout and "normalization" in process.stdout
    assert [line[:8] for line in process.stdout.splitlines() if line.startswith("Epoch ")] == [
        "Epoch 1/",
        "Epoch 2/",
        "Epoch 3/",
    ]
    answer = process.stdout.splitlines()[-1]
    found = re.fullmatch(
        r"Test accuracy: (\S+) % \((\d+) of 10000 wrong, 95 % confidence interval .* %\)", answer
    )
    assert float(found[1]) == round(100 * metrics["test_accuracy"], 2) > 95
    assert int(found[2]) == metrics["test_errors"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there always is a display")
def test_without_a_display_nothing_is_said_of_it(finished):
    process, _ = finished
    assert "--no-show" not in process.args
    assert (process.returncode, process.stderr) == (0, "")


# ------------------------------------------------------------------------------ interruptions


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
def test_a_terminal_sees_a_progress_bar_until_ctrl_c_which_names_resume(tmp_path):
    import pty  # Windows has none

    leader, follower = pty.openpty()
    options = ["--limit", "3000", "--epochs", "200", "--batch-size", "16", "--no-show"]
    process = start_script(*options, "--output-dir", tmp_path, stdout=follower)
    os.close(follower)
    found, pressed = b"", 0
    with contextlib.suppress(OSError):  # how Linux says that nobody writes to it any more
        while part := os.read(leader, 65536):
            found += part
            # In the middle of an epoch: where TensorFlow prepares the next one, an interrupt can
            # end in an error of its own. Once more after a while: one press was lost twice.
            if b"Epoch 2/200" in found and time.monotonic() > pressed + 5:
                time.sleep(0.3)
                process.send_signal(signal.SIGINT)
                pressed = time.monotonic()
    os.close(leader)
    _, err = process.communicate(timeout=120)
    shown = found.decode()
    assert "Epoch 2/200" in shown and "/step" in shown and "Traceback" not in shown
    assert "\r" in shown.replace("\r\n", "\n") or "\b" in shown  # drawn over and over in one place
    assert process.returncode == 130
    assert err == "digit_recognition.py: interrupted; --resume continues the training\n"
    assert os.listdir(tmp_path) == ["unfinished_run"]


@pytest.mark.parametrize("words", [["--predict", "x.png"], ["--evaluate"]])
def test_ctrl_c_elsewhere_is_one_line_without_that_advice(main, monkeypatch, words):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(dr, "load_model", interrupt)
    assert main(*words) == (130, "", "digit_recognition.py: interrupted\n")


# ---------------------------------------------------------------------------------- bad input


def save(path, small, **changes):
    np.savez(path, **(small | changes))
    return path


def lacking(path, small):
    np.savez(path, **{name: small[name] for name in ("x_train", "y_train", "x_test")})
    return path


def folder_with(path, small, name="train-images-idx3-ubyte", content=None):
    path.mkdir()
    write_idx(path, small)
    if content is None:
        (path / name).unlink()
    else:
        (path / name).write_bytes(content)
    return path


def written(path, content):
    path.write_bytes(content)
    return path


BAD_FLAGS = {  # and what the line says
    "--epochs 0": "is not a positive integer",
    "--epochs -3": "is not a positive integer",
    "--epochs 1.5": "is not a positive integer",
    "--epochs nan": "is not a positive integer",
    "--epochs": "--epochs",
    "--batch-size 0": "is not a positive integer",
    "--batch-size 1": "batch normalization compares images",
    "--batch-size 1e3": "is not a positive integer",
    "--learning-rate 0": "must be above 0 and finite",
    "--learning-rate -1": "must be above 0 and finite",
    "--learning-rate nan": "must be above 0 and finite",
    "--learning-rate inf": "must be above 0 and finite",
    "--learning-rate fast": "fast",
    "--filters 0 64": "is not a positive integer",
    "--filters 32 many": "many",
    "--filters": "--filters",
    "--filters 16 32 64": "unrecognized arguments: 64",
    "--kernel-sizes 5 0": "is not a positive integer",
    "--kernel-sizes 3": "expected 2 arguments",
    "--pool-sizes 0 0": "is not a positive integer",
    "--dense-units 0": "is not a positive integer",
    "--activation softplus1": "softplus1",
    "--optimizer magic": "magic",
    "--seed -1": "from 0 to 4294967295",
    "--seed 4294967296": "from 0 to 4294967295",
    "--limit 0": "is not a positive integer",
    "--limit x": "is not a positive integer",
    "--no-such-flag": "--no-such-flag",
    "--epoch 3": "--epoch",
    "stray": "stray",
    "--output-dir": "--output-dir",
    "--predict": "--predict",
    "--predict a.png --draw": "not allowed with argument --predict",
    "--model other.keras": "training creates a new one",
}
BAD_INPUT = {
    "--limit 11": "at least 12 training images and 2 labels are needed",
    "--kernel-sizes 29 3": "use smaller --kernel-sizes or --pool-sizes",
    "--kernel-sizes 5 9": "use smaller --kernel-sizes or --pool-sizes",
    "--pool-sizes 25 1": "use smaller --kernel-sizes or --pool-sizes",
    "--data /no/such/file.npz": str(Path("/no/such/file.npz")),
    "--data ünïcôde.npz": "ünïcôde.npz",
    "--evaluate": "train a model, or name one by --model",
    "--evaluate --model /no/such.keras": "/no/such.keras",
    "--predict a.png --model /no/such.keras": "/no/such.keras",
}
BAD_DATA = {
    "missing key": lambda p, s: lacking(p / "d.npz", s),
    "rank 2 images": lambda p, s: save(p / "d.npz", s, x_train=s["x_train"].reshape(240, -1)),
    "colour images": lambda p, s: save(p / "d.npz", s, x_test=np.zeros((60, 28, 28, 3), "u1")),
    "lengths differ": lambda p, s: save(p / "d.npz", s, y_train=s["y_train"][:-1]),
    "sizes differ": lambda p, s: save(p / "d.npz", s, x_test=s["x_test"][:, :20]),
    "negative label": lambda p, s: save(p / "d.npz", s, y_train=s["y_train"].astype(int) - 1),
    "unknown label": lambda p, s: save(p / "d.npz", s, y_test=s["y_test"] + 90),
    "huge label": lambda p, s: save(p / "d.npz", s, y_train=s["y_train"].astype(int) * 10**9),
    "text labels": lambda p, s: save(p / "d.npz", s, y_train=np.full(240, "seven")),
    "broken labels": lambda p, s: save(p / "d.npz", s, y_train=s["y_train"] + 0.5),
    "NaN labels": lambda p, s: save(p / "d.npz", s, y_train=s["y_train"] * np.nan),
    "labels in pairs": lambda p, s: save(p / "d.npz", s, y_train=s["y_train"].reshape(120, 2)),
    "no images": lambda p, s: save(
        p / "d.npz", s, x_train=s["x_train"][:0], y_train=s["y_train"][:0]
    ),
    "no test set": lambda p, s: save(
        p / "d.npz", s, x_test=s["x_test"][:0], y_test=s["y_test"][:0]
    ),
    "pixels over 255": lambda p, s: save(p / "d.npz", s, x_train=s["x_train"].astype(int) * 2),
    "negative pixels": lambda p, s: save(p / "d.npz", s, x_train=s["x_train"] - 1.0),
    "NaN pixels": lambda p, s: save(p / "d.npz", s, x_train=s["x_train"] * np.nan),
    "text pixels": lambda p, s: save(p / "d.npz", s, x_train=s["x_train"].astype(str)),
    "objects": lambda p, s: save(p / "d.npz", s, x_train=s["x_train"].astype(object)),
    "a scalar": lambda p, s: save(p / "d.npz", s, x_train=np.float64(3)),
    "text file": lambda p, s: written(p / "d.npz", b"hello"),
    "empty file": lambda p, s: written(p / "d.npz", b""),
    "cut npz": lambda p, s: written(p / "e.npz", save(p / "d.npz", s).read_bytes()[:90000]),
    "one label": lambda p, s: save(
        p / "d.npz", s, y_train=s["y_train"] * 0, y_test=s["y_test"] * 0
    ),
    "empty folder": lambda p, s: (p / "empty").mkdir() or p / "empty",
    "three IDX files": lambda p, s: folder_with(p / "d", s),
    "wrong magic": lambda p, s: folder_with(p / "d", s, content=b"\0\0\x0d\x03" + bytes(99)),
    "short IDX": lambda p, s: folder_with(p / "d", s, content=idx(s["x_train"])[:-1]),
    "long IDX": lambda p, s: folder_with(p / "d", s, content=idx(s["x_train"]) + b"\0"),
    "cut header": lambda p, s: folder_with(p / "d", s, content=idx(s["x_train"])[:7]),
    "empty IDX": lambda p, s: folder_with(p / "d", s, content=b""),
    "gz that is none": lambda p, s: written_gz(p / "d", s, b"hello"),
    "cut gz": lambda p, s: written_gz(p / "d", s, gzip.compress(idx(s["x_train"]))[:5000]),
    "labels for images": lambda p, s: folder_with(p / "d", s, content=idx(s["y_train"])),
    "folder for a file": lambda p, s: (
        (folder_with(p / "d", s) / "train-images-idx3-ubyte").mkdir() or p / "d"
    ),
}


def written_gz(path, small, content):
    folder = folder_with(path, small)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(content)
    return folder


def check_refused(main, arguments, expected, folder):
    began = time.perf_counter()
    code, _, err = main(*arguments, "--no-show")
    assert time.perf_counter() - began < 10
    assert code == 1 and err.count("\n") == 1 and err.endswith("\n"), (code, err)
    assert err.startswith("digit_recognition.py: ") and expected in err
    assert not folder.exists()


@pytest.mark.parametrize("words", BAD_FLAGS)
def test_a_bad_flag_is_a_line_below_the_usage(main, words):
    code, out, err = main(*words.split(" "))
    assert (code, out) == (2, "")
    usage, line = err.splitlines()
    assert usage == "usage: python digit_recognition.py [options]    (--help lists them)"
    assert "error: " in line and BAD_FLAGS[words] in line


@pytest.mark.parametrize("words", BAD_INPUT)
def test_what_cannot_be_used_is_one_line(main, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_refused(main, words.split(" "), BAD_INPUT[words], tmp_path / "output")


@pytest.mark.parametrize("name", BAD_DATA)
def test_a_bad_data_set_is_one_line(main, name, tmp_path, small, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = BAD_DATA[name](tmp_path, small)
    check_refused(main, ["--data", path], str(path), tmp_path / "output")
