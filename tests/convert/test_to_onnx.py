"""Converted models take and answer what their originals do: names, types, labels, probabilities."""

from __future__ import annotations

import warnings

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier, IsolationForest, RandomForestClassifier, RandomForestRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

from modeldeploy import Model
from modeldeploy.convert import bundling
from modeldeploy.errors import ConfigurationError, ConflictError, ConversionError, ConversionParityError
from modeldeploy.packaging.loading import load
from modeldeploy.packaging.signature import to_columns

pytestmark = pytest.mark.filterwarnings("ignore:.*is slower")

FEW = {"n_estimators": 8}
QUIET = {**FEW, "verbose": -1}

CLASSIFIERS = {
    "logistic": LogisticRegression,
    "svm": SVC,
    "linear svm": LinearSVC,
    "bayes": GaussianNB,
    "forest": lambda: RandomForestClassifier(8, random_state=0),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=8),
    "xgboost": lambda: xgboost.XGBClassifier(**FEW),
    "lightgbm": lambda: lightgbm.LGBMClassifier(**QUIET),
    "pipeline with xgboost": lambda: make_pipeline(StandardScaler(), xgboost.XGBClassifier(**FEW)),
    "pipeline with lightgbm": lambda: make_pipeline(
        StandardScaler().set_output(transform="default"), lightgbm.LGBMClassifier(**QUIET)
    ),
}
REGRESSORS = {
    "linear": LinearRegression,
    "perceptron": lambda: MLPRegressor(hidden_layer_sizes=(8,), max_iter=2_000, random_state=0),
    "forest": lambda: RandomForestRegressor(8, random_state=0),
    "xgboost": lambda: xgboost.XGBRegressor(**FEW),
    "lightgbm": lambda: lightgbm.LGBMRegressor(**QUIET),
}


def answers_alike(original, converted, rows):
    """Compare what both answer, through the signature, with the types and shapes that a caller sees."""
    ours, theirs = converted.predict(rows), original.predict(rows)
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    if ours.dtype.kind == "f":
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    else:
        assert ours.tolist() == theirs.tolist()


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_classifier_keeps_its_labels_and_its_signature(kind, smooth, model):
    rows, _number, classes = smooth
    original = model(CLASSIFIERS[kind]().fit(rows, classes), rows[:9])
    converted = original.to_onnx(sample=rows)
    answers_alike(original, converted, rows)
    assert converted.signature == original.signature
    assert (converted.flavour, converted.version, converted.pickled) == ("onnx", "1.0.0+onnx", False)
    assert converted.parity.passed


@pytest.mark.parametrize("kind", REGRESSORS)
def test_a_regressor_keeps_its_numbers(kind, smooth, model):
    rows, number, _classes = smooth
    original = model(REGRESSORS[kind]().fit(rows, number), rows[:9])
    answers_alike(original, original.to_onnx(sample=rows), rows)


@pytest.mark.parametrize("method", ["predict_proba", "decision_function"])
@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_and_decisions_are_one_array(method, classes, smooth, model):
    rows, _number, target = smooth
    fitted = LogisticRegression().fit(rows, np.minimum(target, classes - 1))
    original = model(fitted, rows[:9], method=method)
    answers_alike(original, original.to_onnx(sample=rows), rows)


@pytest.mark.parametrize("dtype", ["bool", "int32", "float64", "str"])
def test_labels_keep_their_type(dtype, smooth, model):
    rows, number, _classes = smooth
    labels = np.where(number > 0, "yes", "no") if dtype == "str" else (number > 0).astype(dtype)
    original = model(LogisticRegression().fit(rows, labels), rows[:9])
    answers_alike(original, original.to_onnx(sample=rows), rows)


def test_transformers_clusters_and_detectors_convert(smooth, model):
    rows, number, _classes = smooth
    for at, (fitted, options) in enumerate([
        (PCA(2).fit(rows), {"method": "transform"}),
        (KMeans(3, n_init=1, random_state=0).fit(rows), {}),
        (IsolationForest(n_estimators=8, random_state=0).fit(rows), {"method": "decision_function"}),
        (Ridge().fit(rows, np.stack([number, -number], axis=1)), {}),
    ]):  # fmt: skip
        original = model(fitted, rows[:9], name=f"model-{at}", **options)
        answers_alike(original, original.to_onnx(sample=rows), rows)


def test_a_table_of_numbers_text_and_categories_goes_in_by_column(mixed, model):
    table, target = mixed
    columns = make_column_transformer(
        (StandardScaler(), ["age (years)", "income"]),
        (OneHotEncoder(handle_unknown="ignore"), ["city", "plan"]),
        ("passthrough", ["active"]),
    )
    original = model(make_pipeline(columns, LogisticRegression()).fit(table, target), table.head(20))
    converted = original.to_onnx(sample=table)
    answers_alike(original, converted, table)
    assert converted.bundle.manifest.container == "columns"
    assert [field.name for field in converted.signature.inputs] == list(table.columns)


def test_a_frame_of_numbers_goes_in_as_one_array(iris, model):
    table, target = iris
    original = model(LogisticRegression(max_iter=500).fit(table, target), table.head())
    converted = original.to_onnx(sample=table)
    answers_alike(original, converted, table)
    assert converted.bundle.manifest.container == "matrix"


def test_texts_convert_without_a_locale_of_the_machine(model):
    texts = ["A bright day", "a dull day", "Bright again", "dull again"] * 10
    fitted = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0] * 10)
    original = model(fitted, texts[:4])
    answers_alike(original, original.to_onnx(sample=texts), texts)


@pytest.mark.parametrize("task", ["binary", "several", "number"])
@pytest.mark.parametrize("family", ["xgboost", "lightgbm"])
def test_a_booster_answers_with_its_own_numbers(family, task, smooth, model):
    rows, number, classes = smooth
    target = {"binary": (number > 0).astype(int), "several": classes, "number": number}[task]
    if family == "xgboost":
        settings = {
            "binary": {"objective": "binary:logistic"},
            "several": {"objective": "multi:softprob", "num_class": 3},
        }
        fitted = xgboost.train(settings.get(task, {}), xgboost.DMatrix(rows, label=target), 8)
    else:
        maker = lightgbm.LGBMRegressor if task == "number" else lightgbm.LGBMClassifier
        fitted = maker(**QUIET).fit(rows, target).booster_
    original = model(fitted, rows[:9])
    answers_alike(original, original.to_onnx(sample=rows), rows)


def test_a_converted_model_is_served_from_its_files(iris, model):
    table, target = iris
    original = model(LogisticRegression(max_iter=500).fit(table, target), table.head(), method="predict_proba")
    loaded = load(original.to_onnx(sample=table).bundle)
    answers = loaded.predict(to_columns(table, loaded.signature))
    np.testing.assert_allclose(answers["probability"], original.predict(table), rtol=1e-4, atol=1e-5)
    assert answers["probability"].dtype == np.float64


def test_the_same_conversion_again_is_the_same_model(iris, model):
    table, target = iris
    original = model(LogisticRegression(max_iter=500).fit(table, target), table.head())
    first = original.to_onnx(sample=table)
    assert original.to_onnx(sample=table) == first
    assert Model.get("model", "1.0.0+onnx").parity == first.parity


def test_a_conversion_that_another_process_finished_first_is_taken(iris, model, monkeypatch):
    """Its report holds other times, so its digest is another one; the settings are the same."""
    table, target = iris
    original = model(LogisticRegression(max_iter=500).fit(table, target), table.head())
    first = original.to_onnx(sample=table)
    known, asked = bundling.known, []

    def late(*arguments):
        asked.append(arguments)
        return known(*arguments) if len(asked) > 1 else None

    monkeypatch.setattr(bundling, "known", late)
    assert original.to_onnx(sample=table) == first
    assert len(asked) == 2


def test_another_sample_under_the_same_version_is_a_conflict(iris, model):
    table, target = iris
    original = model(LogisticRegression(max_iter=500).fit(table, target), table.head())
    original.to_onnx(sample=table)
    with pytest.raises(ConflictError, match="exists with other content"):
        original.to_onnx(sample=table.head(50))
    assert original.to_onnx(sample=table.head(50), version="1.0.1").version == "1.0.1"


def test_what_cannot_be_converted_is_said_before_any_work(iris, model, modeldeploy_home):
    table, target = iris
    original = model(LogisticRegression(max_iter=500).fit(table, target), table.head())
    with pytest.raises(ConfigurationError, match=r"the sample does not fit model 1[.]0[.]0: column 'sepal length"):
        original.to_onnx(sample=table.drop(columns="sepal length (cm)"))
    with pytest.raises(ConfigurationError, match="ONNX model already"):
        original.to_onnx(sample=table).to_onnx(sample=table)
    with pytest.raises(ConfigurationError, match="was read from its files"):
        Model.get("model", "1.0.0").to_onnx(sample=table)
    with pytest.raises(ConfigurationError, match=r"labels has shape \(3,\) for 150 rows"):
        original.to_onnx(sample=table, labels=[0, 1, 2])
    with pytest.raises(ConversionError, match="Python code"):
        model(lambda rows: rows.sum(axis=1), table.head(), name="code").to_onnx(sample=table)


def test_a_model_that_no_converter_knows_is_named(smooth, model):
    from sklearn.semi_supervised import LabelPropagation

    rows, _number, classes = smooth
    original = model(LabelPropagation().fit(rows[:60], classes[:60]), rows[:9])
    with pytest.raises(ConversionError, match="cannot convert LabelPropagation") as caught:
        original.to_onnx(sample=rows)
    assert Model.versions("model") == ("1.0.0",)
    assert caught.value.__cause__ is not None


def test_a_forest_of_xgboost_that_its_converter_gets_wrong_is_refused(smooth, model):
    """onnxmltools 1.16 adds up the trees of a round that XGBoost averages, and says nothing."""
    rows, _number, classes = smooth
    original = model(xgboost.XGBRFClassifier(n_estimators=5).fit(rows, classes), rows[:9])
    with pytest.raises(ConversionParityError, match="differs in") as caught:
        original.to_onnx(sample=rows)
    assert not caught.value.report.passed


def test_accuracies_stand_in_the_report_when_labels_are_given(smooth, model):
    rows, number, classes = smooth
    original = model(LogisticRegression().fit(rows, classes), rows[:9])
    report = original.to_onnx(sample=rows, labels=classes).parity
    right = float(np.mean(original.predict(rows) == classes))
    assert (report.metric, report.before.score, report.after.score) == ("accuracy", right, right)
    line = model(LinearRegression().fit(rows, number), rows[:9], name="line").to_onnx(sample=rows, labels=number)
    assert line.parity.metric == "rmse"
    assert line.parity.before.score == pytest.approx(line.parity.after.score, rel=1e-4)


def test_neighbours_that_are_slower_as_onnx_are_told_with_the_ratio(model, budget):
    """Every neighbour is a row of the graph, and onnxruntime has no index to find it by."""
    budget(0.1)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4_000, 8))
    original = model(KNeighborsClassifier().fit(rows, (rows[:, 0] > 0).astype(int)), rows[:9])
    with pytest.warns(UserWarning, match=r"as ONNX is slower: .* times as long as before") as told:
        converted = original.to_onnx(sample=rows[:200])
    assert converted.parity.after.one_row_ms > 0
    assert any(note.startswith("slower") and note in str(told[0].message) for note in converted.parity.notes)


def test_a_quicker_model_warns_of_nothing(smooth, model, budget):
    budget(0.1)
    rows, _number, classes = smooth
    original = model(RandomForestClassifier(60, random_state=0).fit(rows, classes), rows[:9])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert original.to_onnx(sample=rows[:50]).parity.after.one_row_ms > 0
