"""Figures: what is drawn is what was measured."""

import numpy as np
from matplotlib import colors
from matplotlib.figure import Figure
from PIL import Image

import digit_recognition as dr

HISTORY = {
    "epoch": [1, 2],
    "accuracy": [0.9, 0.95],
    "loss": [0.3, 0.2],
    "val_accuracy": [0.97, 0.98],
    "val_loss": [0.1, 0.09],
}


def test_the_curves_are_the_history():
    figure = Figure()
    dr.plot_history(figure, HISTORY)
    for axis, name in zip(figure.axes, ("accuracy", "loss"), strict=True):
        training, validation = axis.lines
        assert list(training.get_ydata()) == HISTORY[name] and list(training.get_xdata()) == [1, 2]
        assert list(validation.get_ydata()) == HISTORY[f"val_{name}"]
        assert [text.get_text() for text in axis.get_legend().texts] == ["training", "validation"]


def test_each_digit_says_what_it_was_read_as_and_what_it_is(mnist):
    labels = mnist[3][:3]
    probabilities = np.eye(10)[[labels[0], (labels[1] + 1) % 10, labels[2]]] * 0.9
    figure = Figure()
    dr.plot_digits(figure, "some", mnist[2][:3], labels, probabilities)
    titles = [axis.title for axis in figure.axes if axis.get_title()]
    assert titles[0].get_text() == f"predicted {labels[0]}, true {labels[0]}\n90.0%"
    assert (
        titles[1].get_text() == f"predicted {(labels[1] + 1) % 10}, true {labels[1]}\n90.0% WRONG"
    )
    assert [title.get_color() == dr.ORANGE for title in titles] == [False, True, False]


def test_no_mistakes_make_an_empty_figure_not_a_crash():
    empty = np.zeros((0, 28, 28, 1)), np.zeros(0, int), np.zeros((0, 10))
    figure = Figure()
    dr.plot_digits(figure, "none", *empty)
    assert not any(axis.get_title() for axis in figure.axes)


def test_the_confusion_matrix_shows_its_counts():
    labels = np.repeat([0, 1, 2], [6, 4, 3])
    predicted = np.append(2, labels[1:])
    figure = Figure()
    dr.plot_confusion(figure, labels, predicted, 3)
    axis = figure.axes[0]
    assert sorted(text.get_text() for text in axis.texts) == ["1", "3", "4", "5"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted label", "true label")


def test_the_two_colours_differ_in_lightness_for_every_eye():
    grey = [
        colors.to_rgb(color) @ np.array([0.2126, 0.7152, 0.0722]) for color in (dr.BLUE, dr.ORANGE)
    ]
    assert abs(grey[0] - grey[1]) > 0.03


def test_the_finished_run_saved_four_whole_pictures(finished):
    names = {"training_curves", "sample_predictions", "confusion_matrix", "mistakes"}
    assert {path.stem for path in finished[1].glob("*.png")} >= names
    for name in names:
        with Image.open(finished[1] / f"{name}.png") as image:
            image.load()
            assert min(image.size) > 400 and len(image.convert("L").getcolors()) > 10
