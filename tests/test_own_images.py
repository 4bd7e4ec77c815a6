"""Your own images: read whatever their size, polarity, place, format, lighting and company."""

import contextlib
import io
import itertools
import json
import os
import shutil
import sys
import time
import tracemalloc
import warnings
from pathlib import Path

import keras
import numpy as np
import pages
import pytest
from changes import share_predicted
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from sklearn.datasets import load_digits
from test_data import FUZZ_CASES

import digit_recognition as dr


def read(source, model):
    """The text that is read in an image: a newline between rows."""
    return "\n".join(dr.row_texts(dr.read_digits(source, model).rows))


def digits_in(source, model):
    """The digits in an image, row after row."""
    return dr.read_digits(source, model).digits


def enlarge(pixels, side):
    """A uint8 image (height, width) as float ink from 0 to 1, side pixels high and wide."""
    image = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32) / 255


def on_paper(ink, rng, noise=0.0, gradient=0.0, dark=True, contrast=0.6):
    """Ink on unevenly lit, grainy paper, as a Pillow image."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in ink.shape), indexing="ij")
    angle = rng.uniform(0, 2 * np.pi)
    page = (0.8 if dark else 0.2) + gradient * (np.cos(angle) * x + np.sin(angle) * y)
    page = page + (-contrast if dark else contrast) * ink + rng.normal(0, noise, ink.shape)
    return Image.fromarray(np.uint8(np.clip(page, 0, 1) * 255))


def row_of(images, gap=12):
    """Digits (28, 28) side by side with blank columns between their ink, as float ink."""
    parts = []
    for image in images:
        big = enlarge(image, 112)
        columns = np.flatnonzero(big.max(axis=0) > 0.2)
        parts += [big[:, columns[0] : columns[-1] + 1], np.zeros((112, gap), np.float32)]
    return np.pad(np.hstack(parts), 30)


def share_read(sources, labels, model):
    """The share of single-digit images that are read as their label."""
    right = 0
    for source, label in zip(sources, labels, strict=True):
        with contextlib.suppress(dr.InputError):
            right += read(source, model) == str(label)
    return right / len(labels)


def scikit_learn_digits(step=30):
    digits = load_digits()
    return np.uint8(digits.images * 255 / 16)[::step], digits.target[::step]


def test_digits_of_other_writers_are_read(model):
    images, labels = scikit_learn_digits()
    sources = [Image.fromarray(np.uint8(255 * enlarge(image, 96))) for image in images]
    assert share_read(sources, labels, model) > 0.9


def test_digits_of_other_writers_are_read_on_noisy_unevenly_lit_paper(model):
    images, labels = scikit_learn_digits()
    rng = np.random.default_rng(0)
    sources = [
        on_paper(
            np.pad(enlarge(i, 96), 20), rng, noise=0.06, gradient=0.15, dark=rng.random() < 0.7
        )
        for i in images
    ]
    assert share_read(sources, labels, model) > 0.9


@pytest.mark.parametrize(
    "change",
    [
        lambda image, rng: Image.fromarray(255 - image),
        lambda image, rng: Image.fromarray(np.uint8(255 * enlarge(image, 112))),
        lambda image, rng: on_paper(
            np.pad(enlarge(image, 60), ((6, 45), (50, 10))), rng, 0.04, 0.12
        ),
        lambda image, rng: on_paper(np.pad(enlarge(image, 60), 14), rng, 0.01, 0, True, 0.12),
        lambda image, rng: Image.fromarray(np.roll(image, 3, axis=1)),
    ],
    ids=["inverted", "enlarged", "pasted on paper", "faint pencil", "shifted"],
)
def test_mnist_digits_are_read_as_well_as_without_the_change(digits, model, change):
    rng, images, labels = np.random.default_rng(0), digits[0][:84], digits[1][:84]
    plain = share_predicted(images, labels, model)
    assert plain > 0.95
    assert share_read([change(image, rng) for image in images], labels, model) >= plain - 0.012


def test_an_image_in_mnist_form_is_read_as_well_as_by_the_network(digits, model):
    images, labels = digits[0][:84], digits[1][:84]
    plain = share_predicted(images, labels, model)
    assert share_read(map(Image.fromarray, images), labels, model) >= plain - 0.012


def test_the_form_is_that_of_mnist(digits):
    alike = []
    for image in digits[0][:50]:
        (part,), _ = dr.find_digits(Image.fromarray(np.uint8(255 * (1 - enlarge(image, 200)))))
        form = dr.to_mnist_form(part.ink)
        rows, columns = (np.flatnonzero(form.max(axis=axis) > 60) for axis in (1, 0))
        assert form.shape == (28, 28) and form.dtype == np.uint8 and form.max() > 240
        assert 19 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 20
        assert abs(form.sum(axis=1) @ np.arange(28) / form.sum() - 14) < 0.6
        assert abs(form.sum(axis=0) @ np.arange(28) / form.sum() - 14) < 0.6
        alike.append(np.corrcoef(form.ravel(), image.ravel())[0, 1])
    assert np.mean(alike) > 0.9


@pytest.mark.parametrize("style", ["DejaVu Sans", "DejaVu Serif"])
@pytest.mark.parametrize("size", [30, 120, 300])
def test_printed_digits_are_read(model, style, size):
    font = ImageFont.truetype(font_manager.findfont(style), size)
    right = 0
    for digit in range(10):
        image = Image.new("L", (2 * size, 2 * size), 235)
        ImageDraw.Draw(image).text((size // 2, size // 3), str(digit), 40, font)
        right += read(image, model) == str(digit)
    assert right >= 7


def test_several_digits_are_read_from_left_to_right(digits, model):
    rng = np.random.default_rng(0)
    right = 0
    for start in range(0, 50, 5):
        page = on_paper(row_of(digits[0][start : start + 5]), rng, 0.02, 0.1)
        right += read(page, model) == "".join(map(str, digits[1][start : start + 5]))
    assert right >= 8


def test_a_long_strip_is_not_too_small(digits, model):
    page = np.pad(row_of(digits[0][:5]), ((0, 0), (0, 3000)))
    strip = Image.fromarray(np.uint8(255 * (1 - page)))
    assert strip.width > 16 * strip.height and len(digits_in(strip, model)) == 5


def test_a_one_is_no_speck_and_specks_are_no_digits(digits, model):
    ones = digits[0][digits[1] == 1][:2]
    page = row_of([ones[0], digits[0][3], ones[1]])
    page[5:9, 5:9] = page[-8:-5, 100:104] = page[10:14, -9:-6] = 1
    assert len(digits_in(Image.fromarray(np.uint8(255 * (1 - page))), model)) == 3


@pytest.mark.parametrize("height", [1, 2, 3, 5])
def test_a_level_bar_alone_is_no_digit(model, height):
    page = np.full((200, 300), 240, np.uint8)
    page[100 : 100 + height, 100:140] = 40
    with pytest.raises(dr.InputError, match="no digit stands out"):
        dr.read_digits(page, model)


@pytest.mark.parametrize(("width", "height"), [(1, 60), (1, 100), (2, 90), (2, 110)])
def test_a_thin_bar_beside_digits_is_no_error(model, width, height):
    page = Image.new("L", (400, 200), 255)
    for left in (60, 280):
        ImageDraw.Draw(page).ellipse((left, 55, left + 60, 145), outline=0, width=10)
    ImageDraw.Draw(page).rectangle((200, 45, 199 + width, 44 + height), fill=0)
    digits = read(page, model).replace(" ", "")
    assert digits[0] + digits[-1] == "00" and digits[1:-1] in ("", "1")


def test_a_picture_a_pixel_high_is_one_line_and_no_warning(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(dr.InputError, match="no digit stands out"):
            dr.read_digits(np.full((1, 200), 200, np.uint8), model)


def test_dirt_far_above_a_digit_does_not_hide_it(digits, model):
    page = np.pad(enlarge(digits[0][0], 112), ((200, 20), (20, 20)))
    clean = digits_in(Image.fromarray(np.uint8(255 * (1 - page))), model)
    page[10:18, 70:78] = 1
    dirty = digits_in(Image.fromarray(np.uint8(255 * (1 - page))), model)
    assert len(clean) == len(dirty) == 1
    # Rounding may move it by a pixel.
    moves = itertools.product((-1, 0, 1), repeat=2)
    moved = [np.roll(dirty[0].image, move, (0, 1)).astype(int) for move in moves]
    assert min(np.abs(image - clean[0].image).mean() for image in moved) < 3


def test_a_broken_stroke_is_one_digit(digits, model):
    for image in digits[0][digits[1] == 0][:5]:
        page = np.pad(enlarge(image, 112), 20)
        page[:, 75:78] = 0
        assert len(digits_in(Image.fromarray(np.uint8(255 * (1 - page))), model)) == 1


@pytest.mark.parametrize("width", [1, 25])
def test_thin_pencil_and_thick_marker_are_kept(width, model):
    image = Image.new("L", (200, 300), 250)
    ImageDraw.Draw(image).line([(60, 60), (140, 60), (90, 240)], fill=90, width=width)
    (digit,) = digits_in(image, model)
    written = digit.image > 60
    assert 30 < written.sum() < 160 and written.any(axis=1).sum() >= 18
    assert digit.label == 7 and digit.probability >= dr.CONFIDENT


@pytest.mark.parametrize("extension", ["png", "jpg", "bmp", "gif", "tiff", "webp"])
@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_every_format_and_mode_is_read(tmp_path, digits, model, extension, mode):
    page = np.uint8(255 * (1 - np.pad(enlarge(digits[0][0], 112), 30)))
    path = tmp_path / f"ünï côde 7.{extension}"
    mode = "L" if mode == "P" and extension in ("jpg", "webp") else mode
    Image.fromarray(page).convert(mode).save(path)
    assert read(path, model) == "7"


def test_depth_transparency_colour_models_and_rotation_are_understood(tmp_path, digits, model):
    ink = np.pad(enlarge(digits[0][0], 112), 30)
    page = Image.fromarray(np.uint8(255 * (1 - ink)))
    clear = Image.new("RGBA", page.size, (0, 0, 0, 0))
    clear.putalpha(Image.fromarray(np.uint8(255 * ink)))
    clear.save(tmp_path / "clear.png")
    deep = np.uint16(60000 - 50000 * ink)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    big_endian = Image.frombytes("I;16B", page.size, deep.astype(">u2").tobytes())
    big_endian.save(tmp_path / "deep.tif")
    page.convert("CMYK").save(tmp_path / "cmyk.jpg")
    turned = page.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    for path in sorted(tmp_path.iterdir()):
        assert read(path, model) == "7", path
    assert read(np.asarray(page), model) == "7"
    assert read(page, model) == "7"


def test_a_50_megapixel_photo_is_read_in_seconds(tmp_path, digits, model):
    page = Image.fromarray(np.uint8(255 * (1 - np.pad(enlarge(digits[0][0], 500), 400))))
    page.resize((7100, 7100)).save(tmp_path / "photo.jpg")
    start = time.perf_counter()
    assert read(tmp_path / "photo.jpg", model) == "7"
    assert time.perf_counter() - start < 10


def test_eight_by_eight_pixels_are_enough(model):
    images, labels = scikit_learn_digits()
    assert share_read([Image.fromarray(image) for image in images], labels, model) >= 0.9


def stroke(*lines, width=12, size=(400, 300)):
    """A Pillow image, black on white, of lines through points."""
    image = Image.new("L", size, 250)
    for line in lines:
        ImageDraw.Draw(image).line(line, fill=40, width=width, joint="curve")
    return image


def write_page(digits, rows, side=112, margin=60):
    """Rows of places among MNIST's test images as a page of float ink, and its text."""
    images, labels = digits
    lines = [row_of(images[row], gap=24) for row in rows]
    width = max(line.shape[1] for line in lines)
    ink = np.vstack([np.pad(line, ((0, 0), (0, width - line.shape[1]))) for line in lines])
    return np.pad(ink, margin), "\n".join("".join(map(str, labels[row])) for row in rows)


ROWS = [[0, 1, 2, 3, 4], [10, 11], [13, 14, 17, 19]]


def test_rows_are_read_from_top_to_bottom_with_a_box_for_each_digit(digits, model):
    ink, text = write_page(digits, ROWS)
    page = on_paper(ink, np.random.default_rng(0), 0.02, 0.1)
    assert read(page, model) == text
    boxes = [digit.box for digit in digits_in(page, model)]
    assert len(boxes) == 11
    for left, top, width, height in boxes:
        inside = ink[top : top + height, left : left + width]
        assert inside.max() > 0.9 and 40 < height < 110
    covered = sum(ink[y : y + h, x : x + w].sum() for x, y, w, h in boxes)
    assert covered > 0.97 * ink.sum()


def test_boxes_are_in_pixels_of_the_upright_original(digits, model, tmp_path):
    ink, _ = write_page(digits, [[0]])
    page = on_paper(ink, np.random.default_rng(0), 0.01)
    exif = Image.Exif()
    exif[0x0112] = 6
    large = page.resize([4 * side for side in page.size])
    large.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif)
    # A digit may be found in a small copy, where it has 20 pixels: boxes are as exact as that.
    small = np.array(digits_in(page, model)[0].box)
    (digit,) = digits_in(tmp_path / "turned.jpg", model)
    assert np.abs(np.array(digit.box) - 4 * small).max() < 24
    opened = Image.open(tmp_path / "turned.jpg")
    first, again = (digits_in(opened, model)[0].box for _ in range(2))
    assert np.abs(np.array(first) - 4 * small).max() < 24 and first == again


def test_rows_and_boxes_are_on_the_command_line(main, digits, network, tmp_path):
    ink, text = write_page(digits, ROWS)
    on_paper(ink, np.random.default_rng(0), 0.01).save(tmp_path / "sheet.png")
    options = ["--predict", tmp_path / "sheet.png", "--model", network, "--output-dir", tmp_path]
    _, out, _ = main(*options)
    assert out.partition(": ")[2].partition("  (")[0].replace("?", "") == text.replace("\n", " / ")
    _, out, _ = main(*options, "--json")
    found = json.loads(out)
    assert found["digits"] == text and len(found["boxes"]) == 11
    assert all(
        len(box) == 4 and all(isinstance(side, int) for side in box) for box in found["boxes"]
    )


@pytest.mark.parametrize("tilt", [0, 1.5])
@pytest.mark.parametrize("darkness", [0.4, 1])
@pytest.mark.parametrize("squared", [False, True])
def test_lines_of_the_paper_are_no_digits(digits, model, squared, darkness, tilt):
    ink, text = write_page(digits, ROWS)
    lines = Image.new("L", ink.shape[::-1], 0)
    pen = ImageDraw.Draw(lines)
    for place in range(-380, 1200, 70):
        pen.line((-400, place, 1600, place), fill=255, width=3)
        if squared:
            pen.line((place, -400, place, 1600), fill=255, width=3)
    lines = np.asarray(lines.rotate(tilt, Image.Resampling.BICUBIC)) / 255 * darkness
    page = on_paper(np.maximum(ink, lines), np.random.default_rng(0), 0.02, 0.1)
    # One digit may be wrong: two characters if it is alone in a row.
    assert pages.distance(text, read(page, model)) <= 2


@pytest.mark.parametrize(
    ("picture", "count"),
    [
        (stroke((100, 60, 80, 150, 150, 150), (170, 80, 165, 250)), 1),
        (stroke((120, 80, 115, 140, 180, 160, 180, 230, 100, 240), (135, 66, 200, 60)), 1),
        (stroke((60, 50, 60, 250), (200, 50, 200, 120), (200, 135, 200, 250)), 2),
        (stroke((150, 50, 150, 250), (185, 55, 185, 245)), 2),
        (stroke((130, 60, 230, 60, 130, 250), (242, 110, 230, 250)), 2),
        (stroke((60, 60, 60, 240), (300, 60, 300, 240), (180, 80, 182, 82)), 2),
    ],
    ids=["open 4", "bar of a 5", "1 beside a broken 1", "two ones", "7 over a 1", "speck"],
)
def test_strokes_are_joined_to_digits_as_people_write_them(picture, count, model):
    assert len(digits_in(picture, model)) == count


@pytest.mark.parametrize("kind", ["table", "shadow"])
def test_a_table_or_a_shadow_is_no_digit(digits, model, kind):
    ink, text = write_page(digits, ROWS, margin=200)
    grey = np.asarray(on_paper(ink, np.random.default_rng(0), 0.02), float)
    if kind == "table":
        grey[:120] = grey[:, -90:] = 60
    else:
        rows, columns = np.indices(grey.shape)
        grey[rows + 2 * columns > 1500] *= 0.55
    assert pages.distance(text, read(Image.fromarray(np.uint8(grey)), model)) <= 1


def test_a_few_digits_are_read_though_most_ink_is_the_edge_of_a_table(model):
    page, text = pages.draw_page("table", 1104)
    assert read(page, model) == "\n".join(text) == "291"


def test_a_page_of_print_or_texture_ends_soon(model):
    page = Image.new("L", (1600, 600), 240)
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 24)
    for row in range(10, 580, 32):
        ImageDraw.Draw(page).text((10, row), "The quick brown fox jumps over it. " * 4, 30, font)
    texture = np.random.default_rng(0).normal(0, 1, (600, 1600))
    texture = Image.fromarray(np.uint8(255 * (ndimage.gaussian_filter(texture, 6) > 0)))
    for picture in (page, texture):
        began = time.process_time()
        with contextlib.suppress(dr.InputError):
            assert not all(digit.probability >= dr.CONFIDENT for digit in digits_in(picture, model))
        assert time.process_time() - began < 3


def test_a_photo_of_12_megapixels_is_read_soon_in_little_memory(model, tmp_path):
    page, _ = pages.draw_page("plain", 1000)
    page.resize((4000, 3000)).save(tmp_path / "photo.jpg")
    tracemalloc.start()  # counts NumPy's arrays, not Pillow's 12 MB of pixels
    dr.read_digits(tmp_path / "photo.jpg", model)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300e6
    began = time.process_time()
    assert len(read(tmp_path / "photo.jpg", model)) > 20
    assert time.process_time() - began < 2


def test_pages_of_handwriting_are_read(model):
    for kind in ("plain", "lined"):
        page, rows = pages.draw_page(kind, 2)
        text = "\n".join(rows)
        found = read(page, model)
        assert pages.distance(text, found) <= 0.1 * len(text) + 1


def softly_lit(kind):
    """A blank sheet of paper, as a Pillow image: nothing is written on it."""
    y, x = np.meshgrid(np.linspace(-1, 1, 400), np.linspace(-1, 1, 600), indexing="ij")
    shade = {
        "vignette": -25 * (x**2 + y**2),
        "lamp": 40 * np.exp(-((x + 0.3) ** 2 + (y + 0.4) ** 2)) - 30,
        "fold": -5 * np.exp(-((x - 0.1) ** 2) / 0.002),
    }[kind]
    grain = np.random.default_rng(0).normal(0, 2, x.shape)
    return Image.fromarray(np.uint8((225 + shade + grain).clip(0, 255)))


@pytest.mark.parametrize("kind", ["vignette", "lamp", "fold"])
def test_soft_shade_on_a_blank_sheet_is_no_digit(model, kind):
    with pytest.raises(dr.InputError, match="no digit stands out"):
        dr.read_digits(softly_lit(kind), model)


def test_digits_of_3_mm_on_a_scan_of_a4_are_read(digits, model):
    page = np.zeros((1754, 1240), np.float32)  # at 150 pixels an inch
    for place, image in enumerate(digits[0][:16]):
        row, column = divmod(place, 8)
        page[300 + 60 * row : 325 + 60 * row, 200 + 40 * column : 225 + 40 * column] = enlarge(
            image, 25
        )
    text = "".join(map(str, digits[1][:16]))
    found = read(on_paper(page, np.random.default_rng(0), 0.01), model).replace(" ", "")
    assert pages.distance(f"{text[:8]}\n{text[8:]}", found) <= 1


@pytest.mark.parametrize(("kind", "share"), [("form", 0.85), ("touching", 0.7), ("strip", 0.85)])
def test_forms_strips_and_touching_digits_are_read(model, kind, share):
    right = total = 0
    for seed in range(6):
        page, rows = pages.draw_page(kind, seed)
        total += sum(map(len, rows))
        found = read(page, model).replace(" ", "")  # boxes may be far apart
        right += sum(map(len, rows)) - pages.distance("\n".join(rows), found)
    assert right >= share * total


def test_no_digit_between_others_is_dropped_where_digits_touch(digits, model):
    big = [enlarge(image, 112) for image in digits[0][:12]]
    parts = [image[:, np.flatnonzero(image.max(axis=0) > 0.2)] for image in big]
    for first in range(0, 12, 4):
        page = np.pad(np.hstack(parts[first : first + 4]), 60)
        found = digits_in(Image.fromarray(np.uint8(255 - 200 * page)), model)
        doubtful = [digit for digit in found if digit.probability < dr.CONFIDENT]
        assert len(found) == 4 or doubtful


@pytest.mark.parametrize("tilt", [0, 1])
@pytest.mark.parametrize("gap", [0, 20])
def test_a_row_of_empty_boxes_is_no_row_of_digits(model, gap, tilt):
    page = Image.new("L", (700, 300), 240)
    for left in range(60, 560, 80 + gap):
        ImageDraw.Draw(page).rectangle((left, 100, left + 80, 200), outline=90, width=3)
    with pytest.raises(dr.InputError, match="no digit stands out"):
        dr.read_digits(page.rotate(tilt, Image.Resampling.BILINEAR, fillcolor=240), model)


def test_a_digit_that_touches_the_border_does_not_lose_to_a_speck(digits, model):
    ink = enlarge(digits[0][1], 112)[10:, 10:]  # a 2, which is then cut at its foot
    ink = ink[: np.flatnonzero(ink.max(axis=1) > 0.5)[-1]]
    ink[6:10, 6:10] = 1
    assert read(Image.fromarray(np.uint8(240 - 200 * ink)), model) == "2"


def test_a_wide_digit_alone_is_not_cut_apart(model):
    page, text = pages.draw_page("border", 1002)
    assert read(page, model) == text[0]


@pytest.mark.parametrize("seed", [1038, 1051, 1055])
def test_the_edges_of_thick_strokes_are_no_digits(seed, model):
    page, text = pages.draw_page("tall", seed)
    assert len(digits_in(page, model)) == len(text[0]) == 1


def test_tight_crops_are_read_whole(digits, model):
    for image, label in zip(digits[0][2:8], digits[1][2:8], strict=True):
        ink = enlarge(image, 56)
        rows, columns = (np.flatnonzero(ink.max(axis=axis) > 0.3) for axis in (1, 0))
        tight = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert read(Image.fromarray(np.uint8(240 - 200 * tight)), model) == str(label)


def test_a_page_in_deep_shadow_is_read_as_its_dark_strokes(digits, model):
    ink, text = write_page(digits, ROWS, margin=200)
    light = np.where(np.arange(ink.shape[1]) < 0.2 * ink.shape[1], 220, 45)
    page = Image.fromarray(np.uint8(light * (1 - 0.7 * ink)))
    assert np.median(page) < 64
    assert pages.distance(text, read(page, model)) <= 2


def test_most_blank_sheets_give_no_digit(model):
    found = []
    for seed in range(7):
        with contextlib.suppress(dr.InputError):
            found.append(dr.read_digits(pages.draw_blank(seed), model))
    assert len(found) <= 1


@pytest.mark.parametrize("seed", [24292, 25225, 24368, 27364])
def test_the_edge_of_a_shade_and_the_grain_of_paper_are_no_digits(model, seed):
    with pytest.raises(dr.InputError):
        dr.read_digits(pages.draw_blank(seed), model)


@pytest.mark.parametrize("seed", [19128, 20090, 20113])
def test_a_line_among_lines_is_no_1(model, seed):
    with pytest.raises(dr.InputError):
        dr.read_digits(pages.draw_things(seed), model)


def test_the_sides_of_boxes_are_no_1s(model):
    page, text = pages.draw_page("form", 21184)
    assert pages.distance("\n".join(text), read(page, model).replace(" ", "")) <= 2


@pytest.mark.parametrize("color", [0, 255])
def test_strokes_on_transparency_are_laid_on_what_they_stand_out_from(digits, model, color):
    ink = np.pad(enlarge(digits[0][0], 112), 30)
    drawing = Image.new("LA", ink.shape[::-1], color)
    drawing.putalpha(Image.fromarray(np.uint8(255 * ink)))
    assert read(drawing, model) == "7"


def test_the_bar_of_a_large_4_is_no_line_of_the_paper(model):
    page = stroke((620, 150, 400, 480, 800, 470), (640, 400, 632, 690), size=(1500, 800))
    assert read(page, model) == "4"


BAD_IMAGES = {
    "text.png": lambda p: p.write_text("no image"),
    "empty.png": lambda p: p.write_bytes(b""),
    "page.png": lambda p: Image.new("L", (300, 200), 250).save(p),
    "black.png": lambda p: Image.new("RGB", (28, 28)).save(p),
    "noise.png": lambda p: Image.fromarray(
        np.uint8(np.random.default_rng(0).normal(128, 20, (200, 200)))
    ).save(p),
    "dot.png": lambda p: Image.new("L", (1, 1)).save(p),
    "crumb.png": lambda p: Image.fromarray(np.uint8([[250, 9, 250]] * 3)).save(p),
    "thread.png": lambda p: Image.new("L", (1600, 2), 250).save(p),
    "bomb.png": lambda p: Image.new("1", (14000, 14000)).save(p),
    "folder": lambda p: p.mkdir(),
    "missing.png": lambda p: None,
}


@pytest.fixture(scope="module")
def bad_images(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("bad images")
    for name, make in BAD_IMAGES.items():
        make(folder / name)
    page = Image.fromarray(np.uint8(255 * (1 - np.pad(enlarge(digits[0][0], 112), 30))))
    page.save(folder / "seven.png")
    page.save(folder / "cut.jpg")
    page.save(folder / "cut.tiff")
    (folder / "cut.tiff").write_bytes((folder / "cut.tiff").read_bytes()[:-40])
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:900])
    return folder


def test_each_bad_image_is_one_line_and_the_others_are_read(main, bad_images, network, tmp_path):
    bad, good = [bad_images / name for name in (*BAD_IMAGES, "cut.jpg")], bad_images / "seven.png"
    code, out, err = main("--predict", *bad, good, "--model", network, "--output-dir", tmp_path)
    assert code == 1 and "Traceback" not in err
    for path, line in zip(bad, err.splitlines(), strict=True):
        assert str(path) in line and (";" in line or "no such file, or a folder" in line)
    assert out.startswith(f"{good}: 7")
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.png"]


def test_many_bad_images_and_odd_names_on_a_console_of_another_encoding_are_a_line_each(
    run_as_program, bad_images, network, tmp_path, monkeypatch
):
    console = {name: io.TextIOWrapper(io.BytesIO(), "ascii") for name in ("stdout", "stderr")}
    console["stderr"].reconfigure(errors="backslashreplace")  # as Python has it
    for name, stream in console.items():
        monkeypatch.setattr(sys, name, stream)
    bad = [bad_images / name for name in [*BAD_IMAGES, "cut.jpg", "missing 数.png"]]
    shutil.copy(bad_images / "seven.png", tmp_path / "é 数字.png")
    good = [tmp_path / "é 数字.png", bad_images / "cut.tiff"]
    with contextlib.suppress(OSError):  # a file system may take names in UTF-8 only
        no_utf_8 = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff 7.png"))
        shutil.copy(bad_images / "seven.png", no_utf_8)
        good.insert(0, no_utf_8)
    options = ["--model", network, "--output-dir", tmp_path / "ü 数"]
    assert run_as_program("--predict", *bad, *good, *options) == 1
    for stream in console.values():
        stream.seek(0)
    read, errors = (stream.read().splitlines() for stream in console.values())
    assert [".png: 7  (7 " in line for line in read] == [True] * (len(good) - 1) + [False]
    assert len(errors) == 14 and all(line.startswith("digit_recognition.py: ") for line in errors)
    named = [path.name.partition(" ")[0] in line for path, line in zip(bad, errors, strict=False)]
    assert all(named) and len(named) == 13
    assert (tmp_path / "ü 数" / "predictions.png").exists()


def test_a_missing_a_wrong_and_an_unfit_model_file_are_one_line_each(main, tmp_path, small):
    (tmp_path / "text.keras").write_text("no model")
    other = keras.Sequential([keras.Input((32, 32, 1)), keras.layers.Flatten()])
    other.save(tmp_path / "other.keras")
    Image.fromarray(small["x_test"][0]).save(tmp_path / "seven.png")
    for name in ("missing.keras", "text.keras", "other.keras"):
        code, out, err = main(
            "--predict",
            tmp_path / "seven.png",
            "--model",
            tmp_path / name,
            "--output-dir",
            tmp_path,
        )
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert str(tmp_path / name) in err


def test_a_model_file_cannot_run_code(tmp_path):
    layers = [keras.Input((28, 28, 1)), keras.layers.Lambda(lambda x: x), keras.layers.Flatten()]
    keras.Sequential(layers).save(tmp_path / "code.keras")
    with pytest.raises(dr.InputError, match="code"):
        dr.load_model(tmp_path / "code.keras")


def test_the_command_line_prints_a_line_an_image_and_draws_a_picture(
    main, network, tmp_path, digits, monkeypatch
):
    folder = tmp_path / "my scans"
    folder.mkdir()
    page = row_of(digits[0][[0, 3]])
    Image.fromarray(np.uint8(255 * (1 - page))).save(folder / "two$_$.PNG")
    (folder / "notes.txt").write_text("no image")
    monkeypatch.chdir(tmp_path)
    code, out, err = main("--predict", "my scans", "--output-dir", "out", "--model", network)
    assert (code, out.count("\n")) == (1, 2)
    assert err.count("\n") == 1 and f"{Path('my scans', 'notes.txt')}: " in err
    assert out.endswith(f"See {Path('out', 'predictions.png')} (the first 20 pictures at most)\n")
    assert out.startswith(f"{Path('my scans', 'two$_$.PNG')}: 70  (7 ") and " %, 0 " in out
    with Image.open(tmp_path / "out" / "predictions.png") as picture:
        picture.load()


def test_json_is_one_object_a_line(main, network, tmp_path, digits):
    Image.fromarray(digits[0][0]).save(tmp_path / "a.png")
    scribble = Image.new("L", (99, 99), 255)
    ImageDraw.Draw(scribble).line((30, 30, 70, 40, 30, 70, 70, 80), fill=0, width=6)
    scribble.save(tmp_path / "b.png")
    _, out, _ = main(
        "--predict", tmp_path, "--json", "--model", network, "--output-dir", tmp_path / "o"
    )
    first, second = (json.loads(line) for line in out.splitlines())
    assert first["file"] == str(tmp_path / "a.png") and first["digits"] == "7"
    assert first["confident"] is True and 0.8 < first["probabilities"][0] <= 1
    assert set(second) == {"file", "digits", "probabilities", "confident", "boxes"}
    (left, top, width, height), *_ = second["boxes"]
    assert abs(left - 27) < 5 and abs(top - 27) < 5 and abs(width - 46) < 9 and abs(height - 56) < 9


def a_digit(label, probability, classes, left=5, top=5):
    probabilities = np.full(classes, (1 - probability) / (classes - 1))
    probabilities[label] = probability
    image = np.zeros((28, 28), np.uint8)
    return dr.Digit(label, probability, probabilities, (left, top, 20, 30), image, False)


def a_reading(*rows):
    """A Reading of rows of digits, in an empty picture."""
    digits = [digit for row in rows for digit in row]
    return dr.Reading(rows, digits, Image.new("L", (90, 60)), 1)


def test_spaces_separate_labels_of_two_figures_which_are_drawn_row_by_row(tmp_path):
    rows = [a_digit(12, 1, 47), a_digit(3, 1, 47, left=26)], [a_digit(40, 1, 47, top=50)]
    line = dr.describe("a.png", a_reading(*rows), None, as_json=False)
    assert line == "a.png: 12 3 / 40  (12 100.0 %, 3 100.0 %, 40 100.0 %)"
    found = json.loads(dr.describe("a.png", a_reading(*rows), None, as_json=True))
    assert found["digits"] == "12 3\n40" and found["confident"] is True
    figure = dr.plot_readings([(tmp_path / "a.png", a_reading(*rows))])
    assert figure.axes[1].images[0].get_array().shape == (2 * 28, 2 * 28)


def test_a_doubtful_digit_is_marked():
    reading = a_reading([a_digit(7, 0.79996, 10), a_digit(1, 0.95, 10, left=26)])
    line = dr.describe("a.png", reading, None, as_json=False)
    assert line == "a.png: 7?1  (7 80.0 %, 1 95.0 %)"
    found = json.loads(dr.describe("a.png", reading, None, as_json=True))
    assert found["digits"] == "71" and found["confident"] is False


@pytest.mark.parametrize(("gap", "text"), [(12, "71"), (45, "71"), (46, "7 1")])
def test_a_gap_much_wider_than_a_digit_is_high_separates_numbers(gap, text):
    row = [a_digit(7, 0.99, 10, left=5), a_digit(1, 0.99, 10, left=25 + gap)]
    assert dr.row_texts([row]) == [text]


def write_on(page, digits, left, top, height, which):
    """Write MNIST's test images onto a page of float ink, side by side; return their text."""
    text = ""
    for place in which:
        big = enlarge(digits[0][place], height)
        columns = np.flatnonzero(big.max(axis=0) > 0.2)
        big = big[:, columns[0] : columns[-1] + 1]
        page[top : top + height, left : left + big.shape[1]] = big
        left += big.shape[1] + height // 6
        text += str(digits[1][place])
    return text


def test_numbers_that_stand_apart_are_read_apart(digits, model):
    page = np.zeros((300, 700), np.float32)
    first = write_on(page, digits, 30, 40, 70, [0, 1])
    second = write_on(page, digits, 450, 40, 70, [2, 3, 4])
    third = write_on(page, digits, 30, 170, 70, [13])
    fourth = write_on(page, digits, 450, 170, 70, [14, 17])
    paper = on_paper(page, np.random.default_rng(0), 0.01)
    assert read(paper, model) == f"{first} {second}\n{third} {fourth}"


@pytest.mark.parametrize(("height", "top"), [(150, 30), (34, 540)], ids=["heading", "stamp"])
def test_digits_of_two_sizes_are_read(digits, model, height, top):
    page = np.zeros((600, 800), np.float32)
    rows = [write_on(page, digits, 30, 250 + 100 * row, 56, range(10, 15)) for row in range(2)]
    other = write_on(page, digits, 30, top, height, [3, 1, 4])
    rows = [other, *rows] if top == 30 else [*rows, other]
    assert read(on_paper(page, np.random.default_rng(0), 0.01), model) == "\n".join(rows)


def test_circles_around_digits_are_no_0s(digits, model):
    page = Image.new("L", (620, 160), 235)
    ink, text = np.zeros((160, 620), np.float32), ""
    for place, left in enumerate((10, 160, 310, 460)):
        ImageDraw.Draw(page).ellipse((left, 10, left + 140, 150), outline=60, width=5)
        text += write_on(ink, digits, left + 45, 45, 70, [place])
    page = Image.fromarray(np.uint8(np.minimum(page, 235 - 180 * ink)))
    assert read(page, model).replace(" ", "") == text


def test_punched_holes_are_no_0s(digits, model):
    page = np.zeros((380, 520), np.float32)
    rows = [
        write_on(page, digits, 120, 60 + 130 * row, 80, range(4 * row, 4 * row + 3))
        for row in (0, 1)
    ]
    picture = on_paper(page, np.random.default_rng(0), 0.01)
    for middle in (100, 280):
        ImageDraw.Draw(picture).ellipse((20, middle - 22, 64, middle + 22), fill=50)
    assert read(picture, model) == "\n".join(rows)


def test_a_thick_1_from_top_to_bottom_is_read_but_not_a_margin_line(model):
    page = Image.new("L", (400, 600), 230)
    ImageDraw.Draw(page).rectangle((190, 0, 206, 600), fill=64)
    assert read(page, model) == "1"
    with pytest.raises(dr.InputError, match="no digit stands out"):
        read(page.crop((150, 0, 550, 600)).point(lambda grey: grey or 230), model)


def labelled_folders(folder, digits, labels):
    """Save a test image of each label in a folder named by it; return the folders."""
    images, true = digits
    for label in labels:
        (folder / label).mkdir(parents=True)
        Image.fromarray(images[true == int(label)][0]).save(folder / label / "photo.png")
    return [folder / label for label in labels]


def test_pictures_in_folders_named_by_labels_are_counted(main, digits, network, tmp_path):
    folders = labelled_folders(tmp_path / "mine", digits, ["0", "1", "2", "7"])
    (folders[0] / "photo.png").rename(folders[1] / "zero.png")  # so it is called a 1
    folders[0].rmdir()
    options = ["--model", network, "--output-dir", tmp_path]
    code, out, err = main("--predict", tmp_path / "mine", *options)
    *lines, _, last = out.splitlines()
    assert (code, err, last) == (0, "", "correct: 3 of 4 (75.0%)")
    assert [line.partition("  WRONG")[2] for line in lines] == ["", ", true 1", "", ""]
    _, out, _ = main("--predict", *folders[1:], *options, "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert [(line["digits"], line["true"]) for line in found] == [
        ("1", 1),
        ("0", 1),
        ("2", 2),
        ("7", 7),
    ]


def test_folders_of_other_names_have_no_labels(main, digits, network, tmp_path):
    (folder,) = labelled_folders(tmp_path, digits, "7")
    for name in ("scans", "10", "-1", "1.5", "03"):
        shutil.copytree(folder, tmp_path / "mine" / name)
    options = ["--model", network, "--output-dir", tmp_path / "output"]
    _, out, _ = main("--predict", tmp_path / "mine", *options)
    assert out.count(": 7") == 5 and "correct:" not in out and "WRONG" not in out
    _, out, _ = main("--predict", tmp_path / "mine", *options, "--json")
    assert not any("true" in json.loads(line) for line in out.splitlines())


def test_an_unreadable_picture_with_a_label_is_not_right(main, digits, network, tmp_path):
    (folder,) = labelled_folders(tmp_path, digits, "7")
    Image.new("L", (90, 60), 250).save(folder / "blank.png")
    options = ["--model", network, "--output-dir", tmp_path]
    code, out, err = main("--predict", folder, *options)
    assert code == 1 and err.count("\n") == 1
    assert out.splitlines()[-1] == "correct: 1 of 2 (50.0%)"
    _, out, _ = main("--predict", folder, tmp_path / "no label.png", *options)
    assert out.splitlines()[-1] == "correct: 1 of 2 (50.0%)"


@settings(max_examples=FUZZ_CASES, deadline=None)
@given(
    content=st.binary(max_size=300),
    edits=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=12),
    extension=st.sampled_from(["png", "jpg", "bmp", "gif", "tiff", "webp", "raw"]),
)
def test_damaged_images_raise_nothing_but_input_error(
    tmp_path_factory, model, content, edits, extension
):
    folder = tmp_path_factory.mktemp("fuzz")
    fuzz_image(folder, model, content, edits, extension)
    shutil.rmtree(folder)


def fuzz_image(folder, model, content, edits, extension):
    """Damage an image file and read it: a Reading or InputError, nothing else."""
    path = folder / f"image.{extension}"
    ink = np.zeros((24, 18), np.uint8)
    ink[4:20, 8:11] = 200
    if extension == "raw":
        path.write_bytes(content)
    else:
        Image.fromarray(255 - ink).save(path)
    original = bytearray(path.read_bytes())
    for place, value in edits:
        if original:
            original[place % len(original)] = value
    path.write_bytes(bytes(original))
    try:
        assert read(path, model)
    except dr.InputError as error:
        assert "\n" not in str(error)
