"""Measure what each setting does: python tests/study.py

Trains every row of STUDY with three seeds, a run on each core, and puts the table into
tests/README.md and its picture beside README's. It continues after an interruption,
from output/study.jsonl; delete that file after a change of the script. `--row TEXT` runs, and
prints, only the rows whose command contains TEXT.
"""

import argparse
import concurrent.futures
import json
import os
import queue
import re
import statistics
import sys
import textwrap
import time
from pathlib import Path

from benchmark import ROOT, SCRIPT, measure_training

FASHION = "/usr/share/datasets/fashion-mnist"  # Debian: apt install dataset-fashion-mnist
BRIEF = "--epochs 3"  # in most rows, to see a difference in less time
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
    "filters": [f"{BRIEF} --filters {n}" for n in ("16 32", "32 64", "64 128")],
    "kernels": [f"{BRIEF} --kernel-sizes 3 3"],
    "pooling": [f"{BRIEF} --pool-sizes 2 2"],
    "activation": [f"{BRIEF} --activation {name}" for name in ("gelu", "silu", "tanh")],
    "learning rate": [f"{BRIEF} --learning-rate {rate}" for rate in ("0.0033", "0.03")],
    "batch size": [f"{BRIEF} --batch-size {size}" for size in (32, 512)],
    "optimizer": [f"{BRIEF} --optimizer {name}" for name in ("sgd", "rmsprop")],
    "dense layer": [f"{BRIEF} --dense-units {units}" for units in (64, 256)],
    "other data": [f"--data {FASHION}"],
}
SEEDS = range(3)
RESULTS = ROOT / "output" / "study.jsonl"
PICTURE = ROOT / ".github" / "images" / "study.png"
README = ROOT / "tests" / "README.md"


# ------------------------------------------------------------------------------- Measuring
def rows_with(text):
    """Return the (question, row) pairs whose command contains the text."""
    pairs = []
    for question, rows in STUDY.items():
        for row in rows:
            if FASHION in row and not Path(FASHION).exists():
                print(f"left out, no such folder: {FASHION} (apt install dataset-fashion-mnist)")
            elif text in (row or "default"):
                pairs.append((question, row))
    return pairs


def read_results():
    """Return what was measured so far, {(row, seed): metrics}."""
    results = {}
    if RESULTS.exists():
        for line in RESULTS.read_text().splitlines():
            if line.endswith("}"):  # a line cut by a kill is measured again
                run = json.loads(line)
                results[run["row"], run["seed"]] = run
    return results


def measure_row(row, seed):
    """Return the metrics and costs of a row of the study with a seed."""
    run = measure_training(*SCRIPT, *row.split(), "--seed", str(seed))
    return run | {"row": row, "seed": seed}


def take_core(cores):
    """Bind this thread, and so the processes that it starts, to the next core of the queue."""
    os.sched_setaffinity(0, {cores.get()})


def measure_missing(rows, results):
    """Measure what the results lack, a run on each core; add it to them and to the file."""
    missing = [(row, seed) for seed in SEEDS for row in rows if (row, seed) not in results]
    cores = queue.SimpleQueue()
    for core in os.sched_getaffinity(0):
        cores.put(core)
    pool = concurrent.futures.ThreadPoolExecutor(cores.qsize(), "run", take_core, [cores])
    RESULTS.parent.mkdir(exist_ok=True)
    began = time.perf_counter()
    try:
        runs = [pool.submit(measure_row, row, seed) for row, seed in missing]
        for done, finished in enumerate(concurrent.futures.as_completed(runs), 1):
            run = finished.result()
            results[run["row"], run["seed"]] = run
            with open(RESULTS, "a") as file:
                file.write(json.dumps(run) + "\n")
            minutes = (time.perf_counter() - began) / 60
            said = f"{done} of {len(missing)} runs, {minutes:.0f} min: {run['row'] or 'default'}"
            print(f"{said}, seed {run['seed']}: {run['test_accuracy']:.4f}", file=sys.stderr)
    finally:
        pool.shutdown(cancel_futures=True)


# -------------------------------------------------------------------------------- Reporting
def percentages(runs, part):
    """Return mean and standard deviation of the runs' accuracy in percent; part: val or test."""
    values = [100 * run[f"{part}_accuracy"] for run in runs]
    return statistics.mean(values), statistics.stdev(values)


def seconds_of(runs):
    """Return the seconds of one core that training takes, the runs' median."""
    return statistics.median(run["train_cpu_seconds"] for run in runs)


def table(pairs, results):
    """Return the lines of the table: a row, its accuracies, seconds and parameters."""
    header = ["question", "`python digit_recognition.py` and", "validation %: mean (sd)"]
    header += ["test %: mean (sd)", "training, seconds of one core", "parameters"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for question, row in pairs:
        runs = [results[row, seed] for seed in SEEDS]
        columns = [question, f"`{row}`" if row else "no option"]
        for part in ("val", "test"):
            mean, deviation = percentages(runs, part)
            columns.append(f"{mean:.2f} ({deviation:.2f})")
        columns += [f"{seconds_of(runs):.0f}", f"{runs[0]['parameters']:,}"]
        lines.append("| " + " | ".join(columns) + " |")
    return lines


def plot(pairs, results):
    """Return a figure: test accuracy of each row of MNIST, a panel for each question."""
    from matplotlib.figure import Figure

    questions = {}
    for question, row in pairs:
        if "--data" not in row:
            questions.setdefault(question, []).append(row)
    heights = [len(rows) for rows in questions.values()]
    figure = Figure(figsize=(9, 0.5 * len(heights) + 0.25 * sum(heights)), layout="constrained")
    figure.suptitle("Test accuracy: mean and standard deviation of 3 seeds; seconds of one core")
    panels = figure.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False)
    for axis, (question, rows) in zip(panels.flat, questions.items(), strict=True):
        plot_question(axis, question, rows, results)
    panels[-1, 0].set_xlabel("test accuracy, %")
    return figure


def plot_question(axis, question, rows, results):
    """Draw a point with an error bar for each row, and its seconds at the right edge."""
    axis.set_title(question, loc="left", fontsize=9)
    labels = [textwrap.fill(row, 50, break_on_hyphens=False) or "no option" for row in rows]
    axis.set_yticks(range(len(rows)), labels, fontsize=8)
    axis.set_ylim(len(rows) - 0.5, -0.5)  # the first row on top
    axis.grid(axis="x", alpha=0.3)
    for place, row in enumerate(rows):
        runs = [results[row, seed] for seed in SEEDS]
        mean, deviation = percentages(runs, "test")
        axis.errorbar(mean, place, xerr=deviation, fmt="o", color="#0072b2", capsize=3)
        edge = axis.get_yaxis_transform()  # x as a share of the width, y in data
        text = f"{seconds_of(runs):.0f} s"
        axis.text(1.07, place, text, transform=edge, ha="right", va="center", fontsize=8)


def update_readme(lines):
    """Put the lines of the table in the place of those in tests/README.md."""
    text = "\n".join(["<!-- study -->", *lines, "<!-- end of study -->"])
    pattern = re.compile("<!-- study -->.*<!-- end of study -->", flags=re.DOTALL)
    README.write_text(pattern.sub(lambda old: text, README.read_text()))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--row", default="", metavar="TEXT", help="only rows that contain TEXT")
    wanted = parser.parse_args().row
    pairs, results = rows_with(wanted), read_results()
    measure_missing([row for _, row in pairs], results)
    lines = table(pairs, results)
    print("\n".join(lines))
    if not wanted:
        plot(pairs, results).savefig(PICTURE, dpi=120)
        update_readme(lines)


if __name__ == "__main__":
    main()
