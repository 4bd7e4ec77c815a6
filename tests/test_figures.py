"""Figures: what is drawn is what was measured."""

import numpy as np
from matplotlib import colors
from PIL import Image

import digit_recognition as dr


def test_the_curves_are_the_history():
    history = {
        "epoch": np.array([0, 1]),
        "accuracy": [0.9, 0.95],
        "loss": [0.3, 0.2],
        "val_accuracy": [0.97, 0.98],
        "val_loss": [0.1, 0.09],
    }
    figure = dr.plot_history(history, augmented=True)
    for axis, name in zip(figure.axes, ("accuracy", "loss"), strict=True):
        training, validation = axis.lines
        assert list(training.get_ydata()) == history[name] and list(training.get_xdata()) == [1, 2]
        assert list(validation.get_ydata()) == history[f"val_{name}"]
        names = [text.get_text() for text in axis.get_legend().texts]
        assert names == ["training (augmented images)", "validation"]
    plain = dr.plot_history(history, augmented=False).axes[0].get_legend()
    assert plain.texts[0].get_text() == "training"


def test_the_axis_of_a_single_epoch_shows_that_epoch():
    history = {name: [0.5] for name in ("accuracy", "loss", "val_accuracy", "val_loss")}
    figure = dr.plot_history(history | {"epoch": np.array([0])}, True)
    figure.draw_without_rendering()
    for axis in figure.axes:
        assert axis.get_xlim() == (0.5, 1.5)
        assert [tick for tick in axis.get_xticks() if 0.5 < tick < 1.5] == [1]


def test_each_image_has_its_predicted_and_its_true_label(mnist):
    images, labels = (array[:3] for array in mnist[1])
    probabilities = np.eye(10)[[labels[0], (labels[1] + 1) % 10, labels[2]]] * 0.9
    figure = dr.plot_digits(images, labels, probabilities)
    titles = [axis.title for axis in figure.axes if axis.get_title()]
    assert titles[0].get_text() == f"predicted {labels[0]}, true {labels[0]}\n90.0%"
    assert (
        titles[1].get_text() == f"predicted {(labels[1] + 1) % 10}, true {labels[1]}\n90.0% WRONG"
    )
    assert [title.get_color() == dr.ORANGE for title in titles] == [False, True, False]


def test_the_most_confident_mistake_comes_first(mnist):
    images, labels = (array[:4] for array in mnist[1])
    sure = np.array([0.9, 0.6, 0.9, 0.8])
    read = (labels + np.array([0, 1, 1, 1])) % 10
    figure = dr.plot_mistakes(images, labels, np.eye(10)[read] * sure[:, None])
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    marks = [title.split("\n")[1] for title in titles]
    assert marks == ["90.0% WRONG", "80.0% WRONG", "60.0% WRONG"]
    assert titles[0].startswith(f"predicted {read[2]}, true {labels[2]}")


def test_no_mistakes_make_an_empty_figure_not_a_crash(mnist):
    images, labels = (array[:4] for array in mnist[1])
    figure = dr.plot_mistakes(images, labels, np.eye(10)[labels])
    assert not any(axis.get_title() for axis in figure.axes)


def test_the_confusion_matrix_shows_its_counts():
    labels = np.repeat([0, 1, 2], [6, 4, 3])
    read = np.append(2, labels[1:])
    axis = dr.plot_confusion(labels, np.eye(3)[read]).axes[0]
    assert [text.get_text() for text in axis.texts] == [*"501", *"040", *"003"]
    assert {text.get_color() for text in axis.texts} == {"black"}
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("Predicted label", "True label")


def test_sixty_classes_make_a_picture_that_can_still_be_saved():
    labels = np.arange(60)
    figure = dr.plot_confusion(labels, np.eye(60))
    assert max(figure.get_size_inches()) <= 30


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
