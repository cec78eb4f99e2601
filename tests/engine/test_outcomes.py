"""Labelled outcomes: the first report of a unit counts, and what is no number between 0 and 1 is refused by its unit."""

from __future__ import annotations

import numpy as np
import pytest

from modeldeploy.engine.journal import Journal
from modeldeploy.errors import InvalidRequestError
from modeldeploy.stats.means import Tally


@pytest.fixture
def journal():
    made = Journal()
    yield made
    made.close()


def test_outcomes_are_summed_up_by_revision(journal):
    rows = [("a", "v1", 1.0), ("b", "v1", 0.5), ("c", "v2", 0.0)]
    assert journal.record_outcomes("rollout-1", rows) == 3
    assert journal.outcomes("rollout-1") == {"v1": Tally(2, 1.5, 1.25), "v2": Tally(1, 0.0, 0.0)}
    assert journal.outcomes("rollout-2") == {}


def test_the_first_value_of_a_unit_stays(journal):
    """So that a report may be sent again when its sender does not know whether it arrived."""
    assert journal.record_outcomes("rollout-1", [("a", "v1", 1.0), ("a", "v1", 0.0)]) == 1
    assert journal.record_outcomes("rollout-1", [("a", "v2", 0.0), ("b", "v2", 0.0)]) == 1
    assert journal.outcomes("rollout-1") == {"v1": Tally(1, 1.0, 1.0), "v2": Tally(1, 0.0, 0.0)}
    assert journal.record_outcomes("rollout-2", [("a", "v1", 0.0)]) == 1


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf"), "1", None, [1.0], b"1"], ids=repr)
def test_what_is_no_number_between_0_and_1_is_refused_by_its_unit(journal, value):
    with pytest.raises(InvalidRequestError, match=r"unit 'b' is .*, not a number between 0 and 1"):
        journal.record_outcomes("rollout-1", [("a", "v1", 1.0), ("b", "v1", value)])
    assert journal.outcomes("rollout-1") == {}


@pytest.mark.parametrize("value", [True, 1, np.float32(1), np.True_], ids=repr)
def test_labels_of_any_numeric_kind_are_taken(journal, value):
    journal.record_outcomes("rollout-1", iter([("a", "v1", value)]))
    assert journal.outcomes("rollout-1") == {"v1": Tally(1, 1.0, 1.0)}


@pytest.mark.parametrize("unit", ["", None, 7], ids=repr)
def test_a_unit_without_a_name_is_refused(journal, unit):
    with pytest.raises(InvalidRequestError, match="a unit is a text"):
        journal.record_outcomes("rollout-1", [(unit, "v1", 1.0)])
