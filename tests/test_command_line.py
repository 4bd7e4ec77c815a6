"""Command line: the very commands that people type, from end to end, and everything mistyped."""

import contextlib
import gzip
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import SCRIPT
from test_data import idx, write_idx
from test_files import OUTPUTS

import digit_recognition as dr


def test_a_run_prints_summary_history_and_answer_and_saves_all(finished, metrics):
    process, folder = finished
    assert process.returncode == 0 and process.stderr == ""
    assert {path.name for path in folder.iterdir()} == OUTPUTS
    assert "Total params:" in process.stdout and "rescaling" in process.stdout
    assert [line[:8] for line in process.stdout.splitlines() if line.startswith("Epoch ")] == [
        "Epoch 1/",
        "Epoch 2/",
        "Epoch 3/",
    ]
    answer = process.stdout.splitlines()[-1]
    found = re.fullmatch(
        r"Test accuracy: (\S+) % \((\d+) of 10000 wrong, 95 % interval .* %\)", answer
    )
    assert float(found[1]) == round(100 * metrics["test_accuracy"], 2) > 95
    assert int(found[2]) == metrics["test_errors"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there always is a display")
def test_without_a_display_nothing_is_said_of_it(finished):
    process, _ = finished
    assert "--no-show" not in process.args
    assert (process.returncode, process.stderr) == (0, "")


# ------------------------------------------------------------------------------ interruptions

LONG = ["--limit", "1500", "--epochs", "4", "--batch-size", "16", "--no-show"]
needs_signals = pytest.mark.skipif(os.name == "nt", reason="Windows has no POSIX signals")


def start(folder, *more, stdout=subprocess.PIPE):
    command = [sys.executable, str(SCRIPT), *LONG, "--output-dir", str(folder), *more]
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True)


def wait_for(process, word):
    for line in process.stdout:
        if line.startswith(word):
            return
    raise AssertionError(f"{word} never came: {process.stderr.read()}")


def run_on_a_terminal(folder):
    """Run the script to its end; return the process and what a terminal showed, as text."""
    import pty  # Windows has none

    leader, follower = pty.openpty()
    process = start(folder, stdout=follower)
    os.close(follower)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that nobody writes to it any more
        while found := os.read(leader, 65536):
            shown += found
    os.close(leader)
    return process, shown.decode()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A whole run, on a terminal where there are any: (output folder, what was shown)."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    if os.name == "nt":
        process, shown = start(folder), None
    else:
        process, shown = run_on_a_terminal(folder)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    return folder, shown


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
def test_a_terminal_sees_a_progress_bar(uninterrupted):
    _, shown = uninterrupted
    assert "Epoch 2/4" in shown and "/step" in shown
    assert "\r" in shown.replace("\r\n", "\n") or "\b" in shown  # drawn over and over in one place


def test_the_command_in_the_metrics_repeats_the_run(uninterrupted, main, tmp_path):
    folder, _ = uninterrupted
    first = json.loads((folder / "metrics.json").read_text())
    words = shlex.split(first["command"])
    assert words[:2] == ["python", "digit_recognition.py"]
    code, _, err = main(*words[2:], "--output-dir", tmp_path, "--no-show")
    assert (code, err) == (0, "")
    again = json.loads((tmp_path / "metrics.json").read_text())
    assert again["test_errors"] == first["test_errors"]
    assert again["test_loss"] == first["test_loss"]
    assert (tmp_path / "history.csv").read_bytes() == (folder / "history.csv").read_bytes()


MOMENTS = ["in an epoch", "between epochs", "while saving", "while outputs are written"]


def torn(folder):
    """Whether the backup of an epoch is being written: it is not yet as large as the last one."""
    sizes = [path.stat().st_size for path in sorted(folder.glob(f"{dr.UNFINISHED}*/*h5*"))]
    return len(sizes) == 2 and sizes[0] < sizes[1]


def outputs_begun(folder):
    return any(folder.glob(".writing-*/*"))


def kill_at(moment, folder):
    """Start a run and end it with SIGKILL at that moment."""
    process = start(folder)
    wait_for(process, "Epoch 2")
    if moment == "in an epoch":
        time.sleep(0.15)
    while moment == "while saving" and not torn(folder):
        assert process.poll() is None, "it ended unseen"
    while moment == "while outputs are written" and not outputs_begun(folder):
        assert process.poll() is None, "it ended unseen"
    process.kill()
    process.communicate()


@needs_signals
@pytest.mark.parametrize("moment", MOMENTS)
def test_after_kill_9_resume_ends_as_if_uninterrupted(main, tmp_path, uninterrupted, moment):
    kill_at(moment, tmp_path)
    assert not (tmp_path / "model.keras").exists()
    code, out, err = main(*LONG, "--output-dir", tmp_path, "--resume")
    assert (code, err) == (0, "")
    whole, _ = uninterrupted
    assert (tmp_path / "history.csv").read_bytes() == (whole / "history.csv").read_bytes()
    assert "Epoch 1/" not in out
    assert ("Epoch 4/" in out) == (moment != "while outputs are written")
    assert not list(tmp_path.glob(dr.UNFINISHED + "*"))


@needs_signals
def test_killed_while_loading_there_is_nothing_to_resume(main, tmp_path):
    process = start(tmp_path)
    time.sleep(1)
    process.kill()
    process.communicate()
    code, _, err = main(*LONG, "--output-dir", tmp_path, "--resume")
    assert code == 2 and err.count("\n") == 1 and "nothing to resume" in err


@needs_signals
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_says_how_to_go_on(tmp_path, number, code):
    process = start(tmp_path)
    wait_for(process, "Epoch 2")
    time.sleep(0.15)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code and err.count("\n") == 1 and "Traceback" not in err + out
    assert "interrupted" in err and "--resume" in err and "--batch-size 16" in err
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(dr.UNFINISHED)


@needs_signals
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [1.0, 3.0])
def test_an_early_interrupt_leaves_nothing(tmp_path, number, delay):
    process = start(tmp_path / "output")
    time.sleep(delay)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number and err.count("\n") == 1 and "interrupted" in err
    assert not list(tmp_path.glob("output/*"))


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


def bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        zeros = bytes(1 << 20)
        with archive.open("x_train.npy", "w", force_zip64=True) as entry:
            for _ in range(2100):
                entry.write(zeros)
    return path


def huge_header(path, small):
    """An array whose header announces a petabyte."""
    save(path, small)
    with zipfile.ZipFile(path, "a") as archive:
        header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 1000, 1000), }"
        header = header.ljust(117) + b"\n"
        archive.writestr("x_train.npy", b"\x93NUMPY\x01\x00" + bytes([len(header), 0]) + header)
    return path


BAD_FLAGS = {
    "--epochs 0": "9999",
    "--epochs -3": "9999",
    "--epochs 1.5": "whole number",
    "--epochs nan": "whole number",
    "--epochs 99999999999999999999": "9999",
    "--epochs": "--epochs",
    "--batch-size 0": "65536",
    "--batch-size 1e3": "whole number",
    "--batch-size 1000000": "65536",
    "--learning-rate 0": "1e-09",
    "--learning-rate -1": "1e-09",
    "--learning-rate nan": "number",
    "--learning-rate inf": "number",
    "--learning-rate fast": "fast",
    "--filters 0": "999",
    "--filters 32 many": "many",
    "--filters": "--filters",
    "--kernel-size 0": "15",
    "--pool-size 0": "15",
    "--kernel-size 99": "15",
    "--dense-units 0": "9999",
    "--activation softplus1": "softplus1",
    "--optimizer magic": "magic",
    "--seed -1": "2147483647",
    "--seed 4294967296": "2147483647",
    "--limit 3": "24",
    "--limit x": "whole number",
    "--no-such-flag": "--no-such-flag",
    "--epoch 3": "--epoch",
    "stray": "stray",
    "--output-dir": "--output-dir",
    "--predict": "--predict",
    "--predict a.png --draw": "not allowed with argument --predict",
    "--data /no/such/file.npz": str(Path("/no/such/file.npz")),
    "--data ./ünï côde.npz": "ünï",
    "--resume": "nothing to resume",
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
    "text labels": lambda p, s: save(p / "d.npz", s, y_train=s["y_train"].astype(str)),
    "broken labels": lambda p, s: save(p / "d.npz", s, y_train=s["y_train"] + 0.5),
    "NaN labels": lambda p, s: save(p / "d.npz", s, y_train=s["y_train"] * np.nan),
    "labels in pairs": lambda p, s: save(p / "d.npz", s, y_train=s["y_train"].reshape(120, 2)),
    "not one-hot": lambda p, s: save(p / "d.npz", s, y_train=np.ones((240, 10))),
    "one class": lambda p, s: save(p / "d.npz", s, y_train=s["y_train"] * 0),
    "no images": lambda p, s: save(
        p / "d.npz", s, x_train=s["x_train"][:0], y_train=s["y_train"][:0]
    ),
    "no test set": lambda p, s: save(
        p / "d.npz", s, x_test=s["x_test"][:0], y_test=s["y_test"][:0]
    ),
    "few images": lambda p, s: save(
        p / "d.npz", s, x_train=s["x_train"][:9], y_train=s["y_train"][:9]
    ),
    "pixels over 255": lambda p, s: save(p / "d.npz", s, x_train=s["x_train"].astype(int) * 2),
    "negative pixels": lambda p, s: save(p / "d.npz", s, x_train=s["x_train"] - 1.0),
    "NaN pixels": lambda p, s: save(p / "d.npz", s, x_train=s["x_train"] * np.nan),
    "complex pixels": lambda p, s: save(p / "d.npz", s, x_train=s["x_train"] * 1j),
    "text pixels": lambda p, s: save(p / "d.npz", s, x_train=s["x_train"].astype(str)),
    "objects": lambda p, s: save(p / "d.npz", s, x_train=s["x_train"].astype(object)),
    "a scalar": lambda p, s: save(p / "d.npz", s, x_train=np.float64(3)),
    "text file": lambda p, s: written(p / "d.npz", b"hello"),
    "empty file": lambda p, s: written(p / "d.npz", b""),
    "cut npz": lambda p, s: written(p / "e.npz", save(p / "d.npz", s).read_bytes()[:90000]),
    "zip bomb": lambda p, s: bomb(p / "d.npz"),
    "huge header": lambda p, s: huge_header(p / "d.npz", s),
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
    assert code == 2 and err.count("\n") == 1 and err.endswith("\n"), (code, err)
    assert err.startswith("digit_recognition.py: ") and expected in err
    assert not folder.exists()


@pytest.mark.parametrize("words", BAD_FLAGS)
def test_a_bad_flag_is_one_line(main, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    option, *values = words.split(" ")
    values = [" ".join(values)] if option == "--data" else values
    if option == "--resume":
        (tmp_path / "output").mkdir()
        code, _, err = main("--resume", "--limit", 600, "--no-show")
        assert code == 2 and err.count("\n") == 1 and "nothing to resume" in err
        return
    check_refused(main, [option, *values], BAD_FLAGS[words], tmp_path / "output")


@pytest.mark.parametrize("name", BAD_DATA)
def test_a_bad_data_set_is_one_line(main, name, tmp_path, small, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = BAD_DATA[name](tmp_path, small)
    check_refused(main, ["--data", path], str(path), tmp_path / "output")


def test_another_data_set_is_trained_on(tmp_path, small, main):
    path = save(
        tmp_path / "a set.npz",
        small,
        x_train=small["x_train"][:, 2:26],
        x_test=small["x_test"][:, 2:26],
    )
    code, out, err = main(
        "--data", path, "--epochs", 1, "--output-dir", tmp_path / "o", "--no-show"
    )
    assert (code, err) == (0, "") and "(None, 24, 28, 1)" in out
