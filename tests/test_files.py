"""Files: what was trained is saved before anything that can fail."""

import json
import os
import shutil

import keras
import numpy as np
import pytest

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


def test_metrics_name_everything(finished, metrics):
    for key in ("test_accuracy", "test_loss", "test_errors", "train_seconds", "train_cpu_seconds"):
        assert metrics[key] > 0, key
    assert metrics["parameters"] == dr.load_model(finished[1] / "model.keras").count_params()
    assert set(metrics["versions"]) == {"tensorflow", "keras", "numpy"}
    assert "cores, Python 3." in metrics["machine"]
    settings = vars(dr.parse_settings([])) | {"limit": 10000, "epochs": 3}
    for name in ("filters", "learning_rate", "augment", "limit", "epochs", "seed", "activation"):
        assert metrics["settings"][name] == json.loads(json.dumps(settings[name]))


def test_the_history_has_a_row_for_each_epoch(finished):
    lines = (finished[1] / "history.csv").read_text().splitlines()
    assert lines[0] == "epoch,accuracy,loss,val_accuracy,val_loss" and len(lines) == 4
    values = np.loadtxt(lines[1:], delimiter=",")
    assert list(values[:, 0]) == [0, 1, 2] and values[-1, 3] > 0.95


@pytest.fixture
def full_disk():
    """No file can be larger than 100 KB."""
    resource = pytest.importorskip("resource", reason="Windows has no limit of this kind")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line_and_the_earlier_files_stay(main, full_disk, tmp_path):
    (tmp_path / "metrics.json").write_text("earlier")
    code, _, err = main(*SMALL, "--output-dir", tmp_path)
    assert code == 1 and err.count("\n") == 1 and "File too large" in err
    shutil.rmtree(tmp_path / "unfinished_run")  # from which --resume goes on
    assert contents(tmp_path) == {"metrics.json": b"earlier"}


def fail(*_, **__):
    raise RuntimeError("out of order")


def test_before_the_first_figure_a_short_runs_model_history_metrics_and_answer_are_there(
    tmp_path, monkeypatch, capsys
):
    for figure in ("plot_digits", "plot_confusion", "plot_mistakes", "plot_history"):
        monkeypatch.setattr(dr, figure, fail)
    with pytest.raises(RuntimeError, match="out of order"):
        dr.main([*SMALL, "--limit", "4000", "--output-dir", str(tmp_path)])
    assert set(os.listdir(tmp_path)) == {"model.keras", "history.csv", "metrics.json"}
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["test_images"] == 4000 and metrics["test_accuracy"] > 0.9
    assert capsys.readouterr().out.splitlines()[-1].startswith("Test accuracy: ")


def test_a_saved_model_can_be_trained_on(network, small):
    model = keras.saving.load_model(network)
    before = [weights.copy() for weights in model.get_weights()]
    model.fit(small["x_train"][..., None], np.eye(10)[small["y_train"]], verbose=0)
    moved = [np.abs(new - old).max() for new, old in zip(model.get_weights(), before, strict=True)]
    assert max(moved) > 1e-3


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
