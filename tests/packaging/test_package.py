import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from modeldeploy.errors import ConfigurationError
from modeldeploy.packaging import package as module
from modeldeploy.packaging.loading import load
from modeldeploy.packaging.package import package
from modeldeploy.packaging.signature import to_columns

OPTIONS = {"name": "model", "version": "1.0.0"}


def test_at_most_32_rows_are_kept(classifier, iris, store):
    made = package(classifier, example=iris[0], store=store, **OPTIONS)
    golden = load(made).golden
    assert {len(array) for array in [*golden.inputs.values(), *golden.outputs.values()]} == {32}
    np.testing.assert_array_equal(golden.outputs["prediction"], classifier.predict(iris[0][:32]))


def test_a_gap_anywhere_in_the_example_makes_the_column_nullable(store):
    table = pd.DataFrame({"a": np.arange(100.0), "b": np.arange(100.0)})
    table.loc[99, "b"] = np.nan
    made = package(
        HistGradientBoostingRegressor(max_iter=2).fit(table, table["a"]), example=table, store=store, **OPTIONS
    )
    assert [field.nullable for field in made.manifest.signature.inputs] == [False, True]


def test_a_save_that_loses_something_is_refused(classifier, iris, store, monkeypatch):
    from modeldeploy.packaging.flavours import sklearn

    other = LogisticRegression(max_iter=500).fit(iris[0], 2 - iris[1])
    original = sklearn.save
    monkeypatch.setattr(sklearn, "save", lambda model, *, method: original(other, method=method))
    with pytest.raises(ConfigurationError, match="does not answer as the model in memory"):
        package(classifier, example=iris[0].head(), store=store, **OPTIONS)
    assert store.versions("model") == ()
    assert list((store.root / "staging").iterdir() if (store.root / "staging").exists() else []) == []


NULLABLE = pd.DataFrame(
    {
        "count": pd.array([1, None, 3, 4], dtype="Int64"),
        "flag": pd.array([True, False, True, True], dtype="boolean"),
        "word": pd.array(["a", None, "b", "a"], dtype="string"),
        "text": pd.Series(["x", "y", None, "x"]),
        "small": pd.Series([1, 2, 3, 4], dtype="int8"),
        "level": pd.Categorical([3, 1, 3, 2], categories=[1, 2, 3], ordered=True),
        "real": pd.Series([1.5, None, 2.5, 3.5], dtype="Float32"),
    }
)


def described(table):
    """Say what the model saw; the types of the frame must be the original ones."""
    return [
        f"{index} " + " ".join(map(str, table.dtypes)) + f" {list(row)}"
        for index, row in enumerate(table.itertuples(index=False))
    ]


def test_pandas_own_types_reach_the_model_unchanged(store):
    made = package(described, example=NULLABLE, store=store, **OPTIONS)
    model = load(made, trust=store.trusted())
    assert model.predict(to_columns(NULLABLE, model.signature))["prediction"].tolist() == described(NULLABLE)


def test_a_frame_that_a_function_changes_in_place_does_not_reach_the_golden_inputs(store):
    def model(table):
        table["x"] = table["x"] + 1.0
        return table["x"]

    made = package(model, example=pd.DataFrame({"x": [1.0, 2.0]}), store=store, **OPTIONS)
    golden = load(made, trust=store.trusted()).golden
    assert golden.inputs["x"].tolist() == [1.0, 2.0]
    assert golden.outputs["prediction"].tolist() == [2.0, 3.0]


def test_an_array_that_a_function_changes_in_place_does_not_reach_the_golden_inputs(store):
    def model(rows):
        rows += 1.0
        return rows[:, 0]

    example = np.array([[1.0], [2.0]])
    made = package(model, example=example, store=store, **OPTIONS)
    golden = load(made, trust=store.trusted()).golden
    assert golden.inputs["input"].tolist() == [[1.0], [2.0]] == example.tolist()
    assert golden.outputs["prediction"].tolist() == [2.0, 3.0]


def test_an_array_that_cannot_be_written_reaches_the_model_as_one_that_can(store):
    """A request's array is a view of the bytes that came over the wire."""

    def model(rows):
        rows += 1.0
        return rows[:, 0]

    made = package(model, example=np.array([[1.0]]), store=store, **OPTIONS)
    array = np.array([[5.0]])
    array.flags.writeable = False
    assert load(made, trust=store.trusted()).predict({"input": array})["prediction"].tolist() == [6.0]


def test_a_pipeline_that_cannot_be_stored_without_pickle_still_works(iris, store):
    model = make_pipeline(FunctionTransformer(lambda table: table * 2), LinearRegression()).fit(*iris)
    made = package(model, example=iris[0].head(), store=store, **OPTIONS)
    assert made.manifest.pickled
    assert "artifacts/model.pkl" in made.manifest.files


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (b"bytes", "not a table"),
        ({"a": [1.0], "b": [1.0, 2.0]}, "differ in length"),
        ({}, "no rows or no columns"),
        (np.ones((0, 4)), "no rows"),
        (np.float64(1.0), "single value|not a table"),
        ([[1.0, 2.0], [3.0]], "row 1 has 1 values"),
        ({"when": pd.to_datetime(["2020-01-01"])}, "dates into numbers|cannot be sent"),
        ({"mixed": ["a", 1]}, "holds int values"),
        (pd.DataFrame([[1.0, 2.0]], columns=["a", "a"]), "more than once"),
    ],
)
def test_an_example_that_cannot_be_used_is_refused_with_the_reason(example, message, store):
    with pytest.raises(ConfigurationError, match=message) as caught:
        module.package(lambda table: [1.0], example=example, store=store, **OPTIONS)
    assert caught.value.hint
