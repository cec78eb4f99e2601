"""The error tree: it is drawn as it is, it pickles, and its messages name the thing and the remedy."""

from __future__ import annotations

import copy
import pickle
import re

import pytest

from modeldeploy import errors
from modeldeploy.errors import ModelDeployError

EXTRA = {
    errors.UnsupportedError: {"capability": "split"},
    errors.BackendRetiredError: {"replacement": "EdgeTarget.greengrass(...)"},
    errors.ConversionParityError: {"report": {"kind": "onnx"}},
    errors.InvalidRequestError: {"field": "age"},
    errors.ThrottledError: {"retry_after": 1.5},
    errors.UnavailableError: {"retry_after": 2.5},
    errors.RolloutAborted: {"verdict": "fail", "traffic": {"v1": 100}},
    errors.PredictionError: {"status": 500, "body": "boom"},
}


def every(cls=ModelDeployError):
    yield cls
    for child in cls.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from every(child)


ERRORS = sorted(set(every()), key=lambda cls: cls.__name__)


def make(cls):
    return cls("it broke", hint="mend it", context={"endpoint": "iris", "attempt": 2}, **EXTRA.get(cls, {}))


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_every_error_survives_pickling_with_its_attributes(cls, again):
    error = make(cls)
    error.__cause__ = ValueError("deep")
    back = again(error)
    assert type(back) is cls
    assert vars(back) == vars(error)
    assert (back.args, str(back)) == (error.args, str(error))
    for name, value in EXTRA.get(cls, {}).items():
        assert getattr(back, name) == value


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_every_error_can_be_made_of_a_message_alone(cls):
    assert str(cls("it broke")) == "it broke"


def test_a_message_names_the_place_and_the_remedy():
    assert str(make(errors.ConflictError)) == "it broke [endpoint='iris', attempt=2]; mend it"


def test_the_drawing_at_the_top_is_the_tree():
    drawn = set(re.findall(r"[A-Z]\w*(?:Error|Failed|Timeout|Cancelled|Aborted)(?= |$)", errors.__doc__, re.MULTILINE))
    builtin = {"ValueError", "LookupError", "ImportError", "NotImplementedError", "PermissionError", "TimeoutError"}
    assert drawn - builtin == {cls.__name__ for cls in ERRORS if not cls.__name__.startswith("_")}


def test_only_what_may_be_repeated_is_transient():
    assert {cls.__name__ for cls in ERRORS if cls.transient} == {
        "_RetryLaterError",
        "ThrottledError",
        "UnavailableError",
    }


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.ConfigurationError, ValueError),
        (errors.UnknownBackendError, LookupError),
        (errors.MissingDependencyError, ImportError),
        (errors.UnsupportedError, NotImplementedError),
        (errors.InvalidRequestError, ValueError),
        (errors.NotFoundError, LookupError),
        (errors.AccessDeniedError, PermissionError),
        (errors.OperationTimeout, TimeoutError),
    ],
)
def test_errors_are_kin_of_the_builtin_ones(cls, builtin):
    assert issubclass(cls, builtin)


def test_a_body_is_capped():
    assert len(errors.PredictionError("it broke", body="x" * 10_000).body) == errors.BODY_LIMIT


def test_what_is_given_is_copied():
    context, traffic = {"endpoint": "iris"}, {"v1": 100}
    error = errors.RolloutAborted("it broke", traffic=traffic, context=context)
    context.clear()
    traffic.clear()
    assert (error.context, error.traffic) == ({"endpoint": "iris"}, {"v1": 100})
