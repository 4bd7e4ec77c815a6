"""Files: whole or absent, whatever happens while they are written."""

import os
import shlex
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import SCRIPT

import digit_recognition as dr

OUTPUTS = {
    "model.keras",
    "history.csv",
    "metrics.json",
    "training_curves.png",
    "sample_predictions.png",
    "confusion_matrix.png",
    "mistakes.png",
}
SMALL = ["--limit", "600", "--epochs", "1", "--no-show"]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_replacing_changes_nothing_when_the_writer_fails(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt), dr.replacing(tmp_path) as fresh:
        (fresh / "a.txt").write_text("half")
        raise KeyboardInterrupt
    assert contents(tmp_path) == {"a.txt": b"old"}


def test_replacing_puts_all_files_in_place(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with dr.replacing(tmp_path) as fresh:
        (fresh / "a.txt").write_text("new")
        (fresh / "b.txt").write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
    assert contents(tmp_path) == {"a.txt": b"new", "b.txt": b"new"}


@pytest.mark.skipif(os.name == "nt", reason="Windows replaces no file while it is being read")
def test_two_writers_never_leave_a_torn_file(tmp_path):
    texts = [letter * 200_000 for letter in "ab"]
    seen = set()

    def write(text):
        for _ in range(20):
            with dr.replacing(tmp_path) as fresh:
                (fresh / "file").write_text(text)

    writers = [threading.Thread(target=write, args=(text,)) for text in texts]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if (tmp_path / "file").exists():
            seen.add((tmp_path / "file").read_text())
    assert seen and seen <= set(texts) and os.listdir(tmp_path) == ["file"]


def test_metrics_name_everything(finished, metrics):
    for key in ("test_accuracy", "test_loss", "test_errors", "train_seconds", "train_cpu_seconds"):
        assert metrics[key] > 0, key
    assert metrics["parameters"] == dr.load_model(finished[1] / "model.keras").count_params()
    assert set(metrics["versions"]) == {"tensorflow", "keras", "numpy"}
    assert "cores, Python 3." in metrics["machine"]
    settings = vars(dr.parse_settings([])) | {"limit": 12000, "epochs": 3}
    for name in ("filters", "learning_rate", "augment", "limit", "epochs", "seed", "activation"):
        assert metrics["settings"][name] == settings[name]


def test_the_history_has_a_row_an_epoch(finished):
    lines = (finished[1] / "history.csv").read_text().splitlines()
    assert lines[0] == "epoch,accuracy,loss,val_accuracy,val_loss" and len(lines) == 4
    values = np.loadtxt(lines[1:], delimiter=",")
    assert list(values[:, 0]) == [1, 2, 3] and values[-1, 3] > 0.95


@pytest.mark.skipif(os.name == "nt", reason="Windows has no ulimit")
def test_a_full_disk_is_one_line_and_the_earlier_files_stay(tmp_path):
    (tmp_path / "metrics.json").write_text("earlier")
    limited = (
        f"ulimit -f 100; exec {shlex.join([sys.executable, str(SCRIPT), *SMALL])} --output-dir ."
    )
    process = subprocess.run(["bash", "-c", limited], cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 1 and process.stderr.count("\n") == 1
    assert "File too large" in process.stderr and "Traceback" not in process.stderr
    shutil.rmtree(tmp_path / "unfinished")  # from which --resume goes on
    assert contents(tmp_path) == {"metrics.json": b"earlier"}


def check_folder_is_refused(main, folder):
    code, out, err = main(*SMALL, "--output-dir", folder)
    assert code == 1 and err.count("\n") == 1 and "Epoch" not in out
    assert str(folder) in err


def test_the_output_folder_is_proven_before_training(main, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        check_folder_is_refused(main, folder)
    assert contents(tmp_path) == {"file": b"in the way"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no /proc, and would make one")
def test_an_output_folder_that_cannot_be_made_is_refused_before_training(main):
    check_folder_is_refused(main, "/proc/nowhere")
