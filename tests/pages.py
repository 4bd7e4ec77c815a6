"""Pages of real handwriting for the tests: digits of MNIST and scikit-learn on paper of many kinds.

A page has 1 to 6 rows of 1 to 10 digits, 0.3 to 12 megapixels, one pen and one writer's set: seven
of eight pages are of MNIST's test images, the eighth of scikit-learn's. Sizes, slants, baselines,
spaces, light, grain and focus vary. Seeds from 1000 on chose the reader's constants; the table in
tests/README.md is of seeds from 5000 on, which were used for it alone, once.
"""

import functools

import numpy as np
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_digits

import digit_recognition as dr

KINDS = {  # what the table calls them, and how many pages of each it reads
    "plain": ("pages, plain paper, uneven light, grain", 60),
    "lined": ("pages, ruled or squared paper", 60),
    "shadow": ("pages with a hard shadow", 60),
    "table": ("pages with the table in the picture", 60),
    "single": ("single digits beside or over grid lines", 200),
}


@functools.cache
def handwriting(writers):
    """Return images of "mnist" or "scikit-learn", float (n, 28, 28) or (n, 8, 8), and labels."""
    if writers == "mnist":
        _, (images, labels), _ = dr.load_data()
        return images[..., 0] / 255, labels
    digits = load_digits()
    return digits.images / 16, digits.target


def write_digit(ink, height, slant, pen):
    """Return a digit's ink, float from 0 to 1, cropped: about height pixels, strokes by pen wider.

    slant is the shift to the right from a digit's foot to its head, pen a length, in heights.
    """
    ink = ink[np.ix_(ink.any(axis=1), ink.any(axis=0))]
    side = 20 if ink.shape[0] > 8 else 8
    size = [max(round(length * height / side), 2) for length in ink.shape[::-1]]
    big = np.asarray(Image.fromarray(np.float32(ink)).resize(size, Image.Resampling.BICUBIC))
    big = np.pad(big, round(0.3 * height))
    foot = np.array([0, slant * big.shape[0] / 2])
    big = ndimage.affine_transform(big, [[1, 0], [slant, 1]], -foot, order=1)
    inside, outside = (ndimage.distance_transform_edt(mask) for mask in (big > 0.5, big <= 0.5))
    # A wider or narrower pen moves the edge; the thinnest strokes of a digit stay.
    edge = np.where(inside > 0, inside, 1 - outside) + pen * height
    big = np.clip(np.maximum(edge, np.minimum(big * 1.5 - 0.25, 0.7 * (pen < 0))), 0, 1)
    return big[np.ix_(big.max(axis=1) > 0.2, big.max(axis=0) > 0.2)]


def write_rows(shape, rows, height, writers, rng):
    """Return ink, float32 of a shape, with rows of digits as long as rows says, and their text."""
    images, labels = handwriting(writers)
    ink, text = np.zeros(shape, np.float32), []
    slant, pen, tilt = rng.uniform(-0.1, 0.3), rng.uniform(-0.02, 0.03), rng.uniform(-0.03, 0.03)
    middles = shape[0] / 2 + (np.arange(len(rows)) - (len(rows) - 1) / 2) * 1.65 * height
    longest = max(rows) * 1.15 * height
    start = rng.uniform(0.02, 0.98) * (shape[1] - longest)
    for middle, length in zip(middles, rows, strict=True):
        left, word = start + rng.uniform(0, 0.3) * height, ""
        for _ in range(length):
            which = rng.integers(len(labels))
            size = height * rng.uniform(0.75, 1.25)
            digit = write_digit(images[which], size, slant + rng.uniform(-0.1, 0.1), pen)
            place = middle + tilt * (left - shape[1] / 2) + rng.uniform(-0.1, 0.1) * height
            spare = np.subtract(shape, digit.shape) - 2
            if word and left > spare[1]:
                break
            top = round(np.clip(place - digit.shape[0] / 2, 2, spare[0]))
            column = round(np.clip(left, 2, spare[1]))
            bottom, right = top + digit.shape[0], column + digit.shape[1]
            ink[top:bottom, column:right] = np.maximum(ink[top:bottom, column:right], digit)
            word += str(labels[which])
            left = right + rng.uniform(0.1, 0.5) * height
        text.append(word)
    return ink, text


def rule(shape, height, rng):
    """Return the lines of ruled or squared paper as ink, float32 of a shape, tilted a little."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    squared, tilt = rng.random() < 0.5, np.radians(rng.uniform(-2, 2))
    space = height * (rng.uniform(0.45, 1.2) if squared else rng.uniform(1.1, 1.8))
    width = max(1, height * rng.uniform(0.01, 0.05))
    lines = np.zeros(shape, np.float32)
    for along, across in ((x, y), (y, -x))[: 1 + squared]:
        place = np.cos(tilt) * across + np.sin(tilt) * along + rng.uniform(0, space)
        distance = abs((place + space / 2) % space - space / 2)
        lines = np.maximum(lines, np.clip(width / 2 + 0.5 - distance, 0, 1))
    return lines * rng.uniform(0.2, 1)


def half_plane(shape, rng):
    """Return a mask with a straight edge, as a float32 from 0 to 1: what a shadow covers."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    angle = rng.uniform(0, 2 * np.pi)
    down, right = np.sin(angle), np.cos(angle)
    middle = down * rng.uniform(0.2, 0.8) * shape[0] + right * rng.uniform(0.2, 0.8) * shape[1]
    blur = rng.uniform(0.5, 0.006 * max(shape))
    return np.clip((down * y + right * x - middle) / blur + 0.5, 0, 1).astype(np.float32)


def lay_on_table(paper, shape, rng):
    """Return grey from 0 to 1 of a shape: paper, smaller and turned a little, on a darker table."""
    streaks = ndimage.gaussian_filter(rng.normal(0, 1, shape), np.array([0.001, 0.02]) * max(shape))
    table = rng.uniform(0.1, 0.45) * (1 + 0.08 * streaks / streaks.std())
    spare = np.subtract(shape, paper.shape)
    top, left = np.round(spare * rng.uniform(0, 1, 2)).astype(int)
    place = np.s_[top : top + paper.shape[0], left : left + paper.shape[1]]
    light, mask = np.zeros((2, *shape), np.float32)
    light[place], mask[place] = paper, 1
    angle = rng.uniform(-3, 3)
    light, mask = (
        np.asarray(Image.fromarray(part).rotate(angle, Image.Resampling.BILINEAR))
        for part in (light, mask)
    )
    return light + (1 - mask) * table


def photograph(grey, rng):
    """Return grey from 0 to 1 as a Pillow image: out of focus a little, grainy."""
    grey = ndimage.gaussian_filter(grey, rng.uniform(0.3, max(0.8, max(grey.shape) / 1500)))
    grain = rng.standard_normal(grey.shape, np.float32) * rng.uniform(0.005, 0.04)
    return Image.fromarray(np.uint8(255 * np.clip(grey + grain, 0, 1)))


def uneven_light(shape, rng):
    """Return the brightness of paper, float32 of a shape: a slope and a bend."""
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in shape)
    slope = rng.uniform(-0.12, 0.12, 2)
    bend = rng.uniform(-0.06, 0.06, 2)
    light = np.add.outer(slope[0] * y + bend[0] * y**2, slope[1] * x + bend[1] * x**2)
    return rng.uniform(0.72, 0.85) + light


def draw_page(kind, seed):
    """Return a page of a kind of KINDS, a grey Pillow image, and its text, a list of rows."""
    rng = np.random.default_rng([seed, *kind.encode()])
    writers = "scikit-learn" if seed % 8 == 7 else "mnist"
    if kind == "single":
        shape = tuple(np.round(rng.uniform(60, 500) * rng.uniform(0.8, 1.2, 2)).astype(int))
        rows, height = [1], min(shape) * rng.uniform(0.4, 0.7)
    else:
        area, across = 3e5 * 40 ** rng.random(), rng.choice([3 / 4, 4 / 3, 16 / 9])
        shape = (round((area / across) ** 0.5), round((area * across) ** 0.5))
        rows = rng.integers(1, 11, size=rng.integers(1, 7))
    whole = shape
    if kind == "table":
        shape = tuple(np.round(shape * rng.uniform(0.7, 0.95, 2)).astype(int))
    if kind != "single":
        room = min(shape[0] / (1.65 * len(rows) + 0.5), shape[1] / (1.15 * max(rows) + 0.3))
        height = max(room * rng.uniform(0.4, 1), 18, 0.03 * shape[0])
    ink, text = write_rows(shape, rows, height, writers, rng)
    if kind in ("lined", "single"):
        ink = np.maximum(ink, rule(shape, height, rng))
    light, contrast = uneven_light(shape, rng), rng.uniform(0.3, 0.7)
    if kind == "plain" and rng.random() < 0.15:
        grey = 0.9 - light + contrast * ink  # chalk on a blackboard
    else:
        grey = light * (1 - contrast * ink)
    if kind == "shadow":
        for _ in range(rng.integers(1, 3)):
            grey = grey * (1 - rng.uniform(0.25, 0.6) * half_plane(shape, rng))
    if kind == "table":
        grey = lay_on_table(grey, whole, rng)
    return photograph(grey, rng), text


def distance(text, other):
    """Return how many characters must be put in, taken out or changed to get from text to other."""
    row = list(range(len(other) + 1))
    for number, mark in enumerate(text, 1):
        before, row = row, [number]
        for place, wanted in enumerate(other):
            change = before[place] + (mark != wanted)
            row.append(min(change, before[place + 1] + 1, row[-1] + 1))
    return row[-1]


def page_rows(model, first_seed=5000):
    """Return {name: share}: digits read right, in the right row and order, for each of KINDS.

    Wrong, missing and added digits and rows each cost one digit.
    """
    shares = {}
    for kind, (name, count) in KINDS.items():
        right = total = 0
        for seed in range(first_seed, first_seed + count):
            page, rows = draw_page(kind, seed)
            wanted = sum(map(len, rows))
            try:
                found = "\n".join(dr.row_texts(dr.read_digits(page, model)))
            except dr.InputError:
                found = ""
            total += wanted
            right += max(0, wanted - distance("\n".join(rows), found))
        shares[name] = right / total
    return shares
