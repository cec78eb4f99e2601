import numpy as np
import pytest
import xgboost

from modeldeploy.errors import ConfigurationError
from modeldeploy.packaging.package import package
from modeldeploy.packaging.paths import package_path


@pytest.fixture
def classifier(iris):
    return xgboost.XGBClassifier(n_estimators=3, max_depth=2).fit(*iris)


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
@pytest.mark.parametrize("frames", [True, False], ids=["frame", "array"])
def test_a_classifier_answers_after_loading_as_before(method, frames, iris, classifier, round_trip):
    data = iris[0] if frames else iris[0].to_numpy()
    made, answers = round_trip(classifier, data[:5], data, method=method)
    (answer,) = answers.values()
    np.testing.assert_array_equal(answer, getattr(classifier, method)(data))
    assert (made.manifest.flavour, made.manifest.pickled) == ("xgboost", False)
    assert "artifacts/model.ubj" in made.manifest.files


@pytest.mark.parametrize("frames", [True, False], ids=["frame", "array"])
def test_a_booster_answers_after_loading_as_before(frames, iris, round_trip):
    table, target = iris
    booster = xgboost.train({"max_depth": 2}, xgboost.DMatrix(table, target), num_boost_round=3)
    data = table if frames else table.to_numpy()
    _made, answers = round_trip(booster, data[:5], data)
    np.testing.assert_array_equal(answers["prediction"], booster.predict(xgboost.DMatrix(table)))


def test_missing_values_and_categories_reach_the_trees(mixed, round_trip):
    table = mixed[["age", "income", "plan"]]
    model = xgboost.XGBRegressor(n_estimators=3, enable_categorical=True).fit(table, mixed["age"])
    _made, answers = round_trip(model, table.head(30), table)
    np.testing.assert_array_equal(answers["prediction"], model.predict(table))


def test_a_file_of_save_model_is_taken_as_it_is(iris, classifier, store, tmp_path):
    path = tmp_path / "model.json"
    classifier.save_model(path)
    made = package_path(path, store=store, name="iris", version="1.0.0", example=iris[0].head())
    assert made.manifest.options["class"] == "XGBClassifier"
    assert made.manifest.signature.outputs[0].dtype.value == "int64"


def test_a_model_that_is_not_fitted_is_refused(iris, store):
    with pytest.raises(ConfigurationError, match="not fitted"):
        package(xgboost.XGBRegressor(), name="iris", version="1.0.0", example=iris[0].head(), store=store)


class Own(xgboost.XGBClassifier):
    """A subclass, whose code the native file does not hold."""


def test_a_subclass_is_refused_since_its_code_would_be_lost(iris, store):
    with pytest.raises(ConfigurationError, match="wrap the model in a function"):
        package(Own(n_estimators=2).fit(*iris), name="iris", version="1.0.0", example=iris[0].head(), store=store)
