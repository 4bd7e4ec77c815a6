"""A pad to draw on: what a mouse draws is read as photos are, taken back and cleared."""

import numpy as np
import pytest
from matplotlib.backend_bases import MouseEvent
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

import digit_recognition as dr

ONE = [(150, 100), (150, 200), (150, 300)]
HINT = "Draw digits here"
SEVEN = [(330, 100), (400, 100), (450, 105), (420, 200), (390, 300)]


class Hand:
    """Somebody at the pad: draws with the mouse and presses buttons."""

    def __init__(self, model):
        self.figure = Figure(figsize=(10, 5))
        FigureCanvasAgg(self.figure)
        self.pad = dr.Pad(self.figure, model)

    def mouse(self, name, place):
        event = MouseEvent(name, self.figure.canvas, *place, button=1)
        self.figure.canvas.callbacks.process(name, event)

    def draw(self, points, release=True):
        places = self.pad.axes["pad"].transData.transform(points)
        self.mouse("button_press_event", places[0])
        for place in places[1:]:
            self.mouse("motion_notify_event", place)
        if release:
            self.mouse("button_release_event", places[-1])

    def click(self, button):
        self.figure.canvas.draw()
        place = button.ax.transAxes.transform((0.5, 0.5))
        self.mouse("button_press_event", place)
        self.mouse("button_release_event", place)

    @property
    def title(self):
        return self.pad.axes["pad"].get_title()

    @property
    def bars(self):
        return [bar.get_height() for bar in self.pad.axes["bars"].patches]

    @property
    def ink(self):
        return int((np.asarray(self.pad.paper.get_array()) < 128).sum())


@pytest.fixture
def hand(model):
    return Hand(model)


def test_an_empty_pad_says_what_to_do(hand):
    assert hand.title == HINT and hand.ink == 0
    assert hand.bars == []


def test_a_one_and_a_seven_are_read_as_a_number_with_their_probabilities(hand):
    hand.draw(ONE)
    assert hand.title == "1" and np.argmax(hand.bars) == 1
    hand.draw(SEVEN)
    assert hand.title == "17" and np.argmax(hand.bars) == 7
    assert hand.pad.axes["seen"].images[0].get_array().shape == (28, 56)


def test_a_digit_of_mnist_traced_along_its_own_ink_is_read(hand, digits):
    images, labels = digits
    rows, columns = np.nonzero(images[labels == 0][0] > 200)
    angles = np.arctan2(rows - rows.mean(), columns - columns.mean())
    around = np.argsort(angles)[::3]
    points = np.stack([columns[around], rows[around]], axis=1) * 10.0 + 60
    hand.draw([*points, points[0]])
    assert hand.title == "0"


def test_undo_takes_a_stroke_back_and_clear_all(hand):
    clear, undo = hand.pad.buttons
    hand.draw(ONE)
    ink = hand.ink
    hand.draw(SEVEN)
    hand.click(undo)
    assert (hand.title, hand.ink) == ("1", ink)
    hand.draw(SEVEN)
    hand.click(clear)
    assert (hand.title, hand.ink) == (HINT, 0)
    hand.click(undo)  # of nothing is no error
    assert hand.ink == 0


def test_a_click_without_motion_is_a_dot_and_no_crash(hand):
    hand.draw([(400, 200)])
    assert 300 < hand.ink < 700


def test_leaving_the_pad_ends_the_stroke(hand):
    hand.draw(ONE, release=False)
    hand.mouse("motion_notify_event", (2, 2))
    assert hand.title == "1"
    ink = hand.ink
    hand.mouse("motion_notify_event", hand.pad.axes["pad"].transData.transform((600, 200)))
    assert hand.ink == ink and len(hand.pad.strokes) == 1


def test_a_stroke_that_reaches_the_edge_of_the_paper_is_read(hand):
    hand.draw([(400, 1), (400, 200), (400, 399)])
    assert hand.title == "1"


def test_the_pad_says_when_it_finds_no_digit(hand, monkeypatch):
    def find_nothing(*_):
        raise dr.InputError("no digit stands out from the paper")

    monkeypatch.setattr(dr, "read_digits", find_nothing)
    hand.draw([(400, 200)])
    assert hand.title.startswith("No digit was read")


def test_strokes_are_smooth_however_far_apart_their_points_are():
    corner = [(100, 300), (200, 100), (300, 300)]
    image = np.asarray(dr.draw_strokes([corner])) < 128
    widths = image[150:290, :200].sum(axis=1)
    assert widths.min() > 18 and widths.max() < 45
    assert np.array_equal(
        np.asarray(dr.draw_strokes([[(9, 9)] * 3])), np.asarray(dr.draw_strokes([[(9, 9)]]))
    )


def test_strokes_are_as_thick_as_mnists_in_a_digit_of_half_the_pad(hand):
    hand.draw([(150, 100), (150, 300)])
    drawing = Image.fromarray(hand.pad.paper.get_array().astype(np.uint8))
    ((digit,),) = dr.read_digits(drawing, hand.pad.model).rows
    assert 2 <= np.median((digit.image > 127).sum(axis=1)[6:22]) <= 4


def test_without_a_model_the_line_is_that_of_predict(main, monkeypatch, tmp_path):
    monkeypatch.setattr(dr, "can_open_windows", lambda: True)
    code, _, err = main("--draw", "--output-dir", tmp_path / "none")
    assert code == 1 and err == main("--predict", "x.png", "--output-dir", tmp_path / "none")[2]
    assert err.count("\n") == 1 and "train a model" in err
