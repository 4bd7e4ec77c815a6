"""Measure speed and accuracy on this machine: python tests/benchmark.py --seeds 5

Prints a table with a row each for `--epochs 1` on 30,000 and on all images, the default command,
and three to hold them against: the same network trained plainly (Adam at 0.001, batches of 32),
Keras's published "Simple MNIST convnet" until it reaches 99.0 %, and, where PyTorch is installed,
the fastest published recipe. Each run is a process of its own, and the rows take turns. Below the
table stand the ratios that the project's goals are set in. `--long 3` adds three runs of the long
command.

`--raw MODEL` measures instead how a trained network reads changed test images (tests/changes.py),
beside Keras's example, which is trained to 99.0 % first. `--readers MODEL` measures how well
--predict reads digits that are not MNIST's (tests/readers.py). What each setting does is measured
by tests/study.py. Nothing else should run meanwhile.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = [str(ROOT / "digit_recognition.py"), "--no-show"]
PEERS = str(ROOT / "tests" / "peers.py")
LONG = ["--epochs", "20", "--pool-sizes", "2", "2"]
SHORT = ["--limit", "30000", "--epochs", "1"]  # reads about as many digits as the recipe
ROWS = {  # name in the table: program and words, to which a seed and an output folder are added
    f"`{' '.join(SHORT)}`": [*SCRIPT, *SHORT],
    "`--epochs 1`": [*SCRIPT, "--epochs", "1"],
    "default": SCRIPT,
    f"`{' '.join(LONG)}`": [*SCRIPT, *LONG],
    "plain Adam, same network": [PEERS, "plain"],
    "Keras's example until 99.0 %": [PEERS, "published"],
    "fastest published recipe, PyTorch": [PEERS, "recipe"],
}
SHORT_ROW, ONE, DEFAULT, LONG_ROW, PLAIN, PUBLISHED, RECIPE = ROWS


# ------------------------------------------------------------------------------- Measuring
def measure(command, stderr=None):
    """Run a command in a new process; return its wall seconds and its peak memory in GB."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {command}")
    return {"seconds": time.perf_counter() - began, "peak": used.ru_maxrss / 1e6}


def measure_training(program, *words):
    """Run a program that takes --output-dir; return its metrics.json and the costs of the run."""
    with tempfile.TemporaryDirectory() as folder:
        costs = measure([sys.executable, program, *words, "--output-dir", folder])
        metrics = json.loads(Path(folder, "metrics.json").read_text())
        history = Path(folder, "history.csv")
        if history.exists():
            last = np.atleast_1d(np.genfromtxt(history, delimiter=",", names=True))[-1]
            metrics["val_accuracy"] = float(last["val_accuracy"])
    return metrics | costs


def measure_import():
    """Return the seconds that importing TensorFlow and Keras takes, which no run can spare."""
    command = [sys.executable, "-c", "import keras, tensorflow"]
    return measure(command, stderr=subprocess.DEVNULL)["seconds"]


# -------------------------------------------------------------------------------- Reporting
def middle(runs, key):
    return statistics.median(run[key] for run in runs)


def print_table(rows):
    """Print a line for each of {name: runs}: accuracies in percent, seconds, GB."""
    print("| run | epochs | test accuracy: mean, sd, each | training s | CPU s | whole s | GB |")
    print("|---|---|---|---|---|---|---|")
    for name, runs in rows.items():
        accuracies = [100 * run["test_accuracy"] for run in runs]
        spread = statistics.stdev(accuracies) if len(runs) > 1 else 0.0
        each = " ".join(f"{accuracy:.2f}" for accuracy in accuracies)
        columns = [name, runs[0]["settings"]["epochs"]]
        columns.append(f"{statistics.mean(accuracies):.3f} %, {spread:.3f}, {each}")
        for key in ("train_seconds", "train_cpu_seconds", "seconds"):
            columns.append(f"{middle(runs, key):.1f}")
        columns.append(f"{middle(runs, 'peak'):.2f}")
        print("| " + " | ".join(map(str, columns)) + " |")


def print_ratios(runs, import_seconds):
    """Print the figures that the project's goals are set in, from {row: runs}."""
    default, ratios = runs[DEFAULT], {}
    for row in (SHORT_ROW, ONE) if RECIPE in runs else ():
        for key, unit in (("train_cpu_seconds", "CPU seconds"), ("train_seconds", "seconds")):
            ratio = middle(runs[row], key) / middle(runs[RECIPE], key)
            ratios[f"{row} over the fastest recipe: {unit} of training"] = ratio
    if PUBLISHED in runs:
        ratio = middle(default, "seconds") / middle(runs[PUBLISHED], "train_seconds")
        ratios["default, whole process, over Keras's example's training to 99.0 %"] = ratio
    beyond = statistics.median(run["seconds"] - run["train_seconds"] for run in default)
    ratio = beyond / statistics.median(import_seconds)
    ratios['default, all but training, over `python -c "import keras, tensorflow"`'] = ratio
    ratios["default, peak memory in GB"] = middle(default, "peak")
    print("\n| ratio | |\n|---|---|")
    for name, ratio in ratios.items():
        print(f"| {name} | {ratio:.2f} |")


def describe_machine():
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(": ")[2] for line in cpuinfo if line.startswith("model name")]
    return f"{platform.platform()}; {len(models)} cores, {models[0]}"


def measure_rows(seeds, long_runs, slow_runs):
    """Measure every row, taking turns, since the speed of a shared machine wanders; print all."""
    counts = dict.fromkeys(ROWS, seeds)
    counts |= {LONG_ROW: long_runs, PLAIN: slow_runs, PUBLISHED: slow_runs}
    if not importlib.util.find_spec("torch"):
        counts[RECIPE] = 0
    runs, import_seconds = {}, []
    for seed in range(max(counts.values())):
        import_seconds.append(measure_import())
        for row, command in ROWS.items():
            if seed < counts[row]:
                run = measure_training(*command, "--seed", str(seed))
                runs.setdefault(row, []).append(run)
                print(f"{row}, seed {seed}: {run['test_accuracy']:.4f}", file=sys.stderr)
    print(describe_machine())
    print_table(runs)
    print_ratios(runs, import_seconds)


def print_raw(path):
    """Print what share of changed test images a network reads, and Keras's example."""
    import keras
    from changes import CHANGES, share_predicted

    with np.load(ROOT / "data" / "mnist.npz") as mnist:
        images, labels = mnist["x_test"].astype(float), mnist["y_test"]
    with tempfile.TemporaryDirectory() as folder:
        measure([sys.executable, PEERS, "published", "--output-dir", folder])
        example = keras.saving.load_model(Path(folder, "model.keras"))
    ours = keras.saving.load_model(path)

    print("| MNIST's test images | the script's network | Keras's example, trained on 0 to 1 |")
    print("|---|---|---|")
    for name, change in CHANGES.items():
        changed = change(images, np.random.default_rng(0))
        as_is = name in ("as they are, pixels from 0 to 255", "divided by 255")
        scaled = changed if as_is else changed / 255
        shares = share_predicted(changed, labels, ours), share_predicted(scaled, labels, example)
        print(f"| {name} | {100 * shares[0]:.2f} % | {100 * shares[1]:.2f} % |", flush=True)


def print_readers(model):
    """Print what share of other people's digits --predict reads right."""
    sys.path.insert(0, str(ROOT))  # where the module finds the script
    import readers

    print("| images | share |\n|---|---|")
    for row, share in readers.reader_rows(model).items():
        print(f"| {row} | {100 * share:.2f} % |", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seeds", type=int, default=5, help="runs of each row (default: 5)")
    add("--long", type=int, default=0, metavar="N", help="runs of the long command (default: 0)")
    add("--slow", type=int, default=2, metavar="N", help="runs of the two slow rows (default: 2)")
    add("--raw", metavar="MODEL", help="only measure what this model reads of changed images")
    add("--readers", metavar="MODEL", help="only measure what --predict reads with this model")
    options = parser.parse_args()
    if options.readers:
        print_readers(options.readers)
    elif options.raw:
        print_raw(options.raw)
    else:
        measure_rows(options.seeds, options.long, options.slow)


if __name__ == "__main__":
    main()
