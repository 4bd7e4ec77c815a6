"""Pages of real handwriting for the tests: digits of MNIST and scikit-learn on paper of many kinds.

A page has 1 to 6 rows of 1 to 10 digits, 0.3 to 12 megapixels, one pen and one writer's set: seven
of eight pages are of MNIST's test images, the eighth of scikit-learn's. Sizes, slants, baselines,
spaces, light, grain and focus vary. Beside pages there are forms, scans, strips, rows of digits
that touch, digits that touch the border, dim photos, digits of fine lines, digits as tall as the
picture, close rows on a turned page, rows of uneven digits, numbers in columns, digits of two
sizes, and sheets on which nothing is written.
Seeds from 1000, 24000, 25000, 26000 and 27000 on chose the reader's constants; the table in
tests/README.md is of seeds from 28000 on, by which nothing was chosen.
"""

import functools

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import KDTree
from sklearn.datasets import load_digits

import digit_recognition as dr

KINDS = {  # what the table calls them, and how many pages of each it reads
    "plain": ("pages, plain paper, uneven light, grain", 120),
    "lined": ("pages, ruled or squared paper", 120),
    "shadow": ("pages with a hard shadow", 120),
    "table": ("pages with the table in the picture", 120),
    "single": ("single digits beside or over grid lines", 400),
    "scan": ("scans of A4, 150 to 300 dpi, digits of 3 to 5 mm", 120),
    "strip": ("strips of one row", 120),
    "form": ("forms, a box for each digit", 240),
    "touching": ("rows whose digits touch", 120),
    "border": ("single digits that touch the border", 400),
    "dim": ("dim photos of plain, ruled and squared paper", 120),
    "fine": ("strokes of 1 to 2 pixels, digits of 60 to 230 pixels", 120),
    "tall": ("single digits from the top of the picture to its bottom", 400),
    "turned": ("close rows on a page turned by up to 7 degrees", 120),
    "uneven": ("rows of digits of very different heights", 120),
    "columns": ("numbers in columns", 120),
    "sizes": ("rows below a heading, or a number over a stamp", 120),
}
BLANK_SHEETS = 400  # with shade, folds, edges, lines, empty boxes, grain


@functools.cache
def handwriting(writers):
    """Return images of "mnist" or "scikit-learn", float (n, 28, 28) or (n, 8, 8), and labels."""
    if writers == "mnist":
        _, _, (images, labels), _ = dr.load_data()
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


def lay(digit, ink, top, left):
    """Lay a digit on ink, float of a larger shape, in place; the stronger ink stays."""
    area = ink[top : top + digit.shape[0], left : left + digit.shape[1]]
    area[...] = np.maximum(area, digit)


def write_rows(shape, rows, height, writers, rng, gaps=(0.1, 0.5)):
    """Return ink, float32 of a shape, with rows of digits as long as rows says, and their text.

    gaps: the least and the largest space between digits, in heights.
    """
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
            lean = slant + rng.uniform(-0.1, 0.1)
            digit = write_digit(images[which], size, lean, pen)
            if digit.shape[1] > shape[1] - 4:  # a wide digit, a narrow picture
                digit = write_digit(images[which], size / 2, lean, pen)
            place = middle + tilt * (left - shape[1] / 2) + rng.uniform(-0.1, 0.1) * height
            spare = np.subtract(shape, digit.shape) - 2
            if word and left > spare[1]:
                break
            top = round(np.clip(place - digit.shape[0] / 2, 2, spare[0]))
            column = round(np.clip(left, 2, spare[1]))
            lay(digit, ink, top, column)
            word += str(labels[which])
            left = column + digit.shape[1] + rng.uniform(*gaps) * height
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


def as_image(grey):
    """Return grey from 0 to 1 as a Pillow image."""
    return Image.fromarray(np.uint8(255 * np.clip(grey, 0, 1)))


def photograph(grey, rng):
    """Return grey from 0 to 1 as a Pillow image: out of focus a little, grainy."""
    grey = ndimage.gaussian_filter(grey, rng.uniform(0.3, max(0.8, max(grey.shape) / 1500)))
    grain = rng.standard_normal(grey.shape, np.float32) * rng.uniform(0.005, 0.04)
    return as_image(grey + grain)


def uneven_light(shape, rng):
    """Return the brightness of paper, float32 of a shape: a slope and a bend."""
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in shape)
    slope = rng.uniform(-0.12, 0.12, 2)
    bend = rng.uniform(-0.06, 0.06, 2)
    light = np.add.outer(slope[0] * y + bend[0] * y**2, slope[1] * x + bend[1] * x**2)
    return rng.uniform(0.72, 0.85) + light


def lit(ink, rng):
    """Return dark ink on unevenly lit paper: grey from 0 to 1."""
    return uneven_light(ink.shape, rng) * (1 - rng.uniform(0.4, 0.8) * ink)


def draw_box(ink, left, top, width, height, pen, strength):
    """Draw the outline of a box into ink; its sides are pen pixels wide."""
    left, top, right, bottom = (round(edge) for edge in (left, top, left + width, top + height))
    for place in np.s_[top : top + pen, bottom : bottom + pen]:
        ink[place, left : right + pen] = np.maximum(ink[place, left : right + pen], strength)
    for place in np.s_[left : left + pen, right : right + pen]:
        ink[top:bottom, place] = np.maximum(ink[top:bottom, place], strength)


def draw_form(rng):
    """Return grey from 0 to 1: rows of boxes, most with a digit in them, and the rows' text.

    Boxes stand apart or side by side; digits may touch their boxes.
    """
    images, labels = handwriting("mnist")
    height, pen, strength = rng.uniform(24, 110), rng.uniform(1, 4), rng.uniform(0.4, 1)
    width, apart = height * rng.uniform(1, 1.6), rng.choice([0, rng.uniform(0.15, 0.6)])
    pitch, room = width + apart * height, height * rng.uniform(1.15, 1.7)
    counts = rng.integers(3, 11, size=rng.integers(1, 5))
    shape = round((1.5 * len(counts) + 0.7) * room), round(pitch * (max(counts) + 1))
    ink, text = np.zeros(shape, np.float32), []
    slant, stroke = rng.uniform(-0.1, 0.3), rng.uniform(-0.02, 0.03)
    for row, count in enumerate(counts):
        word, top = "", (0.5 + 1.5 * row) * room
        for column in range(count):
            left = (0.5 + column) * pitch
            draw_box(ink, left, top, width, room, max(1, round(pen)), strength)
            if column > 1 and rng.random() < 0.15:
                continue  # an empty box
            which = rng.integers(len(labels))
            digit = write_digit(images[which], height * rng.uniform(0.7, 1.1), slant, stroke)
            spare = np.subtract((room, width), digit.shape)
            place = (top, left) + spare * rng.uniform(0.1, 0.9, 2)
            y, x = np.round(np.clip(place, 0, np.subtract(shape, digit.shape))).astype(int)
            lay(digit, ink, y, x)
            word += str(labels[which])
        text.append(word)
    return lit(ink, rng), text


def draw_scan(rng):
    """Return grey from 0 to 1: a page of A4, white, its digits 3 to 5 mm high, and its text."""
    dots = rng.uniform(150, 300) / 25.4  # a millimetre
    height = rng.choice([3, 4, 5]) * dots
    rows = rng.integers(3, 11, size=rng.integers(3, 20))
    ink, text = write_rows((round(297 * dots), round(210 * dots)), rows, height, "mnist", rng)
    return rng.uniform(0.9, 1) * (1 - rng.uniform(0.4, 0.9) * ink), text


def draw_strip(rng):
    """Return grey from 0 to 1: one row in a picture that is little higher, and its text."""
    height = rng.uniform(24, 120)
    shape = round(height * rng.uniform(1.4, 2)), round(height * rng.uniform(12, 60))
    ink, text = write_rows(shape, [rng.integers(4, 11)], height, "mnist", rng)
    return lit(ink, rng), text


def draw_touching(rng):
    """Return grey from 0 to 1: a row of 3 to 6 digits that touch or nearly do, and its text."""
    height = rng.uniform(30, 150)
    shape = round(3 * height), round(9 * height)
    gaps = (-0.06, 0.06)
    ink, text = write_rows(shape, [rng.integers(3, 7)], height, "mnist", rng, gaps)
    return lit(ink, rng), text


def draw_border(rng):
    """Return grey from 0 to 1: a digit that one to four sides of the picture touch, its text."""
    images, labels = handwriting("mnist")
    which = rng.integers(len(labels))
    height = rng.uniform(30, 200)
    digit = write_digit(images[which], height, rng.uniform(-0.1, 0.3), rng.uniform(-0.02, 0.03))
    margins = np.round(height * rng.uniform(0.05, 1, (2, 2)) * (rng.random((2, 2)) < 0.5))
    margins[rng.integers(2), rng.integers(2)] = 0
    ink = np.pad(digit, margins.astype(int))
    for _ in range(rng.integers(0, 3)):  # specks
        y, x = (rng.integers(side) for side in ink.shape)
        ink[y : y + 3, x : x + 3] = 1
    return lit(ink, rng), [str(labels[which])]


def draw_dim(rng):
    """Return grey from 0 to 1: plain, ruled or squared paper at 35 to 70 % of white, its text."""
    height, rows = rng.uniform(25, 350), rng.integers(1, 6, size=rng.integers(1, 4))
    across = (1.15 * max(rows) + rng.uniform(0.5, 2)) * height
    shape = round((1.65 * len(rows) + rng.uniform(0.5, 2)) * height), round(across)
    ink, text = write_rows(shape, rows, height, "mnist", rng)
    if rng.random() < 2 / 3:
        lines = rule(shape, max(shape) * rng.uniform(0.04, 0.2), rng)
        ink = np.maximum(ink, rng.uniform(0.3, 1) * lines)
    return rng.uniform(0.45, 0.85) * lit(ink, rng), text


def thin(mask):
    """Return a mask's skeleton, bool, one pixel wide (Zhang and Suen, 1984)."""
    mask, removed = np.pad(mask, 1), True
    while removed:
        removed = False
        for step in range(2):
            # The eight neighbours, clockwise from above.
            moves = [(1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1)]
            around = np.stack([np.roll(mask, move, (0, 1)) for move in moves])
            changes = (~around & np.roll(around, -1, axis=0)).sum(axis=0)
            north, east, south, west = around[::2]
            open_side = ~(east & south & (north | west) if step else west & north & (east | south))
            open_side &= ~(north & south & (east | west) if step else west & east & (north | south))
            edge = mask & (changes == 1) & open_side
            edge &= (around.sum(axis=0) >= 2) & (around.sum(axis=0) <= 6)
            mask, removed = mask & ~edge, removed or edge.any()
    return mask[1:-1, 1:-1]


HOLES = [1, 0, 0, 0, 0, 0, 1, 0, 2, 1]  # of each digit


def trace_digit(ink, height, pen):
    """Return a digit of MNIST as a line of pen pixels along the middle of its strokes, a mask."""
    side = 120
    ink = ink[np.ix_(ink.any(axis=1), ink.any(axis=0))]
    size = [max(round(length * side / 20), 2) for length in ink.shape[::-1]]
    big = np.asarray(Image.fromarray(np.float32(ink)).resize(size, Image.Resampling.BICUBIC))
    points = np.argwhere(thin(np.pad(big > 0.4, 4)))
    tree = KDTree(points)
    # Averages over some pixels of the line make it smooth.
    smooth = np.stack([points[near].mean(axis=0) for near in tree.query_ball_point(points, 6)])
    smooth = smooth * height / side + 3
    image = Image.new("1", [int(length) + 4 for length in smooth.max(axis=0)[::-1]])
    for first, second in tree.query_pairs(1.5):
        ends = [tuple(smooth[end, ::-1]) for end in (first, second)]
        ImageDraw.Draw(image).line(ends, fill=1, width=pen)
    mask = np.asarray(image)
    return mask[np.ix_(mask.any(axis=1), mask.any(axis=0))]


def draw_fine(rng):
    """Return grey from 0 to 1: a row of digits of thin lines on clean ground, and its text."""
    images, labels = handwriting("mnist")
    height, pen = rng.uniform(60, 230), int(rng.integers(1, 3))
    ink, text, left = np.zeros((round(2 * height), round(6 * height))), "", 0.4 * height
    for _ in range(rng.integers(1, 5)):
        digit, which = None, 0
        while digit is None or ndimage.label(~np.pad(digit, 1))[1] - 1 != HOLES[labels[which]]:
            which = rng.integers(len(labels))  # thin lines may not close a 9, or cross in a 2
            digit = trace_digit(images[which], height * rng.uniform(0.85, 1.15), pen)
        lay(digit, ink, round(height - digit.shape[0] / 2), round(left))
        text += str(labels[which])
        left += digit.shape[1] + rng.uniform(0.2, 0.5) * height
    if rng.random() < 0.5:  # a pen; else a paint program
        ink = ndimage.gaussian_filter(ink, 0.5)
    return rng.uniform(0.9, 1) * (1 - rng.uniform(0.6, 1) * ink), [text]


def draw_tall(rng):
    """Return grey from 0 to 1: a digit from the top of the picture to its bottom, and its text."""
    images, labels = handwriting("mnist")
    which = rng.integers(len(labels))
    height = 100 * 13 ** rng.random()
    digit = write_digit(images[which], height, rng.uniform(-0.1, 0.3), rng.uniform(-0.02, 0.03))
    above, below = np.round(digit.shape[0] * rng.uniform(0.01, 0.04, 2)).astype(int)
    beside = np.round(digit.shape[0] * rng.uniform(0.05, 0.5, 2)).astype(int)
    ink = np.pad(digit, ((above, below), beside))
    return lit(ink, rng), [str(labels[which])]


def draw_turned(rng):
    """Return grey from 0 to 1: close rows, turned by up to 7 degrees, and their text."""
    images, labels = handwriting("mnist")
    height, apart = rng.uniform(30, 90), rng.uniform(1.45, 1.8)
    rows = rng.integers(4, 10, size=rng.integers(2, 5))
    shape = round((apart * len(rows) + 2.5) * height), round((1.1 * max(rows) + 2) * height)
    ink, text = np.zeros(shape, np.float32), []
    for number, length in enumerate(rows):
        word, left = "", height
        for _ in range(length):
            which = rng.integers(len(labels))
            size = height * rng.uniform(0.85, 1.15)
            digit = write_digit(images[which], size, rng.uniform(-0.1, 0.2), 0)
            middle = (1.75 + apart * number + rng.uniform(-0.08, 0.08)) * height
            lay(digit, ink, round(middle - digit.shape[0] / 2), round(left))
            word += str(labels[which])
            left += digit.shape[1] + rng.uniform(0.15, 0.4) * height
        text.append(word)
    angle = rng.uniform(-7, 7)
    turned = Image.fromarray(ink).rotate(angle, Image.Resampling.BICUBIC, expand=True)
    return lit(np.clip(np.asarray(turned), 0, 1), rng), text


def draw_uneven(rng):
    """Return grey from 0 to 1: a row with a tall 7 or 9, or a small last digit, and its text."""
    images, labels = handwriting("mnist")
    height, count = rng.uniform(30, 120), rng.integers(3, 8)
    sizes = height * rng.uniform(0.85, 1.15, count)
    whiches = rng.integers(len(labels), size=count)
    if rng.random() < 0.6:
        place = rng.integers(count)
        whiches[place] = rng.choice(np.flatnonzero(np.isin(labels, (7, 9))))
        sizes[place] = height * rng.uniform(1.6, 2.1)  # its head stays where it is, its tail hangs
    if rng.random() < 0.6:
        upright = [image.any(axis=1).sum() > 18 for image in images[:500]]
        whiches[-1] = rng.choice(np.flatnonzero(upright))
        sizes[-1] = height * rng.uniform(0.5, 0.7)
    shape = round(3.5 * height), round((1.4 * count + 2) * height)
    ink, left = np.zeros(shape, np.float32), height
    for which, size in zip(whiches, sizes, strict=True):
        digit = write_digit(images[which], size, rng.uniform(-0.1, 0.2), rng.uniform(-0.02, 0.03))
        # Small digits stand on the line or hang from its top; tall ones reach below it.
        top = round((0.7 + rng.uniform(0, 0.1)) * height + rng.random() * max(0, height - size))
        lay(digit, ink, top, round(left))
        left += digit.shape[1] + rng.uniform(0.15, 0.45) * height
    return lit(ink, rng), ["".join(map(str, labels[whiches]))]


def write_number(ink, left, middle, height, count, rng):
    """Write a number of count digits into ink, in place; return its text."""
    images, labels = handwriting("mnist")
    text = ""
    for _ in range(count):
        which = rng.integers(len(labels))
        size = height * rng.uniform(0.85, 1.15)
        digit = write_digit(images[which], size, rng.uniform(-0.1, 0.2), rng.uniform(-0.02, 0.03))
        lay(digit, ink, round(middle - digit.shape[0] / 2), round(left))
        text += str(labels[which])
        left += digit.shape[1] + rng.uniform(0.1, 0.4) * height
    return text


def draw_columns(rng):
    """Return grey from 0 to 1: numbers of 1 to 3 digits in columns, and their text."""
    height, columns, rows = rng.uniform(25, 90), rng.integers(2, 4), rng.integers(1, 5)
    pitch = rng.uniform(6, 8) * height  # of which a number of 3 wide digits takes 4.3
    shape = round((1.65 * rows + 1) * height), round(columns * pitch)
    ink, text = np.zeros(shape, np.float32), []
    for row in range(rows):
        middle, numbers = (1.3 + 1.65 * row) * height, []
        for column in range(columns):
            left = 0.7 * height + column * pitch
            numbers.append(write_number(ink, left, middle, height, rng.integers(1, 4), rng))
        text.append(" ".join(numbers))
    return lit(ink, rng), text


def draw_sizes(rng):
    """Return grey from 0 to 1: rows below a heading, or a number over a stamp, and their text."""
    if rng.random() < 0.5:
        heights, counts = [rng.uniform(25, 60)] * rng.integers(2, 4), [rng.integers(4, 9)]
        heights[0] *= rng.uniform(2.6, 3.4)
    else:
        heights, counts = [rng.uniform(50, 110)] * 2, [rng.integers(6, 9)]
        heights[1] *= rng.uniform(0.4, 0.5)
    counts = [rng.integers(1, 4), *counts * (len(heights) - 1)]
    shape = round(1.6 * sum(heights)), round(5 * max(heights) + 9 * min(heights))
    ink, text, top = np.zeros(shape, np.float32), [], 0
    for height, count in zip(heights, counts, strict=True):
        text.append(write_number(ink, 0.5 * heights[0], top + 0.8 * height, height, count, rng))
        top += 1.6 * height
    return lit(ink, rng), text


def lay_down_tool(grey, rng):
    """Return grey from 0 to 1 with a pen, a ruler or a tool on it, which casts a soft shadow."""
    y, x = np.ogrid[: grey.shape[0], : grey.shape[1]]
    side, angle = min(grey.shape), rng.uniform(0, np.pi)
    down, right = (rng.uniform(0, 1, 2) * grey.shape)[:, np.newaxis, np.newaxis]
    along = np.cos(angle) * (x - right) + np.sin(angle) * (y - down)
    across = np.cos(angle) * (y - down) - np.sin(angle) * (x - right)
    length, width = side * rng.uniform(0.25, 0.8), side * rng.uniform(0.015, 0.06)

    def covered(shift, soft):
        ends = np.clip((length - abs(along)) / soft, 0, 1)
        return ends * np.clip((width - abs(across - shift)) / soft, 0, 1)

    grey = grey * (1 - rng.uniform(0.1, 0.4) * covered(rng.uniform(-0.5, 0.5) * width, 0.5 * width))
    tone = np.full_like(grey, rng.uniform(0.1, 0.9))
    for _ in range(rng.integers(1, 4)):  # caps, grips, marks
        start = rng.uniform(-1, 0.8) * length
        part = (along > start) & (along < start + rng.uniform(0.05, 0.6) * length)
        tone[part] = rng.uniform(0.1, 0.9)
    tone = tone + rng.uniform(0.1, 0.4) * np.exp(
        -(((across / width - rng.uniform(-0.6, 0.6)) / 0.2) ** 2)
    )
    body = covered(0, rng.uniform(1, 3))
    return grey * (1 - body) + np.clip(tone, 0, 1) * body


def draw_things(seed):
    """Return a grey Pillow image on which nothing is written: a margin line, tools, or a stack."""
    rng = np.random.default_rng([seed, *b"things"])
    area, ratio = 5e4 * 60 ** rng.random(), rng.choice([3 / 4, 1, 4 / 3, 16 / 9])
    shape = (round((area / ratio) ** 0.5), round((area * ratio) ** 0.5))
    y, x = np.ogrid[: shape[0], : shape[1]]
    grey, side = uneven_light(shape, rng), min(shape)
    kind = rng.integers(3)
    if kind == 0:  # ruled or squared paper with a margin line
        grey = grey * (1 - rng.uniform(0.2, 0.6) * rule(shape, side * rng.uniform(0.05, 0.2), rng))
        place = shape[1] * rng.choice([rng.uniform(0.05, 0.25), rng.uniform(0.75, 0.95)])
        slant, width = rng.uniform(-0.03, 0.03), max(1, side * rng.uniform(0.002, 0.01))
        line = np.clip(width / 2 + 0.5 - abs(x + slant * y - place), 0, 1)
        grey = grey * (1 - rng.uniform(0.2, 0.7) * line)
    elif kind == 1:
        for _ in range(rng.integers(4, 11)):
            grey = lay_down_tool(grey, rng)
    else:  # a stack of paper: sheets that lie on one another, a little turned
        for _ in range(rng.integers(3, 9)):
            angle = rng.uniform(-0.1, 0.1) + rng.choice([0, np.pi / 2])
            across = np.cos(angle) * y + np.sin(angle) * x
            edge = across - rng.uniform(0.1, 0.9) * across.max()
            width = side * rng.uniform(0.003, 0.03)
            shade = rng.uniform(0.05, 0.35) * np.exp(-np.maximum(edge, 0) / width) * (edge > -1)
            grey = grey * (1 - shade)
    return photograph(grey, rng)


def draw_blank(seed):
    """Return a sheet, a grey Pillow image, on which nothing is written."""
    rng = np.random.default_rng([seed, *b"blank"])
    area, ratio = 5e4 * 60 ** rng.random(), rng.choice([3 / 4, 1, 4 / 3, 16 / 9])
    shape = (round((area / ratio) ** 0.5), round((area * ratio) ** 0.5))
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    grey, side = uneven_light(shape, rng), min(shape)
    # Across a fold or the edge of a shade, -1 to 1.
    angle = rng.uniform(0, 2 * np.pi)
    across = np.cos(angle) * x + np.sin(angle) * y - rng.uniform(-0.5, 0.5)
    kind = rng.integers(8)
    if kind == 0:  # the lens
        grey = grey - rng.uniform(0.02, 0.2) * (x**2 + y**2)
    elif kind == 1:  # a lamp
        spot = (x - rng.uniform(-1, 1)) ** 2 + (y - rng.uniform(-1, 1)) ** 2
        grey = grey + rng.uniform(-0.2, 0.2) * np.exp(-spot / rng.uniform(0.1, 1))
    elif kind == 2:  # a fold
        width = rng.uniform(0.005, 0.1)
        grey = grey - rng.uniform(0.01, 0.08) * np.exp(-((across / width) ** 2))
    elif kind == 3:  # a shadow with a soft edge
        grey = grey * (1 - rng.uniform(0.1, 0.5) / (1 + np.exp(-across / rng.uniform(0.005, 0.2))))
    elif kind == 4:  # ruled or squared paper
        grey = grey * (1 - rng.uniform(0.2, 0.6) * rule(shape, side * rng.uniform(0.05, 0.2), rng))
    elif kind == 5:  # the edge of the paper
        grey = np.where(across < 0.3, grey, rng.uniform(0.1, 0.5))
    elif kind == 6:  # a row of empty boxes
        ink, room = np.zeros(shape, np.float32), side * rng.uniform(0.1, 0.3)
        pen, strength = max(1, round(room * rng.uniform(0.02, 0.06))), rng.uniform(0.4, 1)
        for column in range(int(0.8 * shape[1] / (1.3 * room))):
            draw_box(ink, (0.3 + 1.3 * column) * room, 0.3 * side, room, 1.2 * room, pen, strength)
        grey = grey * (1 - rng.uniform(0.4, 0.8) * ink)
    else:  # the paper's own texture, of some pixels
        texture = ndimage.gaussian_filter(rng.standard_normal(shape), rng.uniform(1, 8))
        grey = grey + rng.uniform(0.005, 0.02) * texture / texture.std()
    return photograph(grey, rng)


DRAW = {  # the other kinds are drawn by draw_page itself
    "scan": draw_scan,
    "strip": draw_strip,
    "form": draw_form,
    "touching": draw_touching,
    "border": draw_border,
    "dim": draw_dim,
    "fine": draw_fine,
    "tall": draw_tall,
    "turned": draw_turned,
    "uneven": draw_uneven,
    "columns": draw_columns,
    "sizes": draw_sizes,
}


def draw_page(kind, seed):
    """Return a page of a kind of KINDS, a grey Pillow image, and its text, a list of rows."""
    rng = np.random.default_rng([seed, *kind.encode()])
    if kind in DRAW:
        grey, text = DRAW[kind](rng)
        return (as_image(grey) if kind == "fine" else photograph(grey, rng)), text
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


def blank_rows(model, first_seed=28000):
    """Return {name: share}: blank sheets on which no digit is read, or none without a doubt."""
    shares = {}
    for name, draw in (("blank sheets", draw_blank), ("margin lines, tools, stacks", draw_things)):
        none = doubtful = 0
        for seed in range(first_seed, first_seed + BLANK_SHEETS):
            try:
                digits = dr.read_digits(draw(seed), model).digits
            except dr.InputError:
                none += 1
                continue
            doubtful += max(digit.probability for digit in digits) < dr.CONFIDENT
        shares[f"{name} that give no digit"] = none / BLANK_SHEETS
        shares[f"{name} that give none without a question mark"] = (none + doubtful) / BLANK_SHEETS
    return shares


def read_rows(page, model):
    """Return the text of each row that is read on a page."""
    try:
        return dr.row_texts(dr.read_digits(page, model).rows)
    except dr.InputError:
        return []


def count_apart(rows, found):
    """Return how many of the numbers in rows of text are numbers of as many digits in found."""
    apart = 0
    for row, found_row in zip(rows, found, strict=False):
        pairs = zip(row.split(), found_row.split(), strict=False)
        apart += sum(len(number) == len(other) for number, other in pairs)
    return apart


def page_rows(model, first_seed=28000):
    """Return {name: share}: digits read right, in the right row and order, for each of KINDS.

    Wrong, missing and added digits and rows each cost one digit; spaces are shares of their own.
    """
    shares, apart, numbers, without_space, all_rows = {}, 0, 0, 0, 0
    for kind, (name, count) in KINDS.items():
        right = total = 0
        for seed in range(first_seed, first_seed + count):
            page, rows = draw_page(kind, seed)
            found = read_rows(page, model)
            text, found_text = ("\n".join(some).replace(" ", "") for some in (rows, found))
            wanted = len(text) - text.count("\n")
            total += wanted
            right += max(0, wanted - distance(text, found_text))
            if kind == "columns":
                apart += count_apart(rows, found)
                numbers += sum(len(row.split()) for row in rows)
            elif kind != "form":  # whose boxes may be far apart, or empty
                without_space += sum(" " not in row for row in found)
                all_rows += len(found)
        shares[name] = right / total
    shares["numbers in columns that are numbers of their own"] = apart / numbers
    shares["rows without a space, of all other pages but forms"] = without_space / all_rows
    return shares
