"""Model: by default exactly two blocks, Dense 128 and Dense 10; every flag changes its part."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from changes import CHANGES, share_predicted
from conftest import make_settings

import digit_recognition as dr


def build(*words, shape=(28, 28, 1), classes=10):
    return dr.build_model(shape, classes, make_settings(*words))


def layers_of(model, kind):
    return [layer for layer in model.layers if type(layer).__name__ == kind]


def test_the_default_is_the_network_of_the_readme():
    model = build()
    kinds = [type(layer).__name__ for layer in model.layers]
    last = ["BatchNormalization", "Activation"]
    block = ["Conv2D", "MaxPooling2D", *last]
    assert kinds == ["Functional", *block, *block, "Flatten", "Dense", *last, "Dense"]
    assert [layer.units for layer in layers_of(model, "Dense")] == [128, 10]
    functions = [layer.activation.__name__ for layer in layers_of(model, "Activation")]
    assert functions == ["relu"] * 3
    assert model.layers[-1].activation.__name__ == "softmax"


def test_it_takes_raw_pixels_and_gives_probabilities(mnist):
    model = build()
    probabilities = np.asarray(model(mnist[1][0][:7]))
    assert probabilities.shape == (7, 10) and np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)


SAME = {  # what the network makes the same image of
    "divided by 255": 0.01,
    "a quarter of the contrast, on grey": 0.1,  # which is rounded
    "dark on light": 0.01,
}


@pytest.mark.parametrize("name", SAME)
def test_images_are_normalized_whatever_their_range_contrast_and_polarity(mnist, name):
    images, normalize = mnist[1][0][:200].astype("float32"), build().layers[0]
    normalized = np.asarray(normalize(images))
    assert np.allclose(normalized.std(axis=(1, 2, 3)), 1, atol=1e-3)
    assert np.allclose(normalized[:, 0], 0, atol=0.1)  # the background
    assert (normalized.max(axis=(1, 2, 3)) > 2).all()  # the strokes
    changed = np.float32(CHANGES[name](images, None))
    assert np.allclose(normalize(changed), normalized, atol=SAME[name])


def test_a_faint_image_of_pixels_from_0_to_1_is_normalized_too(mnist):
    images, normalize = mnist[1][0][:200].astype("float32"), build().layers[0]
    assert np.allclose(normalize(0.9 - 0.1 * images / 255), normalize(images), atol=0.02)


def test_an_image_of_one_grey_is_no_division_by_zero():
    assert np.allclose(build().layers[0](np.full((1, 28, 28, 1), 77)), 0, atol=0.01)


def test_it_can_be_exported_and_gives_the_same_probabilities(network, mnist, tmp_path):
    model, images = keras.saving.load_model(network), mnist[1][0][:9].astype("float32")
    model.export(tmp_path / "saved_model", verbose=False)
    exported = tf.saved_model.load(tmp_path / "saved_model")
    assert np.allclose(exported.serve(images), model(images), atol=1e-5)


@pytest.fixture(scope="module")
def share_right(model, digits):
    """A function: the share of 1,000 test images that the trained network reads right, changed."""
    images, labels = digits[0][:1000], digits[1][:1000]

    def share(name):
        changed = CHANGES[name](images.astype(float), np.random.default_rng(0))
        return share_predicted(changed, labels, model)

    return share


def test_the_trained_network_reads_images_of_any_range_contrast_and_polarity(share_right):
    plain = share_right("as they are, pixels from 0 to 255")
    assert plain > 0.97
    for name in SAME:
        assert abs(share_right(name) - plain) <= 0.002, name


DAMAGES = {  # and the share of images that the network of a short run still reads
    "noise, standard deviation 64": 0.95,
    "blurred, standard deviation 1 pixel": 0.95,
    "outlines: the steepness of the image": 0.7,
    "a tenth of the pixels black or white": 0.9,
    "moved by up to 3 pixels": 0.93,
    "cropped to the ink and squeezed into 28 x 28": 0.6,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_the_trained_network_reads_damaged_images(share_right, name):
    assert share_right(name) > DAMAGES[name]


def test_pooling_before_relu_is_the_same_function(mnist):
    model, images = build(), mnist[1][0]
    model(images[:500], training=True)  # has the normalization learn means and deviations
    layers = list(model.layers)
    for pool in layers_of(model, "MaxPooling2D"):
        place = layers.index(pool)
        layers.insert(place + 2, layers.pop(place))
    swapped = keras.Sequential(layers)
    assert layers != model.layers
    assert np.allclose(model(images[:50]), swapped(images[:50]), atol=1e-6)


@pytest.mark.parametrize(
    ("filters", "kernel_sizes", "pool_sizes"),
    [([16, 64], [5, 3], [3, 2]), ([8, 16], [3, 5], [2, 1])],
)
def test_each_convolution_has_its_own_numbers(filters, kernel_sizes, pool_sizes):
    model = build(
        "--filters", *filters, "--kernel-sizes", *kernel_sizes, "--pool-sizes", *pool_sizes
    )
    convolutions, pools = layers_of(model, "Conv2D")[:2], layers_of(model, "MaxPooling2D")[:2]
    assert [layer.filters for layer in convolutions] == filters
    assert [layer.kernel_size for layer in convolutions] == [(size, size) for size in kernel_sizes]
    assert [layer.pool_size for layer in pools] == [(size, size) for size in pool_sizes]


def test_dense_units_and_activation_are_settings():
    model = build("--dense-units", 64, "--activation", "gelu")
    assert [layer.units for layer in layers_of(model, "Dense")] == [64, 10]
    functions = [layer.activation.__name__ for layer in layers_of(model, "Activation")]
    assert set(functions) == {"gelu"}


def test_image_size_and_number_of_classes_follow_the_data():
    model = build(shape=(40, 32, 1), classes=47)
    assert model.input_shape == (None, 40, 32, 1) and model.output_shape == (None, 47)


@pytest.mark.parametrize("optimizer", dr.OPTIMIZERS)
def test_each_optimizer_learns(small, optimizer):
    model = build()
    dr.compile_model(model, 60, make_settings("--optimizer", optimizer))
    x, y = small["x_train"][..., None], np.eye(10)[small["y_train"]]
    before = float(model.loss(y, model(x)))
    model.fit(x, y, batch_size=24, epochs=6, verbose=0)
    assert float(model.loss(y, model(x))) < 0.8 * before


def test_the_learning_rate_of_a_single_step_is_its_peak():
    model = build()
    dr.compile_model(model, 1, make_settings("--learning-rate", 0.5))
    assert float(model.optimizer._learning_rate(0)) == pytest.approx(0.5)


def test_the_learning_rate_climbs_for_a_fifth_and_falls_to_zero():
    model = build()
    dr.compile_model(model, 100, make_settings("--learning-rate", 0.5))
    rates = [float(model.optimizer._learning_rate(step)) for step in range(101)]
    assert int(np.argmax(rates)) == 20 and max(rates) == pytest.approx(0.5)
    assert rates[0] == 0 and rates[100] == pytest.approx(0, abs=1e-6)
