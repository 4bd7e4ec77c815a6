"""Model: by default exactly two blocks, Dense 128 and Dense 10; every flag changes its part."""

import keras
import numpy as np
import pytest
from conftest import make_settings

import digit_recognition as dr


def build(shape=(28, 28, 1), classes=10, **changes):
    return dr.build_model(shape, classes, make_settings(**changes))


def convolutions(model):
    return [layer for layer in model.layers if type(layer).__name__ == "Conv2D"]


def test_the_default_is_the_network_of_the_readme():
    kinds = [type(layer).__name__ for layer in build().layers]
    last = ["BatchNormalization", "Activation"]
    block = ["Conv2D", "MaxPooling2D", *last]
    assert kinds == ["Rescaling", *block, *block, "Flatten", "Dense", *last, "Dense"]
    assert [layer.units for layer in build().layers if hasattr(layer, "units")] == [128, 10]
    activations = [layer for layer in build().layers if type(layer).__name__ == "Activation"]
    assert [layer.activation.__name__ for layer in activations] == ["relu"] * 3
    assert build().layers[-1].activation.__name__ == "softmax"
    trainable = [layer.name.split("_")[0] for layer in build().layers if layer.trainable_weights]
    assert trainable == ["conv2d", "conv2d", "dense", "probabilities"]
    assert [layer.kernel_size for layer in convolutions(build())] == [(5, 5), (3, 3)]


def test_it_takes_raw_pixels_and_gives_probabilities(mnist):
    model = build()
    probabilities = np.asarray(model(mnist[2][:7]))
    assert probabilities.shape == (7, 10) and np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert np.allclose(model.layers[0](np.uint8([[[[0], [255]]]])), [[[[0], [1]]]])


def test_pooling_before_relu_is_the_same_function(mnist):
    model = build()
    model(mnist[2][:500], training=True)  # has the normalization learn means and deviations
    order = (0, 1, 3, 4, 2, 5, 7, 8, 6, *range(9, 14))
    swapped = keras.Sequential([model.layers[place] for place in order])
    assert np.allclose(model(mnist[2][:50]), swapped(mnist[2][:50]), atol=1e-6)


@pytest.mark.parametrize(
    ("filters", "kernel_size"), [((8,), 3), ((8, 16, 32), 5), ((8, 16, 32, 64), 3), ((8, 8), 15)]
)
def test_each_number_of_filters_is_a_block(filters, kernel_size):
    blocks = convolutions(build(filters=filters, kernel_size=kernel_size))
    assert tuple(block.filters for block in blocks) == filters
    sizes = [block.kernel_size[0] for block in blocks]
    assert sizes == [kernel_size, *[3] * (len(filters) - 1)]


def test_the_pooling_of_the_first_block_is_a_setting():
    pools = [layer for layer in build(pool_size=2).layers if layer.name.startswith("max_pooling")]
    assert [layer.pool_size for layer in pools] == [(2, 2), (2, 2)]


def test_dense_units_and_activation_are_settings():
    model = build(dense_units=64, activation="gelu")
    (dense,) = (layer for layer in model.layers if layer.name.startswith("dense"))
    assert dense.units == 64
    activations = [layer for layer in model.layers if type(layer).__name__ == "Activation"]
    assert [layer.activation.__name__ for layer in activations] == ["gelu"] * 3


def test_image_size_and_number_of_classes_follow_the_data():
    assert build((32, 20, 1), 47).input_shape == (None, 32, 20, 1)
    assert build((32, 20, 1), 47).output_shape == (None, 47)


def test_more_blocks_than_the_image_has_room_for_leave_one_place():
    model = build((8, 8, 1), filters=(8, 8, 8, 8, 8))
    assert convolutions(model)[-1].output.shape == (None, 1, 1, 8)


@pytest.mark.parametrize("optimizer", dr.OPTIMIZERS)
def test_each_optimizer_learns(small, optimizer):
    settings = make_settings(optimizer=optimizer, batch_size=24, epochs=6)
    model = build()
    dr.compile_model(model, 240, settings)
    x, y = small["x_train"][..., None], np.eye(10)[small["y_train"]]
    before = model.evaluate(x, y, verbose=0)[0]
    model.fit(x, y, batch_size=24, epochs=6, verbose=0)
    assert model.evaluate(x, y, verbose=0)[0] < 0.8 * before


def test_the_learning_rate_climbs_for_a_fifth_and_falls_to_zero():
    model = build()
    dr.compile_model(model, 50, make_settings(learning_rate=0.5, epochs=2, batch_size=1))
    rates = [float(model.optimizer._learning_rate(step)) for step in range(101)]
    assert int(np.argmax(rates)) == 20 and max(rates) == pytest.approx(0.5)
    assert rates[0] == 0 and rates[100] == pytest.approx(0, abs=1e-6)
