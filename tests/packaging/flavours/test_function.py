import threading

import numpy as np
import pandas as pd
import pytest

from modeldeploy.errors import ConfigurationError, IntegrityError, PredictionError
from modeldeploy.packaging.loading import load
from modeldeploy.packaging.package import package
from modeldeploy.packaging.signature import to_columns

FACTOR = 3.0


def scaled(table):
    """Use a global, a helper and numpy: all must travel."""
    return helper(np.asarray(table["x"])) * FACTOR


def helper(values):
    return values + 1


class Threshold:
    """An object with predict."""

    def __init__(self, limit=0.5):
        self.limit = limit

    def predict(self, rows):
        return [row[0] > self.limit for row in rows]


class Broken:
    """Fails for odd numbers of rows."""

    def predict(self, rows):
        if len(rows) % 2:
            raise KeyError("odd")
        return rows[:, 0]


@pytest.fixture
def frame():
    return pd.DataFrame({"x": [1.0, 2.0, 3.0]})


def test_a_function_travels_with_its_globals_and_helpers(frame, round_trip):
    made, answers = round_trip(scaled, frame, frame)
    assert answers["prediction"].tolist() == [6.0, 9.0, 12.0]
    assert made.manifest.pickled
    assert made.manifest.flavour == "function"


def test_a_lambda_can_be_served(frame, round_trip):
    _made, answers = round_trip(lambda table: table["x"] * 2, frame, frame)
    assert answers["prediction"].tolist() == [2.0, 4.0, 6.0]


@pytest.mark.parametrize("model", [Threshold(), Threshold], ids=["object", "class"])
def test_an_object_or_its_class_with_predict_can_be_served(model, round_trip):
    _made, answers = round_trip(model, [[0.1], [0.9]], [[0.9], [0.1]])
    assert answers["prediction"].tolist() == [True, False]


def test_an_installed_function_is_imported_again_by_name(round_trip):
    made, answers = round_trip(np.sqrt, np.array([[4.0], [9.0]]), np.array([[16.0]]))
    assert answers["prediction"].tolist() == [[4.0]]
    assert any(requirement.startswith("numpy==") for requirement in made.manifest.requirements)


def test_a_dict_answer_is_one_output_for_each_key(frame, round_trip):
    def model(table):
        return {"low": table["x"] - 1, "high": table["x"] + 1, "name": ["n"] * len(table)}

    made, answers = round_trip(model, frame, frame)
    assert [field.name for field in made.manifest.signature.outputs] == ["low", "high", "name"]
    assert answers["name"].tolist() == ["n", "n", "n"]


def test_records_and_columns_reach_the_function_as_the_example_was(round_trip):
    rows = [{"x": 1.0, "y": "a"}, {"x": 2.0, "y": "b"}]
    _made, answers = round_trip(lambda given: [row["y"] for row in given], rows, rows)
    assert answers["prediction"].tolist() == ["a", "b"]


def test_code_that_cannot_be_pickled_is_refused_with_the_remedy(frame, store):
    lock = threading.Lock()

    def model(table):
        with lock:
            return table["x"]

    with pytest.raises(ConfigurationError, match=r"open them in predict\(\)"):
        package(model, name="locked", version="1.0.0", example=frame, store=store)


def test_code_that_needs_this_process_is_refused_at_packaging(frame, store, monkeypatch):
    """The rehearsal runs where a worker would: without what only this process has."""
    monkeypatch.setenv("ONLY_HERE", "1")

    def model(table):
        import sys

        if "pytest" not in sys.modules:
            raise RuntimeError("not at home")
        return table["x"]

    with pytest.raises(ConfigurationError, match="RuntimeError: not at home"):
        package(model, name="local", version="1.0.0", example=frame, store=store)
    assert store.versions("local") == ()


def test_a_model_that_does_not_answer_the_same_twice_is_refused(frame, store):
    def model(table):
        return np.random.default_rng().random(len(table))

    with pytest.raises(ConfigurationError, match="random_state"):
        package(model, name="random", version="1.0.0", example=frame, store=store)


def test_a_failure_of_the_model_is_a_prediction_error_with_the_cause(store):
    made = package(Broken(), name="broken", version="1.0.0", example=np.ones((2, 1)), store=store)
    model = load(made, trust={made.digest})
    with pytest.raises(PredictionError, match="KeyError: 'odd'") as caught:
        model.predict(to_columns(np.ones((3, 1)), model.signature))
    assert isinstance(caught.value.__cause__, KeyError)


async def later(table):
    return table


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda table: table["missing"], "cannot predict its own example: KeyError"),
        (lambda table: 1.0, "single value"),
        (lambda table: [1.0], "has 1 rows for the example's 3"),
        (lambda table: [object()] * 3, "neither numbers nor text"),
        (lambda table: pd.to_datetime(["2020-01-01"] * 3), "datetime64"),
        (later, "asynchronous"),
        (object(), "is not a model"),
        (threading.Thread, r"class 'Thread' has no predict\(\)"),
        ("model.pkl", "is a path"),
    ],
)
def test_what_is_no_model_is_refused_with_the_reason(model, message, frame, store):
    with pytest.raises(ConfigurationError, match=message):
        package(model, name="wrong", version="1.0.0", example=frame, store=store)


def test_code_is_loaded_only_with_trust(frame, store):
    made = package(scaled, name="scaled", version="1.0.0", example=frame, store=store)
    with pytest.raises(IntegrityError, match="nobody here vouched"):
        load(made)
    assert made.digest in store.trusted()
