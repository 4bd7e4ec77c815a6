"""Settings: the command line teaches, answers at once, and refuses what it cannot use."""

import ast
import os
import re
import subprocess
import sys
import time

import study
from conftest import SCRIPT, run_script

import digit_recognition as dr

ROOT = SCRIPT.parent


def requirements(text):
    return sorted(line for line in text.split("\n") if line and not line.startswith("#"))


def test_the_inline_metadata_names_the_packages_of_requirements_txt():
    header = SCRIPT.read_text(encoding="utf-8").split("# ///")[1].replace("\n#", "")
    inline = ast.literal_eval(re.search(r"dependencies = (\[.*\])", header)[1])
    assert sorted(inline) == requirements((ROOT / "requirements.txt").read_text())
    assert 'requires-python = ">=3.10,<3.14"' in header
    assert "3.10 to 3.13" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_help_answers_in_under_a_second_without_tensorflow():
    run_script("--help")  # compiled files are cached from here on
    times = []
    for _ in range(3):
        start = time.perf_counter()
        process = run_script("--help")
        times.append(time.perf_counter() - start)
    assert process.returncode == 0 and process.stderr == ""
    assert min(times) < 1
    for name in vars(dr.parse_settings([])):
        assert "--" + name.replace("_", "-") in process.stdout
    assert "(default: 16 64)" in process.stdout and "your own images:" in process.stdout


def test_importing_the_script_has_no_side_effect():
    code = "import sys, digit_recognition; sys.exit('tensorflow' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


def test_every_setting_is_in_the_readme_with_its_default():
    table = (ROOT / "README.md").read_text(encoding="utf-8")
    help_text = " ".join(run_script("--help").stdout.split())
    for name, default in vars(dr.parse_settings([])).items():
        flag = f"--{name.replace('_', '-')}"
        assert f"`{flag}" in table, flag
        if default and not isinstance(default, bool) and name != "learning_rate":
            shown = " ".join(map(str, default)) if isinstance(default, list) else default
            row = next(r for r in table.split("\n") if r.startswith(f"| `{flag}"))
            assert f"| {shown} |" in row, row
            described = help_text[help_text.rindex(flag + " ") :]
            assert described.partition("(default: ")[2].startswith(f"{shown})"), flag


def test_a_failed_import_of_tensorflow_is_seen(tmp_path):
    (tmp_path / "keras.py").write_text("import os; os.write(2, b'native words'); import no_such")
    code = "import digit_recognition as d; d.import_tensorflow()"
    process = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert "native words" in process.stderr and "no_such" in process.stderr


def test_every_row_of_the_study_is_a_command_that_the_script_takes_and_the_readme_shows():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [row for rows in study.STUDY.values() for row in rows]
    assert len({str(dr.parse_settings(row.split())) for row in rows}) == len(rows) > 25
    for row in rows:
        assert f"| `{row}` |" in readme or not row, row
