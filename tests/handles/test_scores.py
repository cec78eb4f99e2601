from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from modeldeploy.errors import InvalidRequestError
from modeldeploy.handles.scores import rows
from modeldeploy.values.assignment import assign

WEIGHTS = {"old": 50, "new": 50}


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        ({"ana": 1, "cem": 0.5}, None),
        ({"ana": True, "cem": np.float32(0.5)}, None),
        ([1, 0.5], ["ana", "cem"]),
        (np.array([1, 0.5]), np.array(["ana", "cem"])),
        (pd.Series([1, 0.5], index=["ana", "cem"]), None),
        (pd.Series([1.0, 0.5]), pd.Series(["ana", "cem"], index=[7, 8])),
    ],
    ids=["mapping", "flags and scalars", "lists", "arrays", "series", "two series"],
)
def test_outcomes_are_read_in_any_shape(values, keys):
    assert rows(values, keys, None, WEIGHTS) == [("ana", "old", 1), ("cem", "new", 0.5)]


@pytest.mark.parametrize("key", [7, 7.0, "7", np.int64(7), np.float64(7)])
def test_a_number_is_the_key_that_the_router_reads(key):
    assert rows({key: 1}, None, None, WEIGHTS) == [("7", assign(WEIGHTS, "7"), 1)]


def test_flags_are_written_as_the_router_reads_them():
    assert [key for key, _revision, _value in rows([1, 1], [True, False], "new", WEIGHTS)] == ["true", "false"]


def test_whoever_knows_who_answered_may_say_so():
    assert rows([1, 0], ["a", "b"], "old", WEIGHTS) == [("a", "old", 1), ("b", "old", 0)]
    assert rows([1, 0], ["a", "b"], np.array(["old", "new"]), WEIGHTS) == [("a", "old", 1), ("b", "new", 0)]


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([1, 0], {}, "scores are list without keys"),
        (pd.DataFrame({"a": [1]}), {}, "DataFrame without keys"),
        ([1, 0], {"keys": ["ana"]}, "2 values for 1 keys"),
        ([1], {"keys": "ana"}, "keys are str, not a sequence"),
        (3, {"keys": ["ana"]}, "values are int"),
        (np.ones((1, 1)), {"keys": ["ana"]}, "values are ndarray"),
        ({"": 1}, {}, "key ''"),
        ({None: 1}, {}, "key None"),
        ({float("nan"): 1}, {}, "key nan"),
        ({"ana": 1}, {"revision": "v9"}, "'v9' takes no part"),
        ({"ana": 1}, {"revision": []}, "0 revisions for 1 keys"),
        ({"ana": 1}, {"revision": 5}, "revisions are int"),
        ({("ana",): 1}, {}, "key ('ana',) is not valid"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(values, options, message):
    with pytest.raises(InvalidRequestError, match=re.escape(message)):
        rows(values, options.get("keys"), options.get("revision"), WEIGHTS)
