"""How far a golden output may be off: by type, stored and read, and wrong ones refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.errors import ConfigurationError
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.tolerance import Tolerance

PAIRS = st.tuples(st.floats(0, 1), st.floats(0, 1))
TOLERANCES = st.builds(Tolerance, float16=PAIRS, float32=PAIRS, float64=PAIRS)


@pytest.mark.parametrize(
    ("given", "tolerance"),
    [
        (True, Tolerance()),
        (False, Tolerance()),
        (Tolerance(float32=(0, 0)), Tolerance(float32=(0, 0))),
        ({"float32": 1e-3}, Tolerance(float32=(1e-3, 1e-6))),
        ({"float64": (1e-3, 1)}, Tolerance(float64=(1e-3, 1.0))),
        ({}, Tolerance()),
    ],
)
def test_golden_may_say_what_differs(given, tolerance):
    assert Tolerance.of(given) == tolerance


def test_the_narrower_type_decides():
    assert [Tolerance().at(size) for size in (2, 4, 8, 16)] == [
        (5e-3, 1e-3),
        (1e-4, 1e-6),
        (1e-6, 1e-9),
        (1e-6, 1e-9),
    ]


def test_a_tolerance_is_read_as_it_was_written():
    tolerance = Tolerance(float16=(0.1, 0.2))
    assert from_json(Tolerance, to_json(tolerance)) == tolerance


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"int64": 1}, "names the type 'int64'"),
        ({"float32": "much"}, "tolerance of float32"),
        ({"float32": (1, 2, 3)}, "tolerance of float32"),
        ({"float64": -1}, "tolerance of float64"),
        ({"float64": True}, "tolerance of float64"),
        (1e-3, "golden is 0.001"),
        (None, "golden is None"),
    ],
)
def test_a_wrong_tolerance_is_refused(given, part):
    with pytest.raises(ConfigurationError, match=part) as caught:
        Tolerance.of(given)
    assert caught.value.hint


def test_a_tolerance_made_by_hand_is_checked():
    with pytest.raises(ConfigurationError, match="float16"):
        Tolerance(float16=(float("inf"), 0))


@given(TOLERANCES, TOLERANCES)
def test_the_wider_of_two_allows_what_either_allows(one, other):
    wider = one.widened(other)
    for size in (2, 4, 8):
        for had, got in zip(zip(one.at(size), other.at(size), strict=True), wider.at(size), strict=True):
            assert got == max(had)
    assert wider == other.widened(one)
    assert one.widened(one) == one
