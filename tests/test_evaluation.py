"""Evaluation: the figures are those of independent counts and of the published formula."""

import numpy as np
import pytest
from sklearn import metrics as independent

import digit_recognition as dr


def interval(right, count):
    """The interval of score() when so many of count images are read right."""
    read = np.where(np.arange(count) < right, 1, 0)
    return dr.score(np.ones(count, int), np.eye(2)[read])["test_interval"]


def printed_report(labels, probabilities, capsys):
    """The text that print_report prints."""
    dr.print_report(labels, probabilities, dr.score(labels, probabilities))
    return capsys.readouterr().out


def report_rows(text):
    """{label: [precision, recall, F1, support]} of the report that is printed."""
    lines = [line.split() for line in text.splitlines()]
    return {words[0]: [float(word) for word in words[1:]] for words in lines if len(words) == 5}


def test_the_wilson_interval_is_that_of_the_textbook():
    # Newcombe, 1998, table I: 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to 0.1611.
    assert interval(81, 263) == pytest.approx([0.2553, 0.3662], abs=5e-5)
    assert interval(0, 20) == pytest.approx([0, 0.1611], abs=5e-5)
    assert interval(20, 20)[1] == pytest.approx(1)


def test_the_figures_agree_with_independent_counts(digits, capsys):
    labels = digits[1][:500]
    noise = np.random.default_rng(1).dirichlet(np.ones(10), 500)
    probabilities = 0.5 * np.eye(10)[labels] + 0.5 * noise
    test, text = dr.score(labels, probabilities), printed_report(labels, probabilities, capsys)
    read = probabilities.argmax(axis=1)
    assert test["test_accuracy"] == pytest.approx(independent.accuracy_score(labels, read))
    assert test["test_errors"] == int((read != labels).sum())
    true_shares = probabilities[np.arange(500), labels]
    assert test["test_loss"] == pytest.approx(-np.log(true_shares).mean())
    for label in range(10):
        precision, recall, _, support = report_rows(text)[str(label)]
        right = ((read == label) & (labels == label)).sum()
        assert precision == pytest.approx(right / (read == label).sum(), abs=5e-5)
        assert recall == pytest.approx(right / (labels == label).sum(), abs=5e-5)
        assert support == (labels == label).sum()


def test_the_last_line_is_the_answer(capsys):
    labels = np.arange(1000) % 10
    read = np.where(np.arange(1000) < 5, (labels + 1) % 10, labels)
    last = printed_report(labels, np.eye(10)[read], capsys).splitlines()[-1]
    answer = "99.50 % (5 of 1000 wrong, 95 % confidence interval 98.83-99.79 %)"
    assert last == f"Test accuracy: {answer}"


@pytest.mark.filterwarnings("error")
def test_a_class_that_is_never_read_has_no_precision_and_no_warning(capsys):
    rows = report_rows(printed_report(np.array([0, 1, 1]), np.eye(3)[[0, 0, 1]], capsys))
    assert [rows[label][0] for label in "012"] == [0.5, 1, 0]
    assert [rows[label][1] for label in "012"] == [1, 0.5, 0]
