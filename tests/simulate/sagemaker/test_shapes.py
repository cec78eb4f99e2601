"""The service's own model, as it is read here."""

from __future__ import annotations

import re

import pytest
from botocore.model import Shape

from modeldeploy.simulate.sagemaker import shapes
from modeldeploy.simulate.sagemaker.control import Control
from modeldeploy.simulate.sagemaker.operations import operations


@pytest.mark.parametrize(
    ("pattern", "value", "expected"),
    [
        pytest.param(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", "a--b", True, id="name"),
        pytest.param(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", "a-", False, id="whole"),
        pytest.param(r"([\p{L}\p{Z}\p{N}_.:\/=+\-@]*)${1,256}", "tag: é/1 @x", True, id="letters"),
        pytest.param(r"([\p{L}\p{Z}\p{N}_.:\/=+\-@]*)${1,256}", "tag; x", False, id="no-letters"),
        pytest.param(r"\p{ASCII}*", "é", False, id="ascii"),
        pytest.param(r"\A\S[\p{Print}]*\z", "id 1", True, id="print"),
        pytest.param(r"\A\S[\p{Print}]*\z", " id", False, id="print-space"),
        pytest.param("[\\u0020-\\uD7FF\\uE000-\\uFFFD\\uD800\\uDC00-\\uDBFF\\uDFFF\\t]*", "any", True, id="surrogates"),
    ],
)
def test_patterns_are_javas(pattern, value, expected):
    assert shapes.matches(pattern, value) is expected


def test_every_pattern_of_the_service_can_be_read():
    unread = set()
    for service in ("sagemaker", "sagemaker-runtime"):
        model = shapes.load(service)
        found = [model.shape_for(name).metadata.get("pattern") for name in model.shape_names]
        for pattern in filter(None, found):
            try:
                re.compile(shapes._from_java(pattern))
            except re.error:
                unread.add(pattern)
    assert all("uD7FF" in pattern for pattern in unread)


def test_an_answer_that_is_not_the_services_is_an_error_of_ours():
    shape: Shape = shapes.load("sagemaker").operation_model("CreateModel").output_shape
    shapes.check_answer("CreateModel", shape, {"ModelArn": "arn:aws:sagemaker:us-east-1:123456789012:model/m"})
    with pytest.raises(AssertionError, match="the simulated answer to CreateModel"):
        shapes.check_answer("CreateModel", shape, {"ModelArn": "m", "Colour": "blue"})


def test_the_headers_of_an_answer_are_held_too():
    shape = shapes.load("sagemaker-runtime").operation_model("InvokeEndpoint").output_shape
    shapes.check_headers("InvokeEndpoint", shape, {"content-type": "text/csv", "x-amzn-requestid": "any"})
    with pytest.raises(AssertionError, match="at 'customAttributes'"):
        shapes.check_headers("InvokeEndpoint", shape, {"x-amzn-sagemaker-custom-attributes": "x" * 1025})


def test_only_operations_of_the_service_are_simulated(cloud):
    parts = cloud.simulator._running._parts
    assert set(operations(parts)) <= set(shapes.load("sagemaker").operation_names)
    assert Control(operations(parts)).answer("DescribeWeather", b"{}").status == 400
