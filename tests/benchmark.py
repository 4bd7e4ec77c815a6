"""Measure what the script reaches on this machine: python tests/benchmark.py --seeds 5

Prints one table: time and test accuracy of `--epochs 1`, of the default command, and of a plain
baseline (the same network, Adam at 0.001, batches of 32, TensorFlow's defaults), run in turn;
the time that Keras's published "Simple MNIST convnet" takes to 99.0 %; the share of the machine's
matrix-product speed; peak memory. `--long` adds the long command, `--readers` the accuracy of
--predict on digits that are not MNIST's. Nothing else should run meanwhile.

`--study` answers the README's next steps: what each setting does, three seeds a row, one run on
each core. It goes on where it was stopped, from output/study.jsonl, and at its end puts table and
picture into the README. `--study --row tanh` runs the rows whose command contains tanh.
"""

import argparse
import concurrent.futures
import functools
import json
import os
import platform
import queue
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import digit_recognition as dr  # noqa: E402

LONG = ["--epochs", "20", "--filters", "32", "64", "--learning-rate", "0.006"]
FASHION = "/usr/share/datasets/fashion-mnist"  # Debian: apt install dataset-fashion-mnist
BRIEF = "--epochs 3"
STUDY = {  # what a row changes in the default command, by the question that it answers
    "default": [""],
    "epochs, augmentation": [
        "--no-augment",
        "--epochs 1",
        "--epochs 1 --no-augment",
        "--epochs 14",
        "--epochs 14 --no-augment",
        BRIEF,
    ],
    "filters": [f"{BRIEF} --filters {n}" for n in ("16 32", "32 64", "64 128", "16 64 128")],
    "kernels": [f"{BRIEF} --kernel-size 3"],
    "activation": [f"{BRIEF} --activation {name}" for name in ("gelu", "silu", "tanh")],
    "learning rate": [f"{BRIEF} --learning-rate {rate}" for rate in ("0.0033", "0.03")],
    "batch size": [f"{BRIEF} --batch-size {size}" for size in (32, 128, 512)],
    "optimizer": [f"{BRIEF} --optimizer {name}" for name in ("sgd", "rmsprop", "adamw", "muon")],
    "dense layer": [f"{BRIEF} --dense-units {units}" for units in (64, 256)],
    "other data": [f"--data {FASHION}"],
}
STUDY_SEEDS = 3
STUDY_RESULTS = ROOT / "output" / "study.jsonl"
STUDY_PICTURE = ROOT / ".github" / "images" / "study.png"


def run_in_turn(arguments):
    """Run a command of ours in a new process; return its metrics with the whole run's costs."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *map(str, arguments), "--output-dir", folder]
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        if status:
            raise SystemExit(f"failed: {command}")
        metrics = json.loads(Path(folder, "metrics.json").read_text())
        history = Path(folder, "history.csv")
        if history.exists():
            last = np.atleast_1d(np.genfromtxt(history, delimiter=",", names=True))[-1]
            metrics["val_accuracy"] = float(last["val_accuracy"])
    return metrics | {"seconds": seconds, "peak": used.ru_maxrss / 1e6}


def script(*arguments):
    return run_in_turn([ROOT / "digit_recognition.py", "--no-show", *arguments])


def itself(part, *arguments):
    return run_in_turn([__file__, "--part", part, *arguments])


def train_plainly(model, batch_size, epochs, target, seed, folder):
    """Fit in the usual three lines, on float images; stop at the target test accuracy."""
    dr.import_tensorflow()
    import keras

    keras.utils.set_random_seed(seed)
    x_train, y_train, x_test, y_test, _ = dr.load_data()
    x_train, x_test = x_train.astype("float32") / 255, x_test.astype("float32") / 255
    model = model(keras)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    seconds = cpu_seconds = accuracy = done = 0
    while done < epochs and accuracy < target:
        began, cpu_began = time.perf_counter(), time.process_time()
        model.fit(x_train, y_train, batch_size, initial_epoch=done, epochs=done + 1, verbose=0)
        seconds += time.perf_counter() - began
        cpu_seconds += time.process_time() - cpu_began
        accuracy = model.evaluate(x_test, y_test, verbose=0)[1]
        done += 1
    figures = {"test_accuracy": accuracy, "epochs": done, "train_seconds": seconds}
    figures["train_cpu_seconds"] = cpu_seconds
    Path(folder, "metrics.json").write_text(json.dumps(figures))


def our_network(keras):
    layers = [
        keras.layers.Rescaling(255.0),
        *dr.build_model((28, 28, 1), 10, dr.parse_settings([])).layers,
    ]
    return keras.Sequential([keras.Input((28, 28, 1)), *layers])


def published_network(keras):
    """The network of Keras's example "Simple MNIST convnet"."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, "softmax"),
        ]
    )


def matrix_product_speed():
    """Return the floating-point operations a second of a 2048 x 2048 matrix product."""
    dr.import_tensorflow()
    import tensorflow as tf

    matrix, times = tf.random.normal((2048, 2048)), []
    for _ in range(24):
        began = time.perf_counter()
        tf.matmul(matrix, matrix).numpy()
        times.append(time.perf_counter() - began)
    return 2 * 2048**3 / statistics.median(times)


def training_operations(settings):
    """Return the floating-point operations of one image's step: forward, and twice that back.

    A multiplication and an addition each count; the first convolution has no gradient to pass on.
    """
    model, total = dr.build_model((28, 28, 1), 10, settings), 0
    for layer in model.layers:
        if layer.weights:
            places = int(np.prod(layer.output.shape[1:-1]))
            products = int(np.prod(layer.kernel.shape)) * places
            total += 2 * products * (2 if total == 0 else 3)
    return total


def readers(path):
    """Return the share read right of scikit-learn's digits and of every fourth MNIST test image."""
    import test_own_images as own
    from PIL import Image

    model, rng = dr.load_model(path), np.random.default_rng(0)
    _, _, x_test, y_test, _ = dr.load_data()
    tests, y_test = x_test[::4, ..., 0], y_test[::4]
    images, labels = own.scikit_learn_digits(step=1)
    big = [own.enlarge(image, 128) for image in images]
    grey = [Image.fromarray(np.uint8(255 * ink)) for ink in big]
    noisy = [own.on_paper(np.pad(ink, 30), rng, 0.06, 0.15, rng.random() < 0.7) for ink in big]
    squeezed = np.stack([np.asarray(image.resize((28, 28))) for image in grey])
    cropped = np.stack([np.pad(np.asarray(image.resize((20, 20))), 4) for image in grey])
    paper = (
        own.on_paper(np.pad(own.enlarge(i, 90), ((9, 70), (80, 15))), rng, 0.04, 0.12)
        for i in tests
    )

    def plain(pixels, truth):
        return (model.predict(pixels[..., None], verbose=0).argmax(axis=1) == truth).mean()

    train = dr.load_data()[:2]
    held_out, truth = dr.split_validation(*train)[1]
    shares = model.predict(held_out, verbose=0)
    wrong, doubtful = shares.argmax(axis=1) != truth, shares.max(axis=1) < dr.CONFIDENT
    return {
        f"validation images below {dr.CONFIDENT}, called doubtful": doubtful.mean(),
        "mistakes on validation images that are called doubtful": doubtful[wrong].mean(),
        "mistakes among the validation images that are not": wrong[~doubtful].mean(),
        "MNIST test images as they are": plain(tests, y_test),
        "MNIST test images, inverted": own.share_read(
            (Image.fromarray(255 - i) for i in tests), y_test, model
        ),
        "MNIST test images, enlarged 6 times": own.share_read(
            (Image.fromarray(np.uint8(255 * own.enlarge(i, 168))) for i in tests), y_test, model
        ),
        "MNIST test images, on noisy unevenly lit paper": own.share_read(paper, y_test, model),
        "scikit-learn's digits, clean, 128 x 128": own.share_read(grey, labels, model),
        "scikit-learn's digits, noise and lighting gradient": own.share_read(noisy, labels, model),
        "scikit-learn's digits, squeezed to 28 x 28, not prepared": plain(squeezed, labels),
        "scikit-learn's digits, scaled to 20 x 20 only": plain(cropped, labels),
    }


def study_results():
    """Return what the study has measured so far: {(row, seed): metrics}."""
    found = {}
    if STUDY_RESULTS.exists():
        for line in STUDY_RESULTS.read_text().splitlines():
            if line.endswith("}"):  # a line cut by a kill is measured again
                run = json.loads(line)
                found[run["row"], run["seed"]] = run
    return found


def study_rows(wanted):
    """Return the (question, row) pairs whose command contains what is wanted."""
    rows = [(part, row) for part, rows in STUDY.items() for row in rows]
    rows = [(part, row) for part, row in rows if not wanted or wanted in (row or "default")]
    if FASHION in rows[-1][1] and not Path(FASHION).exists():
        print(f"left out, no such folder: {FASHION} (apt install dataset-fashion-mnist)")
        rows.pop()
    return rows


def study(wanted):
    """Run what is missing of the wanted rows, a run on each core; print and save the table."""
    rows, results = study_rows(wanted), study_results()
    plan = [(row, seed) for seed in range(STUDY_SEEDS) for _, row in rows]
    plan = [run for run in plan if run not in results]
    cores = queue.SimpleQueue()
    for core in os.sched_getaffinity(0):
        cores.put(core)
    began, workers = time.perf_counter(), cores.qsize()
    STUDY_RESULTS.parent.mkdir(exist_ok=True)
    # A thread's core is inherited by the processes that it starts.
    with concurrent.futures.ThreadPoolExecutor(
        workers, initializer=lambda: os.sched_setaffinity(0, {cores.get()})
    ) as pool:
        runs = {
            pool.submit(script, *row.split(), "--seed", seed): (row, seed) for row, seed in plan
        }
        for done, future in enumerate(concurrent.futures.as_completed(runs), 1):
            row, seed = runs[future]
            run = results[row, seed] = future.result() | {"row": row}
            with open(STUDY_RESULTS, "a") as file:
                file.write(json.dumps(run) + "\n")
            print(
                f"{done} of {len(plan)}: {row or 'default'}, seed {seed}: "
                f"validation {run['val_accuracy']:.4f}, test {run['test_accuracy']:.4f}; about "
                f"{time_left(plan, results, workers) / 60:.0f} min left, "
                f"{(time.perf_counter() - began) / 60:.0f} gone",
                file=sys.stderr,
            )
    lines = study_table(rows, results)
    print("\n".join(lines))
    if not wanted:
        plot_study(rows, results).savefig(STUDY_PICTURE, dpi=120)
        readme = (ROOT / "README.md").read_text()
        text = "\n".join(["<!-- study -->", *lines, "<!-- end of study -->"])
        readme = re.sub(
            r"<!-- study -->.*<!-- end of study -->", lambda _: text, readme, flags=re.S
        )
        (ROOT / "README.md").write_text(readme)


def time_left(plan, results, workers):
    """Return the seconds that the runs without a result will take, judged by those with one."""
    known = {}
    for (row, _), run in results.items():
        known.setdefault(row, []).append(run["seconds"])
    usual = statistics.mean(value for values in known.values() for value in values)
    left = [row for row, seed in plan if (row, seed) not in results]
    return sum(statistics.mean(known.get(row, [usual])) for row in left) / workers


def study_figures(row, results):
    """Return validation and test accuracy in percent, each a list, seconds and parameters."""
    runs = [results[row, seed] for seed in range(STUDY_SEEDS)]
    validation, test = ([100 * run[f"{k}_accuracy"] for run in runs] for k in ("val", "test"))
    return validation, test, statistics.median(r["train_cpu_seconds"] for r in runs), runs[0]


def study_table(rows, results):
    """Return the lines of the table: a row, its accuracies, seconds and parameters."""
    lines = [
        "| question | `python digit_recognition.py` and | validation %: mean (sd) "
        "| test %: mean (sd) | training, seconds of one core | parameters |",
        "|---|---|---|---|---|---|",
    ]
    for part, row in rows:
        validation, test, seconds, run = study_figures(row, results)
        columns = [part, f"`{row}`" if row else "nothing else"]
        for values in (validation, test):
            columns.append(f"{statistics.mean(values):.2f} ({statistics.stdev(values):.2f})")
        columns += [f"{seconds:.0f}", f"{run['parameters']:,}"]
        lines.append("| " + " | ".join(columns) + " |")
    return lines


def plot_study(rows, results):
    """Return a figure of test accuracy against training seconds, a point a row of MNIST."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(10, 7), layout="constrained")
    colors = ["#d55e00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#000000"]
    labels = {}
    for number, (part, marker) in enumerate(zip(STUDY, "*osD^vP<X>", strict=True)):
        points = {}
        for row in [row for p, row in rows if p == part and "--data" not in row]:
            _, test, seconds, _ = study_figures(row, results)
            points[seconds, statistics.mean(test)] = row
        for point, row in points.items():
            label = re.sub("--(?!epochs|no-)[a-z-]+ ", "", row.removeprefix(f"{BRIEF} "))
            labels[point] = label.replace("--", "") or "default"
        if points:
            look = {"marker": marker, "color": colors[number % len(colors)]}
            size = 260 if part == "default" else 50
            axis.scatter(*zip(*points, strict=True), size, label=part, zorder=3, **look)
    axis.set(xscale="log", xlabel="training, seconds of one core", ylabel="test accuracy, %")
    axis.set_xticks([10, 20, 50, 100, 200], ["10", "20", "50", "100", "200"])
    axis.set_xlim(8, 400)
    axis.set_title("Accuracy and time of each row: means of 3 seeds")
    axis.grid(alpha=0.3, which="both")
    axis.legend(loc="lower right")
    figure.canvas.draw()
    label_points(axis, labels)
    return figure


def label_points(axis, labels):
    """Write each label, {(x, y): text}, beside its point, at the nearest place that is free."""
    places = {point: axis.transData.transform(point) for point in labels}
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in places.values()]
    shifts = sorted(range(-60, 61, 6), key=abs)
    for point, (x, y) in sorted(places.items()):
        width = 6.5 * len(labels[point])
        for shift, right in [(shift, right) for shift in shifts for right in (True, False)]:
            left, low = x + 10 if right else x - 10 - width, y + shift - 6
            box = (left, low, left + width, low + 12)
            if not any(
                a < box[2] and c > box[0] and b < box[3] and d > box[1] for a, b, c, d in taken
            ):
                break
        taken.append(box)
        look = {"fontsize": 8, "va": "center", "ha": "left" if right else "right"}
        offset = ((10 if right else -10) * 0.72, shift * 0.72)  # points, of 100 a figure inch
        axis.annotate(labels[point], point, offset, textcoords="offset points", **look)


def table(rows):
    """Print the rows (name, list of metrics) and the ratios to the last one's time."""
    print(
        "| run | epochs | test accuracy: mean, sd, each | training s | CPU s | whole s | peak GB |"
    )
    print("|---|---|---|---|---|---|---|")
    keys = ("train_seconds", "train_cpu_seconds", "seconds", "peak")
    for name, runs in rows:
        accuracy = [100 * run["test_accuracy"] for run in runs]
        each = " ".join(f"{value:.2f}" for value in accuracy)
        spread = statistics.stdev(accuracy) if len(runs) > 1 else 0.0
        middle = [statistics.median(run[key] for run in runs) for key in keys]
        print(
            f"| {name} | {runs[0]['epochs']} "
            f"| {statistics.mean(accuracy):.3f} %, {spread:.3f}, {each}"
            f" | {middle[0]:.1f} | {middle[1]:.1f} | {middle[2]:.1f} | {middle[3]:.2f} |",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="runs of each row (default: 5)")
    parser.add_argument("--long", type=int, default=0, metavar="N", help="runs of the long command")
    parser.add_argument("--readers", metavar="MODEL", help="only measure --predict with this model")
    parser.add_argument("--study", action="store_true", help="only measure what each setting does")
    parser.add_argument("--row", metavar="TEXT", help="only the study's rows that contain TEXT")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--output-dir", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part == "plain":
        return train_plainly(our_network, 32, 3, 1.0, options.seed, options.output_dir)
    if options.part == "published":
        return train_plainly(published_network, 128, 15, 0.99, options.seed, options.output_dir)
    if options.study or options.row:
        return study(options.row)
    if options.readers:
        print("| images | share |\n|---|---|")
        for name, share in readers(options.readers).items():
            print(f"| {name} | {100 * share:.2f} % |", flush=True)
        return None
    cpus = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
    print(f"{platform.platform()}; {len(cpus)} cores, {cpus[0].split(': ')[1]}", flush=True)
    runs, speeds = {"one": [], "default": [], "plain": [], "published": [], "long": []}, []
    plan = [("one", "--epochs", "1"), ("default",), ("plain",), ("published",), ("long", *LONG)]
    for seed in range(options.seeds):
        for name, *arguments in plan:
            if seed >= {"plain": 2, "published": 2, "long": options.long}.get(name, seed + 1):
                continue
            measure = functools.partial(itself, name) if name in ("plain", "published") else script
            runs[name].append(measure(*arguments, "--seed", seed))
            if name == "default":  # side by side, since the speed of a shared machine wanders
                speeds.append(matrix_product_speed())
            print(f"{name}, seed {seed}: {runs[name][-1]['test_accuracy']:.4f}", file=sys.stderr)
    names = ["`--epochs 1`", "default", "plain Adam, same network", "Keras's example until 99.0 %"]
    names.append(f"`{' '.join(LONG)}`")
    table([row for row in zip(names, runs.values(), strict=True) if row[1]])

    def middle(name, key):
        return statistics.median(run[key] for run in runs[name])

    epoch, speed = (
        middle("default", "train_seconds") / dr.parse_settings([]).epochs,
        statistics.median(speeds),
    )
    share = 55000 / epoch * training_operations(dr.parse_settings([])) / speed
    ratio = middle("default", "seconds") / middle("published", "train_seconds")
    print(
        f"default: {epoch:.2f} s an epoch, {55000 / epoch:.0f} images a second, {100 * share:.0f} %"
    )
    print(f"of the {speed / 1e9:.0f} GFLOP/s of a matrix product; whole process {ratio:.2f} of the")
    print("time that Keras's example takes to 99.0 %")
    return None


if __name__ == "__main__":
    main()
