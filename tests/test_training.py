"""Training: shuffled and augmented batches; interrupted runs that can be resumed."""

import json
import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import make_settings, start_script
from test_files import OUTPUTS

import digit_recognition as dr


def batches(small, *words):
    labels = np.eye(10, dtype="float32")[small["y_train"]]
    return dr.training_batches(small["x_train"][..., None], labels, make_settings(*words))


def stack(dataset):
    pairs = [(images.numpy(), labels.numpy()) for images, labels in dataset]
    return np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs])


def test_an_epoch_shows_each_image_once_with_its_label(small):
    images, labels = stack(batches(small, "--no-augment", "--batch-size", 60))
    stored = {
        image.tobytes(): label
        for image, label in zip(small["x_train"], small["y_train"], strict=True)
    }
    shown = {image.astype(np.uint8).tobytes(): row for image, row in zip(images, labels)}  # noqa: B905
    assert len(shown) == len(images) == 240
    assert all(row.argmax() == stored[image] for image, row in shown.items())


def seeded_batches(small, seed):
    keras.utils.set_random_seed(seed)
    return batches(small, "--batch-size", 48, "--seed", seed)


def test_each_epoch_has_an_order_of_its_own_and_the_seed_repeats_it(small):
    dataset = seeded_batches(small, 0)
    first, second = stack(dataset), stack(dataset)
    assert not np.array_equal(first[1], second[1])
    again = seeded_batches(small, 0)
    for epoch in (first, second):
        images, labels = stack(again)
        assert np.array_equal(images, epoch[0]) and np.array_equal(labels, epoch[1])
    assert not np.array_equal(first[1], stack(seeded_batches(small, 1))[1])


def test_an_image_is_augmented_in_another_way_in_each_epoch(small):
    """Traced by its label: each image has a class of its own."""
    numbers = np.eye(240, dtype="float32")
    settings = make_settings("--batch-size", 48)
    dataset = dr.training_batches(small["x_train"][..., None], numbers, settings)
    (first, one), (second, two) = stack(dataset), stack(dataset)
    first, second = first[one.argmax(axis=1).argsort()], second[two.argmax(axis=1).argsort()]
    changed = np.abs(first - second).mean(axis=(1, 2, 3)) > 1
    assert changed.mean() > 0.95


def test_a_batch_larger_than_the_set_becomes_the_set(small):
    assert [len(images) for images, _ in batches(small, "--batch-size", 4096)] == [240]


def test_random_affine_moves_each_pixel_as_its_formula_says(small, monkeypatch):
    """Held against a plain loop over pixels; of an image that is not square."""
    image = small["x_train"][:1, 4:, :, None].astype("float32")
    matrix = np.float32([[[0.1, -0.05], [0.15, -0.1]]])
    draws = iter([tf.constant(matrix), tf.constant([[1.5, -0.75]])])
    monkeypatch.setattr(tf.random, "normal", lambda *_, **__: next(draws))
    warped = dr.random_affine(image)[0, ..., 0]
    centre = np.array([(28 - 1) / 2, (24 - 1) / 2])
    padded = np.pad(image[0, ..., 0], 12, mode="edge")
    expected = np.zeros((24, 28))
    for y in range(24):
        for x in range(28):
            place = (np.eye(2) + matrix[0]) @ ([x, y] - centre) + centre + [1.5, -0.75] + 12
            left, top = int(place[0]), int(place[1])
            patch = padded[top : top + 2, left : left + 2]
            across, down = place[0] % 1, place[1] % 1
            expected[y, x] = [1 - down, down] @ patch @ [1 - across, across]
    assert np.allclose(warped, expected, atol=0.05)


def test_a_digit_stays_the_same_digit_after_random_affine(small):
    images = small["x_train"][..., None].astype("float32")
    warped = dr.random_affine(images).numpy()
    assert warped.shape == images.shape and warped.min() >= 0 and warped.max() <= 255.01
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(images, warped, strict=True)]
    assert 0.5 < np.mean(alike) < 0.97


def test_half_of_a_batch_gets_other_strokes_and_a_quarter_noise(small, monkeypatch):
    monkeypatch.setattr(dr, "random_affine", lambda images: images)
    images = small["x_train"][:203, ..., None].astype("float32")
    augmented, labels = dr.augment(images, np.arange(203))
    augmented = augmented.numpy()
    assert np.array_equal(labels, np.arange(203)) and augmented.shape == images.shape
    assert np.array_equal(augmented[:100] > 0, images[:100] > 0)
    ink = augmented[:100].sum(axis=(1, 2, 3)) / images[:100].sum(axis=(1, 2, 3))
    assert 0.5 < ink.min() < 0.8 and 1.2 < ink.max() < 2
    noise = augmented[100:150] - images[100:150]
    assert 48 < noise.std() < 52 and abs(noise.mean()) < 2
    assert np.array_equal(augmented[150:], images[150:])


def test_a_batch_of_two_images_is_augmented_too(small):
    images, _ = dr.augment(small["x_train"][:2, ..., None], np.arange(2))
    assert images.shape == (2, 28, 28, 1)


def test_a_light_background_gets_no_dark_edges():
    images = np.full((60, 28, 28, 1), 255, "float32")
    images[:, 9:19, 9:19] = 0
    moved = np.asarray(dr.random_affine(images))
    assert moved[:, [0, -1]].min() > 254 and moved[:, :, [0, -1]].min() > 254


SHORT = ["--limit", 600, "--no-show", "--output-dir"]


FOUR = ["--limit", 600, "--epochs", 4, "--batch-size", 16, "--no-show", "--output-dir"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The output folder of a run of four epochs that was killed in its third."""
    folder = tmp_path_factory.mktemp("killed")
    process = start_script(*FOUR, folder)
    for line in process.stdout:
        if line.startswith("Epoch 3"):
            process.kill()
    process.communicate()
    assert os.listdir(folder) == ["unfinished_run"]
    return folder


@pytest.fixture
def interrupted(killed, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(killed, tmp_path, dirs_exist_ok=True)


def epochs_in(out):
    return [line for line in out.splitlines() if line.startswith("Epoch")]


def test_after_kill_9_resume_alone_trains_the_epochs_that_are_left_and_has_the_history_of_all(
    main, interrupted
):
    code, out, err = main("--resume", "--no-show", "--output-dir", interrupted, "--epochs", 50)
    assert (code, err, epochs_in(out)) == (0, "", ["Epoch 3/4", "Epoch 4/4"])
    rows = np.loadtxt(interrupted / "history.csv", delimiter=",", skiprows=1)
    assert list(rows[:, 0]) == [0, 1, 2, 3]
    assert set(os.listdir(interrupted)) == OUTPUTS
    metrics = json.loads((interrupted / "metrics.json").read_text())
    assert (metrics["settings"]["limit"], metrics["settings"]["batch_size"]) == (600, 16)


def test_a_new_run_forgets_the_interrupted_one_but_no_file_of_the_users_and_learns_the_same(
    main, interrupted, monkeypatch
):
    """Its model cannot be saved at first: the earlier one stays, and --resume saves it."""
    (interrupted / "unfinished").mkdir()
    (interrupted / "unfinished" / "novel.txt").write_text("Once")
    (interrupted / "model.keras").write_text("earlier")
    begun = (interrupted / "unfinished_run" / "history.csv").read_text().splitlines()
    with monkeypatch.context() as patch:
        patch.setattr(keras.Sequential, "save", lambda *_: os.listdir(interrupted / "missing"))
        code, out, err = main(*FOUR, interrupted)
    assert (code, err.count("\n")) == (1, 1) and "No such file" in err
    assert epochs_in(out)[0] == "Epoch 1/4"
    assert (interrupted / "model.keras").read_text() == "earlier"
    code, out, err = main("--resume", "--no-show", "--output-dir", interrupted)
    assert (code, err) == (0, "") and "Epoch" not in out
    assert set(os.listdir(interrupted)) == {*OUTPUTS, "unfinished"}
    assert (interrupted / "unfinished" / "novel.txt").read_text() == "Once"
    history = np.loadtxt(interrupted / "history.csv", delimiter=",", skiprows=1)
    assert np.allclose(history[:2, 1:], np.loadtxt(begun[1:], delimiter=",")[:, 1:], rtol=1e-5)


@pytest.mark.parametrize("name", ["latest.weights.h5", "training_metadata.json", "*"])
def test_a_backup_that_was_being_written_is_survived_or_refused_in_one_line(
    main, interrupted, name
):
    for path in (interrupted / "unfinished_run" / "backup").glob(name):
        path.write_bytes(b"")
    code, out, err = main("--resume", "--no-show", "--output-dir", interrupted)
    if name == "latest.weights.h5":  # the one before is there
        assert (code, err, epochs_in(out)[-1]) == (0, "", "Epoch 4/4")
    else:
        assert code == 1 and err.count("\n") == 1


def test_resume_with_nothing_to_resume_is_refused_in_one_line(main, tmp_path):
    code, _, err = main("--resume", "--no-show", "--output-dir", tmp_path)
    assert code == 1 and err.count("\n") == 1
    assert "unfinished_run" in err and "--output-dir names the folder of results" in err


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
    code, out, err = main(*SHORT, tmp_path, "--epochs", 50)
    assert code == 1 and err.count("\n") == 1
    assert "loss became NaN" in err and "--learning-rate" in err
    assert out.count("Epoch ") < 5
    assert (tmp_path / "metrics.json").read_text() == "of an earlier run"
    assert not (tmp_path / "model.keras").exists()
