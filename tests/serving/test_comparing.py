"""When two answers say the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.serving import payloads, wire
from modeldeploy.serving.comparing import LARGEST, same_bytes, same_values
from modeldeploy.serving.messages import Response, json_response

CSV = {"content-type": "text/csv; charset=utf-8"}
LINES = {"content-type": "application/jsonlines"}


def infer(
    array: np.ndarray, version: str = "v1", *, binary: bool = False, name: str = "out", number: str | None = None
) -> Response:
    asked = wire.Infer({}, (wire.Wanted(name, binary),), number)
    return wire.encode(asked, {name: array}, model="iris", version=version)


def same(first: Response, second: Response) -> bool:
    return same_bytes(first, second) or same_values(first, second)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "bool", "object"])
def test_the_version_in_an_infer_answer_is_no_difference_and_needs_no_decoding(binary, dtype):
    array = np.array(["a", "ä"], dtype=object) if dtype == "object" else np.array([1, 0], dtype=dtype)
    first, second = infer(array, "v1", binary=binary, number="7"), infer(array, "v2-long", binary=binary, number="7")
    assert first.body != second.body
    assert same_bytes(first, second)
    assert same_values(first, second)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize(("dtype", "rounding", "change"), [("float32", 1e-5, 1e-3), ("float64", 1e-7, 1e-5)])
def test_rounding_is_no_difference_and_more_is(binary, dtype, rounding, change):
    array = np.array([[1.5, 2.5], [3.5, np.nan]], dtype=dtype)
    one, other = (infer((array * (1 + each)).astype(dtype), "v2", binary=binary) for each in (rounding, change))
    assert not same_bytes(infer(array, binary=binary), one)
    assert same_values(infer(array, binary=binary), one)
    assert not same_values(infer(array, binary=binary), other)


@pytest.mark.parametrize("other", [
    infer(np.array([1, 2, 3])), infer(np.array([[1, 3]])), infer(np.array([1, 3]), name="more"), infer(np.array([1, 4]), binary=True),
    Response(200, b'{"outputs": "text"}', {}), Response(200, b"{", {}), Response(200, b"", {}),
])  # fmt: skip
def test_other_shapes_names_values_and_what_cannot_be_read_differ(other):
    assert not same(infer(np.array([1, 3])), other)


def test_one_form_may_be_held_against_the_other():
    assert same(infer(np.array([1, 3])), infer(np.array([1, 3]), binary=True))


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        ([1.0, 2.0], [1.0, 2.00001], True),
        ([1.0, 2.0], [1.0, 2.001], False),
        ([10000, 7], [10001, 7], False),
        ([1.5, None], [1.50001, None], True),
        ([1.5, None], [1.5, 0.0], False),
        (["a", "b"], ["a", "b"], True),
        (["a", "b"], ["a", "c"], False),
        ([{"label": "a", "score": 0.5}], [{"label": "a", "score": 0.500001}], True),
        ([{"label": "a", "score": 0.5}], [{"label": "b", "score": 0.5}], False),
        ([{"a": 1}], [{"b": 1}], False),
        ([[1.0], [1.0, 2.0]], [[1.0], [1.00001, 2.0]], True),
        ([[1.0], [1.0, 2.0]], [[1.0, 1.0], [2.0]], False),
        ([True, False], [True, True], False),
        ([], [], True),
        ([1.0], [1.0, 1.0], False),
        ([1.0], {"a": 1.0}, False),
        (["1.0"], [1.0], False),
    ],
)
def test_predictions_in_json(first, second, alike):
    one, other = (json_response(200, {"predictions": each}) for each in (first, second))
    one.body += b" "  # never the same bytes
    assert same(one, other) is alike
    assert same(other, one) is alike


@pytest.mark.parametrize("kind", ["text/csv", "application/jsonlines"])
def test_predictions_in_lines(kind):
    def written(*values: float) -> Response:
        return Response(200, payloads.write({"x": np.array(values)}, kind), {"content-type": payloads.WRITTEN[kind]})

    assert same(written(1.0, 2.0), written(1.00001, 2.0))
    assert not same(written(1.0, 2.0), written(1.01, 2.0))
    assert not same(written(1.0, 2.0), written(1.0))
    assert not same(Response(200, b"yes\n", CSV), Response(200, b"no\n", CSV))


def test_a_name_in_the_data_does_not_hide_a_difference():
    first, second = ({"predictions": [{"a": a, "outputs": 5}]} for a in (1, 2))
    assert not same(Response(200, json.dumps(first).encode(), {}), Response(200, json.dumps(second).encode(), {}))


def test_a_huge_answer_to_what_had_a_small_one_differs():
    assert not same_values(Response(200, b"[]", {}), Response(200, b" " * LARGEST + b"[]", {}))


def test_what_nests_too_deep_differs():
    deep = b"[" * 5000 + b"]" * 5000
    assert not same(Response(200, deep, {}), Response(200, deep + b" ", {}))


documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["outputs", "name", "shape", "datatype", "data", "parameters", "x"]), inner, max_size=5),
    max_leaves=15,
)  # fmt: skip
kinds = st.sampled_from(["", "application/json", "text/csv", "application/jsonlines", "application/octet-stream"])
bodies = documents.map(lambda document: json.dumps(document).encode()) | st.binary(max_size=40)
answers = st.builds(
    lambda body, kind, length: Response(200, body, {"content-type": kind, **length}),
    bodies,
    kinds,
    st.just({}) | st.integers(-3, 50).map(lambda length: {"inference-header-content-length": str(length)}),
)


@given(answers, answers)
def test_no_answer_makes_it_fail_and_each_is_the_same_as_itself(first, second):
    assert same(first, second) in {True, False}
    assert same(first, first)
