"""Changes of images that a network should not mind, for tests/test_model.py and the benchmark.

Each of CHANGES takes MNIST's images, float (n, 28, 28), from 0 to 255, and a random generator.
"""

import numpy as np
from PIL import Image
from scipy import ndimage


def share_predicted(images, labels, model):
    """The share of images (n, height, width) that a network itself reads right."""
    probabilities = model.predict(np.float32(images)[..., np.newaxis], verbose=0)
    return (probabilities.argmax(axis=1) == labels).mean()


def squeeze(images, rng):
    """Images whose digits are cropped to the ink and fill all of 28 x 28 pixels."""
    squeezed = []
    for image in images:
        rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
        ink = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        big = Image.fromarray(np.uint8(ink)).resize((28, 28), Image.Resampling.BICUBIC)
        squeezed.append(np.asarray(big))
    return np.float64(squeezed)


def shift(images, rng):
    """Images moved by up to 3 pixels; at its sides, each of MNIST has 4 pixels without ink."""
    moves = rng.integers(-3, 4, (len(images), 2))
    return np.stack(
        [np.roll(image, move, (0, 1)) for image, move in zip(images, moves, strict=True)]
    )


def salt_and_pepper(images, rng):
    """Images of which a tenth of the pixels is black or white."""
    noise = rng.choice([0.0, 255.0], images.shape)
    return np.where(rng.random(images.shape) < 0.1, noise, images)


def add_noise(images, rng):
    """Images with noise of standard deviation 64, clipped."""
    return (images + rng.normal(0, 64, images.shape)).clip(0, 255)


CHANGES = {
    "as they are, pixels from 0 to 255": lambda images, rng: images,
    "divided by 255": lambda images, rng: images / 255,
    "a quarter of the contrast, on grey": lambda images, rng: np.floor(64 + images / 4),
    "dark on light": lambda images, rng: 255 - images,
    "noise, standard deviation 64": add_noise,
    "blurred, standard deviation 1 pixel": lambda images, rng: ndimage.gaussian_filter(
        images, (0, 1, 1)
    ),
    "outlines: the steepness of the image": lambda images, rng: ndimage.gaussian_gradient_magnitude(
        images, (0, 1, 1)
    ),
    "a tenth of the pixels black or white": salt_and_pepper,
    "moved by up to 3 pixels": shift,
    "cropped to the ink and squeezed into 28 x 28": squeeze,
}
