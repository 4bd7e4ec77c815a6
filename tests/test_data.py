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
IDX_NAMES = dict(
    zip(
        dr.ARRAYS,
        (
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
        ),
        strict=True,
    )
)


def idx(array):
    """The bytes of an IDX file that holds a uint8 array."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx(folder, arrays, names=IDX_NAMES, compressed=False):
    for name, array in arrays.items():
        content = gzip.compress(idx(array)) if compressed else idx(array)
        (folder / (names[name] + ".gz" * compressed)).write_bytes(content)
    return folder


@pytest.mark.parametrize("name", dr.ARRAYS)
def test_the_bundled_arrays_are_the_original_mnist(name):
    with np.load(dr.BUNDLED_DATA) as arrays:
        assert hashlib.sha256(arrays[name].tobytes()).hexdigest() == SHA256[name]


def test_mnist_has_60000_and_10000_images_of_ten_classes(mnist):
    x_train, y_train, x_test, y_test, classes = mnist
    assert x_train.shape == (60000, 28, 28, 1) and x_train.dtype == np.uint8
    assert x_test.shape == (10000, 28, 28, 1) and y_test.dtype == np.int64
    assert len(y_train) == 60000 and classes == 10


def test_limit_keeps_the_first_images(mnist):
    limited = dr.load_data(limit=100)
    assert np.array_equal(limited[0], mnist[0][:100]) and np.array_equal(limited[3], mnist[3][:100])
    assert limited[4] == 10


def test_the_validation_split_is_fixed_and_apart(mnist):
    numbers = np.arange(60000)
    (_, rest), (_, held_out) = dr.split_validation(numbers, numbers)
    assert len(held_out) == 5000 and len(rest) == 55000
    assert np.array_equal(np.sort(np.concatenate([rest, held_out])), numbers)
    assert np.array_equal(dr.split_validation(numbers, numbers)[1][1], held_out)
    assert len(set(mnist[1][held_out])) == 10


@pytest.mark.parametrize("compressed", [False, True])
def test_a_folder_of_idx_files_is_read(tmp_path, small, compressed):
    x_train, y_train, x_test, y_test, classes = dr.load_data(
        write_idx(tmp_path, small, compressed=compressed)
    )
    assert np.array_equal(x_train[..., 0], small["x_train"]) and classes == 10
    assert np.array_equal(y_test, small["y_test"]) and len(x_test) == 60 and len(y_train) == 240


def test_emnist_file_names_are_read(tmp_path, small):
    names = {key: "emnist-digits-" + name for key, name in IDX_NAMES.items()}
    names = {key: name.replace("t10k", "test") for key, name in names.items()}
    assert len(dr.load_data(write_idx(tmp_path, small, names))[2]) == 60


@pytest.mark.parametrize(
    "change",
    [
        lambda a: {"x_train": a["x_train"] / 255, "x_test": a["x_test"] / 255},
        lambda a: {"x_train": a["x_train"].astype(float)},
        lambda a: {"x_train": a["x_train"][..., None]},
        lambda a: {"y_train": np.eye(10)[a["y_train"]]},
        lambda a: {"y_train": np.eye(10, dtype=bool)[a["y_train"]]},
        lambda a: {"y_train": a["y_train"].astype(float)},
        lambda a: {"y_train": a["y_train"][:, None].astype("i8")},
    ],
    ids=["0-1", "float", "channel", "one-hot", "bool one-hot", "float labels", "column"],
)
def test_what_can_be_understood_is_accepted(tmp_path, small, change):
    np.savez(tmp_path / "set.npz", **(small | change(small)))
    x_train, y_train, _, _, classes = dr.load_data(tmp_path / "set.npz")
    assert np.array_equal(x_train[..., 0], small["x_train"]) and x_train.dtype == np.uint8
    assert np.array_equal(y_train, small["y_train"]) and classes == 10


def test_without_the_bundled_file_keras_downloads_mnist(monkeypatch, tmp_path, small):
    monkeypatch.setattr(dr, "BUNDLED_DATA", tmp_path / "data" / "mnist.npz")
    stored = (small["x_train"], small["y_train"]), (small["x_test"], small["y_test"])
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: stored)
    assert len(dr.load_data()[0]) == 240


def test_without_a_file_and_a_network_one_line_says_how_to_go_on(monkeypatch, tmp_path):
    monkeypatch.setattr(dr, "BUNDLED_DATA", tmp_path / "data" / "mnist.npz")

    def unreachable():
        raise Exception("URL fetch failure on https://example.invalid: None -- no network")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", unreachable)
    with pytest.raises(dr.InputError, match=r"mnist.npz: no such file.*URL fetch.*--data"):
        dr.load_data()


def test_a_damaged_bundled_file_is_not_called_missing(monkeypatch, tmp_path):
    (tmp_path / "mnist.npz").write_bytes(b"cut off")
    monkeypatch.setattr(dr, "BUNDLED_DATA", tmp_path / "mnist.npz")
    with pytest.raises(dr.InputError, match=r"mnist.npz: File is not a zip file"):
        dr.load_data()


def test_a_hostile_npz_is_never_unpickled(tmp_path, small):
    class Trap:
        def __reduce__(self):
            return sys.exit, (3,)

    np.savez(tmp_path / "trap.npz", **(small | {"x_train": np.array([Trap()], object)}))
    with pytest.raises(dr.InputError, match="pickle"):
        dr.load_data(tmp_path / "trap.npz")


def test_a_column_of_ones_is_labels_not_one_hot(tmp_path, small):
    np.savez(tmp_path / "set.npz", **(small | {"y_test": np.ones((60, 1), int)}))
    assert np.array_equal(dr.load_data(tmp_path / "set.npz")[3], np.ones(60))


def test_a_bad_file_of_a_folder_is_named_and_its_remedy_whole(tmp_path, small):
    file = write_idx(tmp_path, small) / "t10k-labels-idx1-ubyte"
    file.write_bytes(b"no IDX")
    with pytest.raises(dr.InputError) as caught:
        dr.load_data(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: {file.name}: its magic number")
    assert str(caught.value).endswith(dr.DATA_FORMS)


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
        assert len(dr.load_data(target)) == 5
    except dr.InputError as error:
        assert "\n" not in str(error)
    finally:
        for file in folder.iterdir():
            file.unlink()
