"""Training: warped batches that depend on seed, epoch and place alone; runs that can go on."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

import digit_recognition as dr

SETTINGS = dr.Settings(batch_size=64, epochs=2)


def batches(small, epoch, **changes):
    tf = dr.import_tensorflow()[0]
    variable = tf.Variable(epoch, dtype="int64")
    settings = dataclasses.replace(SETTINGS, **changes)
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
    tf = dr.import_tensorflow()[0]
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


def train(small, folder, **changes):
    data = (small["x_train"][..., None], small["y_train"].astype(int))
    settings = dataclasses.replace(SETTINGS, output_dir=str(folder), **changes)
    return dr.train(data, data, 10, settings)


@pytest.mark.parametrize(("cores", "count"), [(2, 64), (3, 32), (4, 2), (2, 1)])
def test_parts_on_each_core_are_the_network_on_the_whole_batch(small, cores, count):
    tf = dr.import_tensorflow()[0]
    network = dr.build_model((28, 28, 1), 10, SETTINGS)
    images = small["x_train"][:count, ..., None].astype("float32")
    labels = np.eye(10, dtype="float32")[small["y_train"][:count]]
    parts = dr.on_each_core(network, cores)
    found = []
    for model in (network, parts):
        dr.compile_model(model, 10, SETTINGS)
        with tf.GradientTape() as tape:
            outputs = model(images, training=True)
            loss = model.compute_loss(images, labels, outputs, training=True)
        found.append((outputs, tape.gradient(loss, network.trainable_variables)))
    assert [variable.path for variable in parts.trainable_variables] == [
        variable.path for variable in network.trainable_variables
    ]
    assert np.allclose(found[0][0], found[1][0], atol=1e-6)
    for whole, apart in zip(found[0][1], found[1][1], strict=True):
        assert np.allclose(whole, apart, atol=1e-6)


def test_a_resumed_run_equals_an_uninterrupted_one(small, tmp_path, monkeypatch):
    whole, progress = train(small, tmp_path / "whole", epochs=3)

    class Killed(Exception):
        pass

    original = dr.json.dumps

    def dies_after_two(value, **options):
        text = original(value, **options)
        if len(value.get("history", [])) == 3:
            raise Killed
        return text

    monkeypatch.setattr(dr.json, "dumps", dies_after_two)
    with pytest.raises(Killed):
        train(small, tmp_path / "cut", epochs=3)
    monkeypatch.undo()
    resumed, resumed_progress = train(small, tmp_path / "cut", epochs=3, resume=True)
    assert resumed_progress["history"] == progress["history"]
    assert len(progress["history"]) == 3
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        assert np.array_equal(a, b)


def test_a_run_killed_after_its_last_epoch_only_has_its_outputs_to_write(small, tmp_path):
    model, progress = train(small, tmp_path)
    again, again_progress = train(small, tmp_path, resume=True)
    assert again_progress == progress
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        assert np.array_equal(a, b)


def test_resume_names_the_setting_that_differs(small, tmp_path):
    train(small, tmp_path)
    with pytest.raises(dr.InputError, match=r"--resume: --batch-size was 64, now 32"):
        train(small, tmp_path, batch_size=32, resume=True)


def test_resume_with_nothing_to_resume_is_refused(small, tmp_path):
    with pytest.raises(dr.InputError, match="nothing to resume"):
        train(small, tmp_path, resume=True)


def test_a_damaged_progress_file_is_refused(small, tmp_path):
    (tmp_path / dr.UNFINISHED).write_bytes(b"PK torn")
    with pytest.raises(dr.InputError, match="nothing to resume"):
        train(small, tmp_path, resume=True)


@pytest.mark.parametrize("rate", [1e9, 1e6])
def test_divergence_stops_at_once_with_one_line(main, tmp_path, rate):
    (tmp_path / "metrics.json").write_text("of an earlier run")
    code, out, err = main(
        "--limit", 600, "--epochs", 50, "--optimizer", "sgd", "--learning-rate", rate,
        "--output-dir", tmp_path, "--no-show",
    )  # fmt: skip
    assert code == 1 and err.count("\n") == 1
    assert "loss is NaN" in err and "--learning-rate" in err
    assert out.count("Epoch ") < 5
    assert (tmp_path / "metrics.json").read_text() == "of an earlier run"
    assert not (tmp_path / "model.keras").exists()


def test_two_devices_reach_the_accuracy_of_one(tmp_path):
    """In a new Python, since devices are set before TensorFlow starts."""
    code = (
        "import sys, digit_recognition as d\n"
        "tf, _ = d.import_tensorflow()\n"
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "logical = [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[1])\n"
        "tf.config.set_logical_device_configuration(cpu, logical)\n"
        "sys.exit(d.main(['--limit', '6000', '--epochs', '2', '--no-show', '--batch-size', '128',\n"
        "                 '--output-dir', sys.argv[2]]))\n"
    )
    found = []
    for count in (1, 2):
        folder = tmp_path / str(count)
        command = [sys.executable, "-c", code, str(count), str(folder)]
        subprocess.run(command, cwd=dr.BUNDLED_DATA.parents[1], check=True, capture_output=True)
        found.append(json.loads((folder / "metrics.json").read_text()))
    assert [metrics["replicas"] for metrics in found] == [1, 2]
    assert found[0]["test_accuracy"] > 0.93
    assert abs(found[0]["test_accuracy"] - found[1]["test_accuracy"]) < 0.01
