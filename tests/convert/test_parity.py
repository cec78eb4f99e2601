"""Answers are compared row by row: labels for equality, numbers within the tolerance, and ties are no difference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modeldeploy.convert.parity import Gate, compare_coarse, compare_labels, compare_numbers
from modeldeploy.packaging.signature import infer
from modeldeploy.values.tolerance import Tolerance

TIGHT = Tolerance(float32=(1e-4, 1e-5), float64=(1e-4, 1e-5))
NUMBERS = hnp.arrays(np.float64, hnp.array_shapes(min_dims=1, max_dims=2, max_side=12), elements=st.floats(-1e6, 1e6))


@settings(max_examples=60, deadline=None)
@given(NUMBERS, st.data())
def test_as_many_rows_differ_as_were_changed(expected, data):
    changed = data.draw(st.sets(st.integers(0, len(expected) - 1)))
    got = expected.copy()
    for row in changed:
        got[row] += 1.0 + np.abs(got[row])
    found = compare_numbers("prediction", expected, got, TIGHT)
    assert (found.differing, found.rows) == (len(changed), len(expected))
    assert bool(found.first) == bool(changed)
    assert found.agreement == 1 - len(changed) / len(expected)


@settings(max_examples=60, deadline=None)
@given(NUMBERS)
def test_rounding_to_float32_is_no_difference(expected):
    assert compare_numbers("prediction", expected, expected.astype(np.float32), TIGHT).differing == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1), st.data())
def test_labels_differ_where_they_are_not_equal_and_ties_are_counted_apart(labels, data):
    expected = np.array(labels, dtype=object)
    changed = data.draw(st.sets(st.integers(0, len(labels) - 1)))
    even = np.array(data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels))))
    got = np.array([f"{label}!" if at in changed else label for at, label in enumerate(labels)], dtype=object)
    found = compare_labels("prediction", expected, got, even=even)
    assert found.differing == sum(not even[at] for at in changed)
    assert found.ties == sum(bool(even[at]) for at in changed)


def test_a_difference_names_its_row_and_both_values():
    found = compare_numbers(
        "probability", np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([[0.5, 0.5], [1.0, 0.0]]), TIGHT
    )
    assert found.first == "first in row 1: expected [0.25 0.75], got [1. 0.]"
    assert found.largest == 0.75


def test_another_shape_differs_in_every_row():
    found = compare_numbers("prediction", np.ones(3), np.ones((3, 1)), TIGHT)
    assert (found.differing, found.first) == (3, "with shape (3, 1) instead of (3,)")


def test_eight_bits_may_move_numbers_but_not_the_likeliest_class():
    expected = np.array([[0.0, 10.0], [10.0, 0.0], [5.1, 5.0]], np.float32)
    assert compare_coarse("prediction", expected, expected + 0.3).differing == 0
    swapped = expected.copy()
    swapped[2] = [5.0, 5.1]
    assert compare_coarse("prediction", expected, swapped).differing == 1
    assert compare_coarse("prediction", expected, expected + 3).differing == 3


def gate(before, after):
    return Gate(before=before, after=after, tolerance=TIGHT, labels={"prediction"})


def answers(label, first):
    return {"prediction": np.array([label]), "probability": np.array([[first, 1 - first]])}


def test_a_label_that_rounding_decides_is_a_tie():
    """A forest of an even number of trees halves its votes often."""
    check = gate(lambda _rows: answers("a", 0.5), lambda _rows: answers("b", 0.5 - 1e-7)).sample({"x": np.ones(1)})
    assert (check.passed, check.outputs[0].ties) == (True, 1)
    check = gate(lambda _rows: answers("a", 0.6), lambda _rows: answers("b", 0.6)).sample({"x": np.ones(1)})
    assert not check.passed


def test_a_converted_model_that_fails_does_not_pass():
    def broken(_rows):
        message = "no such kernel"
        raise RuntimeError(message)

    check = gate(lambda _rows: answers("a", 0.6), broken).sample({"x": np.ones(1)})
    assert not check.passed
    assert check.problem == "the sample: the converted model fails: RuntimeError: no such kernel"


@pytest.mark.parametrize("nullable", [(), ("x",)])
def test_gaps_bind_where_the_signature_lets_them_come(nullable):
    signature = infer({"x": np.ones(3)}, {"prediction": np.ones(3)}, nullable=nullable)
    before = Gate(
        before=lambda rows: {"prediction": rows["x"]},
        after=lambda rows: {"prediction": np.nan_to_num(rows["x"])},
        tolerance=TIGHT,
    )
    check, note = before.gapped({"x": np.arange(3.0)}, signature)
    assert (check.binding, check.passed) == (bool(nullable), False)
    assert bool(note) == (not nullable)
