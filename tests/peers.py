"""What the script is held against in tests/benchmark.py: others' networks, trained their way.

    python tests/peers.py published --seed 0 --output-dir FOLDER

leaves a metrics.json in the folder, with accuracy and times under the script's own names, and a
model.keras, but for the recipe. `plain` is the script's network in the usual three lines (Adam at
0.001, batches of 32, three epochs), `published` the network of Keras's example "Simple MNIST
convnet" until it reads 99.0 % of the test images, `recipe` the fastest published recipe (PyTorch,
one epoch).
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # where our_network finds the script


def load_floats():
    """Return MNIST as most examples use it: float32 images from 0 to 1, int labels."""
    with np.load(ROOT / "data" / "mnist.npz") as stored:
        images = [stored[name].astype("float32") / 255 for name in ("x_train", "x_test")]
        labels = [stored[name].astype("int64") for name in ("y_train", "y_test")]
    return images[0][..., None], labels[0], images[1][..., None], labels[1]


def our_network():
    import keras

    import digit_recognition as dr

    ours = dr.build_model((28, 28, 1), 10, dr.parse_settings([]))
    return keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Rescaling(255.0), ours])


def published_network():
    """Return the network of Keras's example "Simple MNIST convnet"."""
    from keras import Input, Sequential, layers

    return Sequential(
        [
            Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )


def train_plainly(network, batch_size, epochs, target, options):
    """Fit a network in the usual three lines until the target test accuracy; return figures."""
    import keras

    keras.utils.set_random_seed(options.seed)
    x_train, y_train, x_test, y_test = load_floats()
    model = network()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    accuracies, seconds, cpu_seconds = [], 0, 0
    while len(accuracies) < epochs:
        began, cpu_began = time.perf_counter(), time.process_time()
        model.fit(x_train, y_train, batch_size, verbose=0)
        seconds += time.perf_counter() - began
        cpu_seconds += time.process_time() - cpu_began
        accuracies.append(model.evaluate(x_test, y_test, verbose=0)[1])
        if accuracies[-1] >= target:
            break
    model.save(Path(options.output_dir, "model.keras"))
    return figures(accuracies[-1], len(accuracies), seconds, cpu_seconds)


def figures(accuracy, epochs, seconds, cpu_seconds):
    """Return the figures of a run under the names that the script's metrics.json uses."""
    return {
        "test_accuracy": float(accuracy),
        "settings": {"epochs": epochs},
        "train_seconds": seconds,
        "train_cpu_seconds": cpu_seconds,
    }


# ------------------------------------------------------- The fastest published recipe, in PyTorch
def recipe_network():
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 24, kernel_size=5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(24, 32, kernel_size=3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 5 * 5, 256),
        nn.ReLU(),
        nn.Linear(256, 10),
    )


def train_recipe(seed):
    """Train for one epoch in batches of 256 with Adam on a one-cycle schedule; return figures."""
    import torch
    from torch.nn.functional import cross_entropy

    torch.manual_seed(seed)
    x_train, y_train, x_test, y_test = map(torch.from_numpy, load_floats())
    x_train, x_test = x_train.reshape(-1, 1, 28, 28), x_test.reshape(-1, 1, 28, 28)
    network = recipe_network()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01, betas=(0.7, 0.9))
    began, cpu_began = time.perf_counter(), time.process_time()
    batches = torch.randperm(len(x_train)).split(256)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=len(batches))
    for batch in batches:
        optimizer.zero_grad()
        cross_entropy(network(x_train[batch]), y_train[batch]).backward()
        optimizer.step()
        schedule.step()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    with torch.no_grad():
        predicted = network(x_test).argmax(dim=1)
    accuracy = (predicted == y_test).double().mean()
    return figures(accuracy, 1, seconds, cpu_seconds)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=("plain", "published", "recipe"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output-dir", default=".", metavar="FOLDER")
    options = parser.parse_args()
    if options.name == "plain":
        metrics = train_plainly(our_network, 32, 3, 1.0, options)
    elif options.name == "published":
        metrics = train_plainly(published_network, 128, 15, 0.99, options)
    else:
        metrics = train_recipe(options.seed)
    Path(options.output_dir, "metrics.json").write_text(json.dumps(metrics))


if __name__ == "__main__":
    main()
