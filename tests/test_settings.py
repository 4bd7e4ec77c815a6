"""Settings: the command line explains its options and refuses what it cannot use."""

import study
from conftest import SCRIPT, make_settings

import digit_recognition as dr

ROOT = SCRIPT.parent


def help_text(main):
    code, out, err = main("--help")
    assert (code, err) == (0, "")
    return out


def test_help_names_every_option_and_needs_no_network(main):
    text = help_text(main)
    for flag in flags():
        assert flag in text
    assert "(default: (16, 64))" in text and "use a trained model instead of training one:" in text


def flags():
    """The flags that the command line takes, of those that turn something off the --no form."""
    found = {}
    for name, default in vars(make_settings()).items():
        turned_off = name in ("augment", "show")
        found[("--no-" if turned_off else "--") + name.replace("_", "-")] = default
    return found


def test_a_mistyped_word_is_exit_code_2_of_the_script(run_as_program, capsys):
    assert run_as_program("--epochs", "many") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("error: argument --epochs: 'many' is not a positive integer\n")


def test_every_setting_is_in_the_help_with_its_default(main):
    text = " ".join(help_text(main).split()) + " --"
    for flag, default in flags().items():
        if default and not isinstance(default, bool) and flag not in ("--learning-rate", "--model"):
            described = text[text.rindex(f" {flag} ") :].split(" --")[1]
            assert f"(default: {default})" in described, flag


def test_every_default_number_is_an_option():
    settings = vars(make_settings())
    assert {name: settings[name] for name in dr.DEFAULTS} == dr.DEFAULTS
    changed = make_settings("--filters", 8, 9, "--epochs", 7, "--seed", 3, "--no-augment")
    assert (changed.filters, changed.epochs, changed.seed) == ([8, 9], 7, 3)
    assert not changed.augment


def test_the_learning_rate_is_the_optimizers_unless_it_is_given():
    assert make_settings("--optimizer", "sgd").learning_rate == dr.PEAK_LEARNING_RATES["sgd"]
    assert make_settings("--learning-rate", 0.5).learning_rate == 0.5


def test_every_row_of_the_study_is_a_command_that_the_script_takes_and_its_table_shows():
    table = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    rows = [row for rows in study.STUDY.values() for row in rows]
    assert len({str(dr.parse_settings(row.split())) for row in rows}) == len(rows) > 20
    for row in rows:
        assert f"| `{row}` |" in table or not row, row
