"""Natural answers: outputs in the kind of what was given, one by itself and several by name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from modeldeploy.handles.predictor import natural

ONE = {"prediction": np.array([1.0, 2.0])}
WIDE = {"probability": np.array([[0.1, 0.9], [0.8, 0.2]])}
TWO = {"label": np.array(["a", None], dtype=object), "score": np.array([1, 2])}
FRAME = pd.DataFrame({"x": [1, 2]}, index=["i", "j"])


def test_pandas_keeps_the_index():
    assert natural(FRAME, ONE).to_dict() == {"i": 1.0, "j": 2.0}
    assert natural(FRAME, ONE).name == "prediction"
    assert natural(FRAME, WIDE).columns.tolist() == ["probability_0", "probability_1"]
    assert natural(FRAME, TWO)["label"].tolist()[0] == "a"


def test_polars():
    given = pl.DataFrame({"x": [1, 2]})
    assert natural(given, ONE).to_list() == [1.0, 2.0]
    assert natural(given, WIDE).columns == ["probability_0", "probability_1"]
    assert natural(given, TWO).to_dicts() == [{"label": "a", "score": 1}, {"label": None, "score": 2}]


@pytest.mark.parametrize("given", [pa.table({"x": [1, 2]}), pa.record_batch({"x": [1, 2]})])
def test_arrow(given):
    assert natural(given, ONE).to_pylist() == [1.0, 2.0]
    assert natural(given, TWO).to_pydict() == {"label": ["a", None], "score": [1, 2]}


def test_numpy():
    assert natural(np.zeros((2, 1)), WIDE) is WIDE["probability"]
    assert natural(np.zeros((2, 1)), TWO).keys() == TWO.keys()


def test_lists_and_dicts():
    assert natural([[1], [2]], ONE) == [1.0, 2.0]
    assert natural([[1], [2]], WIDE) == [[0.1, 0.9], [0.8, 0.2]]
    assert natural([[1], [2]], TWO) == [{"label": "a", "score": 1}, {"label": None, "score": 2}]
    assert natural({"x": [1, 2]}, TWO) == {"label": ["a", None], "score": [1, 2]}
