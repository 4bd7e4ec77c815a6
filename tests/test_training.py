"""Training: warped batches that depend on seed, epoch and place alone; runs that can go on."""

import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import make_settings

import digit_recognition as dr

SETTINGS = {"batch_size": 64, "epochs": 2}


def batches(small, epoch, **changes):
    variable = tf.Variable(epoch, dtype="int64")
    settings = make_settings(**(SETTINGS | changes))
    return dr.training_batches(small["x_train"][..., None], small["y_train"], variable, settings)


def stack(dataset):
    pairs = [(images.numpy(), labels.numpy()) for images, labels in dataset]
    return np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs])


def test_an_epoch_shows_each_image_once_with_its_label(small):
    images, labels = stack(batches(small, 0, augment=False, batch_size=60))
    stored = {
        image.tobytes(): label
        for image, label in zip(small["x_train"], small["y_train"], strict=True)
    }
    assert len({image.tobytes() for image in images}) == 240
    assert all(stored[i.tobytes()] == y for i, y in zip(images, labels, strict=True))


def test_seed_epoch_and_place_alone_decide_a_batch(small):
    first, again = stack(batches(small, 1)), stack(batches(small, 1))
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert not np.array_equal(first[1], stack(batches(small, 2))[1])
    assert not np.array_equal(first[1], stack(batches(small, 1, seed=1))[1])


def test_a_batch_larger_than_the_set_becomes_the_set(small):
    assert [len(images) for images, _ in batches(small, 0, batch_size=4096)] == [240]


def test_a_warp_without_pulls_changes_nothing(small, monkeypatch):
    monkeypatch.setattr(dr, "WARP", 0.0)
    images = small["x_train"][:32, ..., None]
    assert np.allclose(dr.warp(images, (1, 2), 8), images, atol=1e-3)


def test_a_warp_is_the_bilinear_reading_at_the_pulled_places(small):
    """Held against a plain loop over pixels."""
    image = small["x_train"][:1, ..., None]
    pulls = tf.random.stateless_normal((1, 4, 4, 2), (3, 4), stddev=dr.WARP)
    pulls = tf.image.resize(pulls, (28, 28), "bicubic").numpy()[0]
    padded = np.pad(image[0, ..., 0].astype(float), 8, mode="edge")
    expected = np.zeros((28, 28))
    for row in range(28):
        for column in range(28):
            y, x = row + pulls[row, column, 0] + 8, column + pulls[row, column, 1] + 8
            top, left = int(y), int(x)
            patch = padded[top : top + 2, left : left + 2]
            expected[row, column] = [1 - y % 1, y % 1] @ patch @ [1 - x % 1, x % 1]
    assert np.allclose(dr.warp(image, (3, 4), 1)[0, ..., 0], expected, atol=0.05)


def test_a_warped_digit_stays_the_same_digit(small):
    images = small["x_train"][..., None]
    warped = dr.warp(images, (5, 6), 16).numpy()
    assert warped.shape == images.shape and warped.min() >= 0 and warped.max() <= 255.01
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(images, warped, strict=True)]
    assert 0.5 < np.mean(alike) < 0.97


def test_other_pens_write_half_the_digits_wider_or_narrower(small):
    images = small["x_train"][..., None].astype("float32")
    written = dr.change_pens(images, (7, 8)).numpy()
    assert np.array_equal(written[120:], images[120:])
    assert np.array_equal(written[:120] > 0, images[:120] > 0)
    ink = written[:120].sum(axis=(1, 2, 3)) / images[:120].sum(axis=(1, 2, 3))
    assert 0.5 < ink.min() < 0.8 and 1.2 < ink.max() < 2


class Killed(BaseException):
    """In the place of SIGKILL, which test_command_line sends to real processes."""


def train(small, folder, killed_while_writing=False, **changes):
    images = small["x_train"][..., None]
    data = (images, np.eye(10, dtype="float32")[small["y_train"]])
    settings = make_settings(**(SETTINGS | {"output_dir": folder, "data": None} | changes))
    dr.prepare_folder(folder)
    keras.utils.set_random_seed(settings.seed)
    with dr.unfinished_folder(settings) as unfinished:
        model = dr.build_model((28, 28, 1), 10, settings)
        dr.compile_model(model, len(images), settings)
        history, _ = dr.train(model, data, data, unfinished, settings)
        if killed_while_writing:
            raise Killed
    return model, history


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """A run of three epochs that nothing interrupts: (model, history)."""
    return train(small, tmp_path_factory.mktemp("whole"), epochs=3)


@pytest.fixture(scope="module")
def killed(small, tmp_path_factory):
    """The output folder of such a run that was killed before anything was written."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.raises(Killed):
        train(small, folder, killed_while_writing=True, epochs=3)
    return folder


def leave_unfinished(killed, folder):
    """Make the output folder one in which a run was killed; return what that run left in it."""
    shutil.copytree(killed, folder, dirs_exist_ok=True)
    (left,) = folder.glob(dr.UNFINISHED + "*")
    return left


def same_weights(one, other):
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_a_resumed_run_equals_an_uninterrupted_one(small, whole, tmp_path, monkeypatch):
    original = keras.callbacks.BackupAndRestore.on_epoch_end

    def dies_in_the_third(self, epoch, logs=None):
        if epoch == 2:
            raise Killed
        original(self, epoch, logs)

    monkeypatch.setattr(keras.callbacks.BackupAndRestore, "on_epoch_end", dies_in_the_third)
    with pytest.raises(Killed):
        train(small, tmp_path, epochs=3)
    monkeypatch.undo()
    (left,) = tmp_path.iterdir()
    assert len((left / "history.csv").read_text().splitlines()) == 4  # the third epoch's is there
    resumed, history = train(small, tmp_path, epochs=3, resume=True)
    assert np.array_equal(history, whole[1]) and len(history) == 3
    assert same_weights(resumed, whole[0])


def test_a_backup_torn_by_a_kill_loses_one_epoch_and_nothing_else(small, whole, killed, tmp_path):
    left = leave_unfinished(killed, tmp_path)
    torn = left / "latest.weights.h5"
    torn.write_bytes(torn.read_bytes()[:5000])
    resumed, history = train(small, tmp_path, epochs=3, resume=True)
    assert np.array_equal(history, whole[1])
    assert same_weights(resumed, whole[0])


def test_a_run_killed_after_its_last_epoch_only_has_its_outputs_to_write(
    small, whole, killed, tmp_path, capsys
):
    leave_unfinished(killed, tmp_path)
    capsys.readouterr()
    resumed, history = train(small, tmp_path, epochs=3, resume=True)
    assert np.array_equal(history, whole[1]) and "Epoch" not in capsys.readouterr().out
    assert same_weights(resumed, whole[0])


def test_resume_names_the_setting_that_differs(small, killed, tmp_path):
    leave_unfinished(killed, tmp_path)
    with pytest.raises(dr.InputError, match=r"--resume: --batch-size was 64, now 32"):
        train(small, tmp_path, epochs=3, batch_size=32, resume=True)


def test_resume_with_nothing_to_resume_is_refused(small, tmp_path):
    with pytest.raises(dr.InputError, match="nothing to resume"):
        train(small, tmp_path, resume=True)


def test_resume_passes_over_a_later_run_that_was_killed_in_its_first_epoch(
    small, whole, killed, tmp_path
):
    left = leave_unfinished(killed, tmp_path)
    later = tmp_path / (dr.UNFINISHED + "later")
    later.mkdir()
    (later / "settings.json").write_text((left / "settings.json").read_text())
    assert np.array_equal(train(small, tmp_path, epochs=3, resume=True)[1], whole[1])


@pytest.mark.parametrize("name", ["settings.json", "latest.weights.h5", "training_metadata.json"])
def test_a_damaged_backup_is_refused(small, killed, tmp_path, name):
    left = leave_unfinished(killed, tmp_path)
    for path in left.rglob(name + "*"):
        path.write_bytes(b"PK torn")
    with pytest.raises(dr.InputError, match=r"nothing to resume") as caught:
        train(small, tmp_path, epochs=3, resume=True)
    assert "\n" not in str(caught.value)


def test_a_completed_run_drops_an_unfinished_one(small, killed, tmp_path):
    leave_unfinished(killed, tmp_path)
    train(small, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_completed_run_leaves_what_another_run_is_writing(small, killed, tmp_path):
    left = leave_unfinished(killed, tmp_path)
    now = dr.time.time() + 60
    os.utime(left, (now, now))
    train(small, tmp_path)
    assert list(tmp_path.iterdir()) == [left]


def test_divergence_stops_at_once_with_one_line(main, tmp_path, monkeypatch):
    """From a weight that is none: normalized features keep even a rate of 1e9 finite."""
    build_model = dr.build_model

    def build_diverged(*arguments):
        model = build_model(*arguments)
        kernel = model.layers[-1].kernel
        kernel.assign(kernel * np.nan)
        return model

    monkeypatch.setattr(dr, "build_model", build_diverged)
    (tmp_path / "metrics.json").write_text("of an earlier run")
    code, out, err = main(
        "--limit", 600, "--epochs", 50, "--output-dir", tmp_path, "--no-show",
    )  # fmt: skip
    assert code == 1 and err.count("\n") == 1
    assert "loss is NaN" in err and "--learning-rate" in err
    assert out.count("Epoch ") < 5
    assert (tmp_path / "metrics.json").read_text() == "of an earlier run"
    assert not (tmp_path / "model.keras").exists()


def test_two_devices_reach_the_accuracy_of_one(main, tmp_path):
    """In a new Python, since devices are set before TensorFlow starts."""
    code = (
        "import sys, digit_recognition as d\n"
        "d.import_tensorflow()\n"
        "import tensorflow as tf\n"
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "logical = [tf.config.LogicalDeviceConfiguration()] * 2\n"
        "tf.config.set_logical_device_configuration(cpu, logical)\n"
        "sys.exit(d.main(sys.argv[1:]))\n"
    )
    words = ["--limit", "6000", "--epochs", "2", "--batch-size", "128", "--no-show", "--output-dir"]
    command = [sys.executable, "-c", code, *words, str(tmp_path / "two")]
    subprocess.run(command, cwd=dr.BUNDLED_DATA.parents[1], check=True, capture_output=True)
    assert main(*words, tmp_path / "one")[0] == 0
    one, two = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two")
    )
    assert (one["replicas"], two["replicas"]) == (1, 2)
    assert one["test_accuracy"] > 0.93
    assert abs(one["test_accuracy"] - two["test_accuracy"]) < 0.01
