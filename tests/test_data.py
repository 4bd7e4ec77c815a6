"""Data: the bundled set is MNIST, other sets are read or refused with one line."""

import gzip
import hashlib
import os
import struct
import sys

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import digit_recognition as dr

FUZZ_CASES = int(os.environ.get("FUZZ_CASES", "100"))  # 10,000 outside CI
SHA256 = {
    "x_train": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    "y_train": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    "x_test": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    "y_test": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
}
IDX_NAMES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


def idx(array):
    """The bytes of an IDX file that holds a uint8 array."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx(folder, arrays, names=IDX_NAMES, compressed=False):
    for name, array in arrays.items():
        content = gzip.compress(idx(array)) if compressed else idx(array)
        (folder / (names[name] + ".gz" * compressed)).write_bytes(content)
    return folder


def emnist_names(part):
    """How EMNIST calls the files of one of its parts, such as digits."""
    names = {key: f"emnist-{part}-{name}" for key, name in IDX_NAMES.items()}
    return {key: name.replace("t10k", "test") for key, name in names.items()}


@pytest.mark.parametrize("name", dr.ARRAYS)
def test_the_bundled_arrays_are_the_original_mnist(name):
    with np.load(dr.BUNDLED_DATA) as arrays:
        assert hashlib.sha256(arrays[name].tobytes()).hexdigest() == SHA256[name]


def test_mnist_has_55000_5000_and_10000_images_of_ten_classes():
    training, validation, test, classes = dr.load_data()
    for (images, labels), count in ((training, 55000), (validation, 5000), (test, 10000)):
        assert images.shape == (count, 28, 28, 1) and images.dtype == np.uint8
        assert labels.shape == (count,) and labels.dtype == np.uint8
    assert classes == 10 and set(validation[1]) == set(range(10))


def in_order(images):
    """The images as rows of pixels, sorted."""
    rows = images.reshape(len(images), -1)
    return rows[np.lexsort(rows.T)]


def test_the_validation_images_are_the_same_in_every_run_and_not_trained_on(mnist):
    first, again = dr.load_data(limit=600), dr.load_data(limit=600)
    assert np.array_equal(first[1][0], again[1][0]) and len(first[1][0]) == 50
    both = np.concatenate([first[0][0], first[1][0]])
    assert np.array_equal(in_order(both), in_order(mnist[0][0][:600]))


def test_limit_keeps_the_first_images_and_all_classes(mnist):
    (x_train, _), (x_validation, _), (_, y_test), classes = dr.load_data(limit=12)
    assert (len(x_train), len(x_validation), classes) == (11, 1, 10)
    assert np.array_equal(y_test, mnist[1][1][:12])


def test_too_few_images_for_a_validation_set_are_refused():
    with pytest.raises(dr.InputError, match="at least 12 training images and 2 labels"):
        dr.load_data(limit=11)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_folder_of_idx_files_is_read(tmp_path, small, compressed):
    folder = write_idx(tmp_path, small, compressed=compressed)
    (x_train, y_train), (x_test, y_test) = dr.read_data_set(folder)
    assert np.array_equal(x_train, small["x_train"]) and np.array_equal(y_train, small["y_train"])
    assert np.array_equal(x_test, small["x_test"]) and np.array_equal(y_test, small["y_test"])


def test_emnist_is_turned_upright(tmp_path, small):
    stored = small | {name: small[name].swapaxes(1, 2) for name in ("x_train", "x_test")}
    training, test = dr.read_data_set(write_idx(tmp_path, stored, emnist_names("digits")))
    assert np.array_equal(training[0], small["x_train"])
    assert np.array_equal(test[0], small["x_test"])


def test_a_folder_with_several_sets_is_refused_with_their_names(tmp_path, small):
    for part in ("balanced", "digits"):
        write_idx(tmp_path, small, emnist_names(part))
    with pytest.raises(dr.InputError, match=r"emnist-balanced-train-\S+, emnist-digits-train-"):
        dr.load_data(tmp_path)


def test_hidden_files_and_packed_copies_are_passed_over(tmp_path, small):
    write_idx(tmp_path, small)
    write_idx(tmp_path, small, compressed=True)
    (tmp_path / "._train-images-idx3-ubyte").write_bytes(b"of a Mac")
    assert dr.load_data(tmp_path)[3] == 10


@pytest.mark.parametrize(
    "change",
    [
        lambda a: {"x_train": a["x_train"] / 255, "x_test": a["x_test"] / 255},
        lambda a: {"x_train": a["x_train"] / 254.9999, "x_test": a["x_test"] / 255},
        lambda a: {"x_train": a["x_train"].astype(float)},
        lambda a: {"x_train": a["x_train"][..., None]},
        lambda a: {"y_train": np.eye(10)[a["y_train"]]},
        lambda a: {"y_train": np.eye(10, dtype=bool)[a["y_train"]]},
        lambda a: {"y_train": a["y_train"].astype(float)},
        lambda a: {"y_train": a["y_train"][:, None].astype("i8")},
    ],
    ids=[
        "0-1",
        "0-1.0000004",
        "float",
        "channel",
        "one-hot",
        "bool one-hot",
        "float labels",
        "column",
    ],
)
def test_what_can_be_understood_is_accepted(tmp_path, small, change):
    np.savez(tmp_path / "set.npz", **(small | change(small)))
    (x_train, y_train), _ = dr.read_data_set(tmp_path / "set.npz")
    assert np.array_equal(x_train, small["x_train"]) and x_train.dtype == np.uint8
    assert np.array_equal(y_train, small["y_train"]) and y_train.dtype == np.uint8


def test_without_the_bundled_file_keras_downloads_mnist(monkeypatch, tmp_path, small):
    monkeypatch.setattr(dr, "BUNDLED_DATA", tmp_path / "data" / "mnist.npz")
    stored = (small["x_train"], small["y_train"]), (small["x_test"], small["y_test"])
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: stored)
    assert len(dr.load_data()[0][0]) == 220


def test_without_a_file_and_a_network_one_line_says_how_to_go_on(monkeypatch, tmp_path):
    monkeypatch.setattr(dr, "BUNDLED_DATA", tmp_path / "data" / "mnist.npz")

    def unreachable():
        raise Exception("URL fetch failure on https://example.invalid: None -- no network")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", unreachable)
    with pytest.raises(dr.InputError, match=r"mnist.npz: URL fetch.*; get this file"):
        dr.load_data()


def test_a_damaged_bundled_file_is_refused(monkeypatch, tmp_path):
    (tmp_path / "mnist.npz").write_bytes(b"PK cut off")
    monkeypatch.setattr(dr, "BUNDLED_DATA", tmp_path / "mnist.npz")
    with pytest.raises(dr.InputError, match=r"mnist.npz: .*; get this file from the project again"):
        dr.load_data()


def test_files_in_folders_of_their_names_do_not_hide_those_beside_them(tmp_path, small):
    """As Kaggle has them: train-images.idx3-ubyte beside a folder train-images-idx3-ubyte."""
    names = {key: name.replace("-idx", ".idx") for key, name in IDX_NAMES.items()}
    write_idx(tmp_path, small, names)
    for name in IDX_NAMES.values():
        (tmp_path / name).mkdir()
    assert np.array_equal(dr.read_data_set(tmp_path)[0][0], small["x_train"])


def test_pixels_of_another_range_are_named(tmp_path, small):
    np.savez(tmp_path / "signed.npz", **(small | {"x_train": small["x_train"] - 128.0}))
    with pytest.raises(dr.InputError, match=r"pixels are from -128.0 to 127.0, not"):
        dr.read_data_set(tmp_path / "signed.npz")


def test_a_hostile_npz_is_never_unpickled(tmp_path, small):
    class Trap:
        def __reduce__(self):
            return sys.exit, (3,)

    np.savez(tmp_path / "trap.npz", **(small | {"x_train": np.array([Trap()], object)}))
    with pytest.raises(dr.InputError, match="pickle"):
        dr.load_data(tmp_path / "trap.npz")


def test_a_column_of_ones_is_labels_not_one_hot(tmp_path, small):
    np.savez(tmp_path / "set.npz", **(small | {"y_test": np.ones((60, 1), int)}))
    assert np.array_equal(dr.load_data(tmp_path / "set.npz")[2][1], np.ones(60))


def test_a_bad_file_of_a_folder_is_named_and_its_remedy_whole(tmp_path, small):
    file = write_idx(tmp_path, small) / "t10k-labels-idx1-ubyte"
    file.write_bytes(b"no IDX")
    with pytest.raises(dr.InputError) as caught:
        dr.load_data(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: {file.name} begins with 6e6f20, not 000008")
    assert str(caught.value).endswith(dr.DATA_FORM)


def test_an_npz_of_other_arrays_is_refused(tmp_path, small):
    np.savez(tmp_path / "set.npz", images=small["x_train"], labels=small["y_train"])
    with pytest.raises(dr.InputError, match=r"set.npz: .*x_train.*; --data takes"):
        dr.load_data(tmp_path / "set.npz")


@pytest.mark.parametrize("name", ["table.csv", "pictures"])
def test_tables_and_pictures_are_refused_with_the_call_that_makes_what_is_taken(tmp_path, name):
    if name == "pictures":
        (tmp_path / name).mkdir()
        (tmp_path / name / "7.png").write_bytes(b"PNG")
    else:
        (tmp_path / name).write_text("7,0,0,0\n")
    with pytest.raises(dr.InputError, match=r'by np.savez\("set.npz", x_train='):
        dr.load_data(tmp_path / name)


@settings(max_examples=FUZZ_CASES, deadline=None)
@given(
    content=st.binary(max_size=400),
    edits=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=8),
    kind=st.sampled_from(["idx", "gz", "npz", "raw"]),
)
def test_the_readers_of_foreign_bytes_raise_nothing_but_input_error(
    tmp_path_factory, content, edits, kind
):
    fuzz_data(tmp_path_factory.mktemp("fuzz"), content, edits, kind)


def fuzz_data(folder, content, edits, kind):
    """Damage a small data set of that kind and load it: Data or InputError, nothing else."""
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (24, 8, 8), np.uint8),
        "y_train": np.arange(24, dtype=np.uint8) % 3,
        "x_test": rng.integers(0, 256, (3, 8, 8), np.uint8),
        "y_test": np.arange(3, dtype=np.uint8),
    }
    if kind == "npz":
        np.savez(folder / "set.npz", **arrays)
        target = folder / "set.npz"
    else:
        target = write_idx(folder, arrays, compressed=kind == "gz")
    damaged = target if kind == "npz" else min(target.iterdir())
    original = bytearray(content if kind == "raw" else damaged.read_bytes())
    for place, value in edits:
        if original:
            original[place % len(original)] = value
    damaged.write_bytes(bytes(original) + (content if kind == "idx" else b""))
    try:
        assert len(dr.load_data(target)) == 4
    except dr.InputError as error:
        assert str(target) in str(error)
    finally:
        for file in folder.iterdir():
            file.unlink()
