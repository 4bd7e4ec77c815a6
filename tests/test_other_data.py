"""Other data sets: the trained network is evaluated on them, and what does not fit is refused."""

import json

import numpy as np
import pytest


def test_evaluate_reports_as_after_training_and_leaves_the_runs_own_files(
    main, network, metrics, tmp_path
):
    (tmp_path / "metrics.json").write_text("of the run")
    code, out, err = main("--evaluate", "--model", network, "--output-dir", tmp_path, "--no-show")
    assert (code, err) == (0, "") and "Epoch" not in out and "precision    recall" in out
    assert out.splitlines()[-1].startswith("Test accuracy: ")
    found = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    for name in ("test_accuracy", "test_errors", "test_interval", "test_loss"):
        assert found[name] == pytest.approx(metrics[name], abs=1e-6), name
    assert (tmp_path / "metrics.json").read_text() == "of the run"
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.json", "evaluation"}
    assert {path.name for path in (tmp_path / "evaluation").iterdir()} == {
        "metrics.json",
        "sample_predictions.png",
        "confusion_matrix.png",
        "mistakes.png",
    }


def test_evaluate_takes_the_test_images_of_another_set(main, network, small, tmp_path):
    np.savez(tmp_path / "set.npz", **small)
    words = ["--evaluate", "--data", tmp_path / "set.npz", "--model", network, "--no-show"]
    assert main(*words, "--output-dir", tmp_path)[0] == 0
    found = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert found["test_images"] == 60


UNFIT = {  # what is changed, and what the line says
    "size": (
        lambda a: {name: a[name][:, 2:26] for name in ("x_train", "x_test")},
        "takes images of (28, 28, 1), not of (24, 28, 1)",
    ),
    "labels": (
        lambda a: {name: a[name] + 5 for name in ("y_train", "y_test")},
        "has no output for the label 14",
    ),
    "no test images": (lambda a: {"x_test": a["x_test"][:0], "y_test": a["y_test"][:0]}, "(0, 28"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_set_that_does_not_fit_the_network_is_one_line_with_both_numbers(
    main, network, small, tmp_path, name
):
    change, expected = UNFIT[name]
    np.savez(tmp_path / "set.npz", **(small | change(small)))
    words = ["--evaluate", "--data", tmp_path / "set.npz", "--model", network, "--no-show"]
    code, out, err = main(*words, "--output-dir", tmp_path / "output")
    assert (code, out, err.count("\n")) == (1, "", 1) and expected in err
    assert not (tmp_path / "output").exists()
