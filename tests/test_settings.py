"""Settings: the command line teaches, answers at once, and refuses what it cannot use."""

import subprocess
import sys
import time

import study
from conftest import SCRIPT, make_settings, run_script

import digit_recognition as dr

ROOT = SCRIPT.parent


def test_help_answers_in_under_a_second_without_tensorflow():
    run_script("--help")  # compiled files are cached from here on
    times = []
    for _ in range(3):
        start = time.perf_counter()
        process = run_script("--help")
        times.append(time.perf_counter() - start)
    assert process.returncode == 0 and process.stderr == ""
    assert min(times) < 0.5
    for flag in flags():
        assert flag in process.stdout
    assert "(default: 16 64)" in process.stdout and "instead of a new training:" in process.stdout


def flags():
    """The flags that the command line takes, of those that turn something off the --no form."""
    found = {}
    for name, default in vars(make_settings()).items():
        turned_off = name in ("augment", "show")
        found[("--no-" if turned_off else "--") + name.replace("_", "-")] = default
    return found


def test_a_mistyped_word_is_answered_as_soon():
    start = time.perf_counter()
    process = run_script("--epochs", "many")
    assert time.perf_counter() - start < 0.5
    assert process.returncode == 2 and process.stdout == ""
    assert process.stderr.endswith(
        "error: argument --epochs: 'many' is not a whole number above 0\n"
    )


def test_importing_the_script_has_no_side_effect_but_its_imports():
    command = [sys.executable, "-c", "import digit_recognition", "--epochs", "nonsense"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


def test_every_setting_is_in_the_help_with_its_default():
    text = " ".join(run_script("--help").stdout.split()) + " --"
    for flag, default in flags().items():
        if default and not isinstance(default, bool) and flag not in ("--learning-rate", "--model"):
            shown = " ".join(map(str, default)) if isinstance(default, list) else default
            described = text[text.rindex(f" {flag} ") :].split(" --")[1]
            assert f"(default: {shown})" in described, flag


def test_each_convolution_takes_one_of_each_number():
    settings = make_settings("--filters", 8, "--kernel-sizes", 3, "--pool-sizes", 2)
    assert (settings.filters, settings.kernel_sizes, settings.pool_sizes) == ([8], [3], [2])


def test_the_learning_rate_is_the_optimizers_unless_it_is_given():
    assert make_settings("--optimizer", "sgd").learning_rate == dr.OPTIMIZERS["sgd"][1]
    assert make_settings("--learning-rate", 0.5).learning_rate == 0.5


def test_every_row_of_the_study_is_a_command_that_the_script_takes_and_its_table_shows():
    table = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    rows = [row for rows in study.STUDY.values() for row in rows]
    assert len({str(dr.parse_settings(row.split())) for row in rows}) == len(rows) > 25
    for row in rows:
        assert f"| `{row}` |" in table or not row, row
