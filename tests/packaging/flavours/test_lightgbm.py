import lightgbm
import numpy as np
import pytest

from modeldeploy.errors import ConfigurationError
from modeldeploy.packaging.package import package
from modeldeploy.packaging.paths import package_path

QUIET = {"verbose": -1, "num_threads": 1}


def classifier(table, target):
    return lightgbm.LGBMClassifier(n_estimators=4, n_jobs=1, verbose=-1).fit(table, target)


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
@pytest.mark.parametrize("classes", [["a", "b"], ["a", "b", "c"]], ids=["two", "three"])
def test_a_classifier_answers_after_loading_as_before(method, classes, iris, round_trip):
    table, target = iris
    names = np.array(classes)[target % len(classes)]
    model = classifier(table, names)
    made, answers = round_trip(model, table.head(), table, method=method)
    (answer,) = answers.values()
    expected = getattr(model, method)(table)
    if method == "predict":
        assert answer.tolist() == expected.tolist()
    else:
        np.testing.assert_allclose(answer, expected)
    assert (made.manifest.flavour, made.manifest.pickled) == ("lightgbm", False)


def test_a_regressor_with_gaps_and_categories_answers_as_before(mixed, round_trip):
    table = mixed[["age", "income", "plan"]]
    model = lightgbm.LGBMRegressor(n_estimators=4, min_child_samples=2, n_jobs=1, verbose=-1).fit(table, mixed["age"])
    _made, answers = round_trip(model, table.head(30), table)
    np.testing.assert_allclose(answers["prediction"], model.predict(table))


@pytest.mark.parametrize("frames", [True, False], ids=["frame", "array"])
def test_a_booster_answers_after_loading_as_before(frames, iris, round_trip):
    table, target = iris
    booster = lightgbm.train({**QUIET, "objective": "regression"}, lightgbm.Dataset(table, target), num_boost_round=4)
    data = table if frames else table.to_numpy()
    _made, answers = round_trip(booster, data[:5], data)
    np.testing.assert_allclose(answers["prediction"], booster.predict(data))


def test_a_file_of_save_model_is_taken_as_it_is(iris, store, tmp_path):
    path = tmp_path / "model.txt"
    classifier(*iris).booster_.save_model(path)
    made = package_path(path, store=store, name="iris", version="1.0.0", example=iris[0].head())
    assert made.manifest.signature.outputs[0].shape == (3,)


def test_an_objective_in_python_is_refused(iris, store):
    def objective(target, score):
        return score - target, np.ones_like(score)

    model = lightgbm.LGBMRegressor(n_estimators=2, objective=objective, verbose=-1).fit(*iris)
    with pytest.raises(ConfigurationError, match="objective of its own"):
        package(model, name="iris", version="1.0.0", example=iris[0].head(), store=store)
