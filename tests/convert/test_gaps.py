"""Gaps are put where they may come, each column's own gap stands alone once, and the rest stays as it was."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import (
    ExtraTreesRegressor,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier

from modeldeploy.convert.gaps import with_gaps
from modeldeploy.errors import ConversionParityError, InvalidRequestError
from modeldeploy.packaging.signature import check

pytestmark = pytest.mark.filterwarnings("ignore:.*is slower")


@st.composite
def tables(draw):
    rows = draw(st.integers(1, 90))
    widths = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    shapes = [(rows, *((width,) if width else ())) for width in widths]
    columns = {f"c{at}": np.arange(np.prod(shape), dtype=float).reshape(shape) for at, shape in enumerate(shapes)}
    columns["text"] = np.array([f"t{at}" for at in range(rows)], dtype=object)
    names = draw(st.lists(st.sampled_from(sorted(columns)), min_size=1, unique=True))
    return columns, names, draw(st.integers(0, 5))


def missing(array):
    return np.array(
        [value is None or (isinstance(value, float) and math.isnan(value)) for value in array.ravel().tolist()]
    ).reshape(len(array), -1)


@settings(max_examples=60, deadline=None)
@given(tables())
def test_every_column_has_a_gap_of_its_own_and_no_other_has_any(given_table):
    columns, names, seed = given_table
    copy = with_gaps(columns, names, seed=seed)
    holes = np.concatenate([missing(copy[name]) for name in names], axis=1)
    alone = holes[holes.sum(axis=1) == 1]
    assert alone.any(axis=0).all()
    for name in set(columns) - set(names):
        assert not missing(copy[name]).any()
    assert len({len(array) for array in copy.values()}) == 1
    assert not any(missing(array).any() for array in columns.values())  # the sample itself is left alone


@settings(max_examples=30, deadline=None)
@given(tables())
def test_what_is_no_gap_is_a_value_of_the_sample_in_its_row(given_table):
    columns, names, seed = given_table
    copy, again = (with_gaps(columns, names, seed=seed) for _ in range(2))
    named = ~missing(copy["text"]).ravel()
    rows = np.array([int(str(text)[1:]) for text in copy["text"][named]], dtype=int)
    for name, array in copy.items():
        np.testing.assert_array_equal(missing(array), missing(again[name]))
        there = ~missing(array[named]).ravel()
        got, expected = array[named].ravel()[there], columns[name][rows].ravel()[there]
        np.testing.assert_array_equal(got, expected)


def test_very_many_columns_do_not_make_very_many_rows():
    copy = with_gaps({"input": np.ones((4, 30_000), np.float32)}, ["input"])
    assert len(copy["input"]) < 1_000
    assert np.isnan(copy["input"]).any()


FORESTS = {
    "classifier": (RandomForestClassifier, 2),
    "regressor": (RandomForestRegressor, 1),
    "extra trees": (ExtraTreesRegressor, 1),
    "one tree": (DecisionTreeClassifier, 2),
}


@pytest.mark.parametrize("kind", FORESTS)
def test_a_forest_that_may_get_nan_is_refused(kind, gappy, model):
    """scikit-learn learns where NaN goes in a tree; skl2onnx 1.20 forgets it and says nothing."""
    maker, target = FORESTS[kind]
    options = {"random_state": 0, **({} if maker is DecisionTreeClassifier else {"n_estimators": 10})}
    rows = gappy[0]
    original = model(maker(**options).fit(rows, gappy[target]), rows[:30])
    assert original.signature.inputs[0].nullable
    with pytest.raises(ConversionParityError, match="differs in") as caught:
        original.to_onnx(sample=rows)
    assert "SimpleImputer" in str(caught.value)
    assert any(check.gaps and check.binding and not check.passed for check in caught.value.report.checks)


def test_a_forest_is_refused_by_its_copy_with_gaps_alone(gappy, smooth, model):
    """The sample has no gaps this time, as the rows at hand often have not; the signature says that they may come."""
    whole, _number, classes = smooth
    fitted = RandomForestClassifier(10, random_state=0).fit(gappy[0], classes)
    original = model(fitted, gappy[0][:30])
    with pytest.raises(ConversionParityError, match="the sample with gaps") as caught:
        original.to_onnx(sample=whole)
    assert caught.value.report.checks[0].passed


def test_a_forest_that_never_gets_nan_is_told_of_and_goes_on_refusing_it(smooth, model):
    rows, _number, classes = smooth
    original = model(RandomForestClassifier(20, random_state=0).fit(rows, classes), rows[:30])
    converted = original.to_onnx(sample=rows)
    told = converted.parity.checks[1]
    assert (told.binding, told.passed, converted.parity.passed) == (False, False, True)
    assert any("the signature takes none" in note for note in converted.parity.notes)
    assert not converted.signature.inputs[0].nullable
    with pytest.raises(InvalidRequestError):
        check(converted.signature, {"input": np.full((1, 6), np.nan)})


@pytest.mark.parametrize("kind", ["histogram", "xgboost", "imputed forest"])
def test_models_that_keep_the_way_of_nan_convert(kind, gappy, model):
    makers = {
        "histogram": lambda: HistGradientBoostingRegressor(max_iter=10).fit(gappy[0], gappy[1]),
        "xgboost": lambda: XGBClassifier(n_estimators=10).fit(gappy[0], gappy[2]),
        "imputed forest": lambda: make_pipeline(SimpleImputer(), RandomForestClassifier(10)).fit(gappy[0], gappy[2]),
    }
    original = model(makers[kind](), gappy[0][:30])
    converted = original.to_onnx(sample=gappy[0])
    gapped = converted.parity.checks[1]
    assert (gapped.binding, gapped.passed, gapped.gaps) == (True, True, ("input",))
    assert converted.signature.inputs[0].nullable


def test_an_original_that_fails_on_its_own_gaps_is_said(smooth, model):
    from sklearn.linear_model import LinearRegression

    rows, number, _classes = smooth
    original = model(LinearRegression().fit(rows, number), rows[:9], nullable=["input"])
    report = original.to_onnx(sample=rows).parity
    assert len(report.checks) == 1
    assert any("the original fails on them" in note for note in report.notes)
