"""Trees keep their splits in float32, and what computes before them is not rounded too early."""

from __future__ import annotations

import numpy as np
import pytest
import xgboost
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from modeldeploy.convert import sklearn
from modeldeploy.convert.layout import Feed, Layout
from modeldeploy.convert.trees import are_in, finite
from modeldeploy.packaging.flavours.onnx import bind

pytestmark = pytest.mark.filterwarnings("ignore:.*is slower")
INPUT = Layout("array", (Feed("input", text=False, width=6),))


@pytest.fixture(scope="module")
def splits_the_missing(smooth):
    rows, number, _classes = smooth
    holes = rows.copy()
    holes[number > 1, 0] = np.nan
    return DecisionTreeClassifier(random_state=0).fit(holes, (number > 1).astype(int))


def test_a_split_of_the_missing_from_the_rest_gets_a_finite_threshold_in_a_copy(splits_the_missing, smooth):
    """skl2onnx 1.20 searches for the float32 below infinity for ever."""
    assert np.isinf(splits_the_missing.tree_.threshold).any()
    mended = finite(splits_the_missing)
    assert np.isfinite(mended.tree_.threshold).all()
    assert np.isinf(splits_the_missing.tree_.threshold).any()
    np.testing.assert_array_equal(mended.predict(smooth[0]), splits_the_missing.predict(smooth[0]))


def test_a_tree_with_plain_thresholds_is_taken_as_it_is(smooth):
    fitted = DecisionTreeClassifier().fit(smooth[0], smooth[2])
    assert finite(fitted) is fitted
    assert are_in(make_pipeline(StandardScaler(), fitted))
    assert not are_in(StandardScaler())


@pytest.mark.parametrize("kind", ["xgboost", "histogram"])
def test_float32_before_trees_puts_rows_on_the_wrong_side_and_float64_does_not(kind, smooth):
    rows, _number, classes = smooth
    trees = xgboost.XGBClassifier(n_estimators=8) if kind == "xgboost" else HistGradientBoostingClassifier(max_iter=8)
    fitted = make_pipeline(StandardScaler(), trees).fit(rows, classes)
    expected = fitted.predict_proba(rows)
    wrong = {}
    for double in (False, True):
        raw = sklearn.convert(fitted, INPUT, "predict_proba", double=double)
        got = bind(raw.data, method="run")(rows)[raw.sources["probability"]]
        wrong[double] = int((np.abs(got - expected) > 1e-4).any(axis=1).sum())
    assert wrong[False] > 0
    assert wrong[True] == 0


def test_the_precision_that_answers_the_sample_is_chosen_and_told(smooth, model):
    rows, _number, classes = smooth
    fitted = make_pipeline(StandardScaler(), xgboost.XGBClassifier(n_estimators=8)).fit(rows, classes)
    assert "computes in float64" in model(fitted, rows[:9]).to_onnx(sample=rows).parity.notes
    alone = xgboost.XGBClassifier(n_estimators=8).fit(rows, classes)
    assert "computes in float32" in model(alone, rows[:9], name="alone").to_onnx(sample=rows).parity.notes
