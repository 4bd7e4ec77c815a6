"""What --predict reads right of digits that are not MNIST's, for tests/benchmark.py --readers."""

from pathlib import Path

import numpy as np
import pages
from changes import share_predicted
from PIL import Image
from test_own_images import enlarge, on_paper, scikit_learn_digits, share_read

import digit_recognition as dr


def doubt_rows(model):
    """Return how many validation images are called doubtful, and how many mistakes."""
    _, (images, labels), _, _ = dr.load_data()
    probabilities = model.predict(images, verbose=0)
    wrong = probabilities.argmax(axis=1) != labels
    doubtful = probabilities.max(axis=1) < dr.CONFIDENT
    return {
        f"validation images below {dr.CONFIDENT}, called doubtful": doubtful.mean(),
        "mistakes on validation images that are called doubtful": doubtful[wrong].mean(),
        "mistakes among the validation images that are not": wrong[~doubtful].mean(),
    }


def mnist_rows(model):
    """Return the shares of every fourth MNIST test image: as it is, and changed."""
    rng = np.random.default_rng(0)
    _, _, (images, labels), _ = dr.load_data()
    images, labels = images[::4, ..., 0], labels[::4]
    inverted = [Image.fromarray(255 - image) for image in images]
    enlarged = [Image.fromarray(np.uint8(255 * enlarge(image, 168))) for image in images]
    margins = ((9, 70), (80, 15))
    paper = [on_paper(np.pad(enlarge(image, 90), margins), rng, 0.04, 0.12) for image in images]
    return {
        "MNIST test images as they are": share_predicted(images, labels, model),
        "MNIST test images, inverted": share_read(inverted, labels, model),
        "MNIST test images, enlarged 6 times": share_read(enlarged, labels, model),
        "MNIST test images, on noisy unevenly lit paper": share_read(paper, labels, model),
    }


def scikit_learn_rows(model):
    """Return the shares of scikit-learn's digits, by other writers: prepared, and not."""
    rng = np.random.default_rng(0)
    images, labels = scikit_learn_digits(step=1)
    inks = [enlarge(image, 128) for image in images]
    clean = [Image.fromarray(np.uint8(255 * ink)) for ink in inks]
    noisy = [on_paper(np.pad(ink, 30), rng, 0.06, 0.15, rng.random() < 0.7) for ink in inks]
    squeezed = np.stack([np.asarray(image.resize((28, 28))) for image in clean])
    scaled = np.stack([np.pad(np.asarray(image.resize((20, 20))), 4) for image in clean])
    return {
        "scikit-learn's digits, clean, 128 x 128": share_read(clean, labels, model),
        "scikit-learn's digits, noise and lighting gradient": share_read(noisy, labels, model),
        "scikit-learn's digits, squeezed to 28 x 28": share_predicted(squeezed, labels, model),
        "scikit-learn's digits, scaled to 20 x 20 only": share_predicted(scaled, labels, model),
    }


def reader_rows(path):
    """Return {row: share} of all that the network in a .keras file is measured on."""
    model = dr.load_model(Path(path))
    rows = doubt_rows(model) | mnist_rows(model) | scikit_learn_rows(model)
    return rows | pages.page_rows(model) | pages.blank_rows(model)
