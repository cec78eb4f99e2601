"""The four functions that prebuilt images call, called as the public toolkit calls them."""

from __future__ import annotations

import inspect
import json
import shutil
import sys
import types

import numpy as np
import pytest

from modeldeploy.errors import IntegrityError
from modeldeploy.packaging.golden import Golden
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store
from modeldeploy.serving import handlers


def _double(columns):
    return columns["x"] * 2


@pytest.fixture
def bundle(tmp_path):
    example = {"x": np.array([0.5, 1.0])}
    return package(_double, name="double", version="1.0.0", example=example, store=Store(tmp_path / "store"))


@pytest.fixture
def model_dir(tmp_path, bundle, monkeypatch):
    """What an image finds in /opt/ml/model."""
    shutil.copytree(bundle.path, tmp_path / "model" / "bundle")
    monkeypatch.setenv("MODELDEPLOY_TRUST", bundle.digest)
    return str(tmp_path / "model")


def transform(model, body, content_type, accept):
    """As the toolkit's default transform does."""
    return handlers.output_fn(handlers.predict_fn(handlers.input_fn(body, content_type), model), accept)


def test_each_function_takes_what_the_toolkit_gives():
    """It counts parameters: the arguments, and one more for the context where a function wants it."""
    counts = {
        name: len(inspect.signature(getattr(handlers, name)).parameters)
        for name in ("model_fn", "input_fn", "predict_fn", "output_fn")
    }
    assert counts == {"model_fn": 2, "input_fn": 3, "predict_fn": 3, "output_fn": 3}


@pytest.mark.parametrize(
    ("body", "kind", "accept", "answer"),
    [
        (b'{"instances": [{"x": 1.5}]}', "application/json", "application/json", b'{"predictions":[3.0]}'),
        ('{"instances": [{"x": 1.5}]}', "application/json", "*/*", b'{"predictions":[3.0]}'),
        (bytearray(b"1.5\n2.5\n"), "text/csv", "text/csv", b"3.0\n5.0\n"),
        (b'{"x": 1.5}\n{"x": 2}\n', "application/jsonlines", "application/jsonlines", b"3.0\n4.0\n"),
    ],
    ids=["json", "text", "csv", "lines"],
)
def test_a_request_is_answered_in_the_form_that_is_accepted(model_dir, body, kind, accept, answer):
    found, content_type = transform(handlers.model_fn(model_dir), body, kind, accept)
    assert found == answer
    assert content_type.startswith(kind)


def test_golden_outputs_are_given(model_dir, bundle):
    golden = Golden.from_bytes(bundle.read("golden.json"))
    body = json.dumps({"instances": [{"x": x} for x in golden.inputs["x"].tolist()]})
    found, _type = transform(handlers.model_fn(model_dir), body, "application/json", "application/json")
    assert not golden.differences({"prediction": np.array(json.loads(found)["predictions"])})


def test_pickled_content_that_nobody_vouched_for_is_not_loaded(model_dir, monkeypatch):
    monkeypatch.delenv("MODELDEPLOY_TRUST")
    with pytest.raises(IntegrityError, match="vouched"):
        handlers.model_fn(model_dir)


def test_a_wrong_request_has_its_status_where_the_toolkit_is(model_dir, monkeypatch):
    errors = types.ModuleType("sagemaker_inference.errors")
    errors.BaseInferenceToolkitError = type("BaseInferenceToolkitError", (Exception,), {})
    monkeypatch.setitem(sys.modules, "sagemaker_inference", types.ModuleType("sagemaker_inference"))
    monkeypatch.setitem(sys.modules, "sagemaker_inference.errors", errors)
    with pytest.raises(errors.BaseInferenceToolkitError, match="'y'") as caught:
        transform(handlers.model_fn(model_dir), b'{"instances": [{"x": 1, "y": 2}]}', "application/json", "*/*")
    assert caught.value.status_code == 422
    assert "'y'" in caught.value.message


def test_a_wrong_request_has_its_status_in_the_older_host_too(model_dir, monkeypatch):
    framework = types.ModuleType("sagemaker_containers.beta.framework")
    framework.worker = types.SimpleNamespace(Response=lambda **said: said)
    for name in ("sagemaker_containers", "sagemaker_containers.beta"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "sagemaker_containers.beta.framework", framework)
    found = transform(handlers.model_fn(model_dir), b'{"instances": [{"x": 1, "y": 2}]}', "application/json", "*/*")
    assert (found["status"], found["mimetype"]) == (422, "application/json")
    assert b"'y'" in found["response"]


def test_a_wrong_request_is_an_error_without_the_toolkit_too(model_dir):
    with pytest.raises(RuntimeError, match="'y'"):
        transform(handlers.model_fn(model_dir), b'{"instances": [{"x": 1, "y": 2}]}', "application/json", "*/*")


def test_rows_are_answered_one_by_one_when_a_job_asks_for_it(model_dir, monkeypatch):
    monkeypatch.setenv("MODELDEPLOY_ROW_BY_ROW", "1")
    body = b'{"x": 1.5}\n{"x": "a"}\n{"x": 2.5}\n'
    found, _type = transform(handlers.model_fn(model_dir), body, "application/jsonlines", "application/jsonlines")
    first, second, third = found.splitlines()
    assert (first, third) == (b"3.0", b"5.0")
    assert b"expected float64" in second
