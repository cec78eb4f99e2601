"""The key of a request, wherever a caller may have put it."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.serving.keys import LARGEST, reader
from modeldeploy.serving.messages import Request


def ask(body: object = b"", **headers: str) -> Request:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("POST", "/invocations", headers=named, body=data)


def binary(*tensors: tuple[str, str, bytes]) -> Request:
    """Write an infer request whose tensors are all binary."""
    entries = [
        {"name": name, "shape": [1], "datatype": kind, "parameters": {"binary_data_size": len(data)}}
        for name, kind, data in tensors
    ]
    head = json.dumps({"inputs": entries}).encode()
    tail = b"".join(data for _name, _kind, data in tensors)
    return ask(head + tail, inference_header_content_length=str(len(head)))


def text(value: str) -> bytes:
    return struct.pack("<I", len(value.encode())) + value.encode()


def test_without_a_key_in_the_table_nothing_is_read():
    assert reader("") is None


def test_a_header_is_found_whatever_its_case_and_ours_comes_first():
    read = reader("header:X-User")
    assert read(ask(x_user="ana")) == "ana"
    assert read(ask(x_user="ana", modeldeploy_key="ben")) == "ben"
    assert read(ask({"X-User": "ana"})) is None
    assert read(ask(x_user="")) is None


def test_letters_are_the_same_key_in_a_header_and_in_a_field():
    sent_as_utf8, sent_as_latin1 = "änne".encode().decode("latin-1"), "änne"
    read = reader("field:user")
    for value in (sent_as_utf8, sent_as_latin1):
        assert read(ask(modeldeploy_key=value)) == read(ask({"user": "änne"})) == "änne"


@pytest.mark.parametrize(
    "body",
    [
        {"user": "ana", "x": 1},
        {"parameters": {"user": "ana"}, "instances": [[1.0]]},
        {"instances": [{"x": 1, "user": "ana"}, {"x": 2, "user": "ben"}]},
        {"rows": [{"user": "ana"}]},
        {"records": [{"user": "ana"}]},
        {"dataframe_records": [{"user": "ana"}]},
        {"dataframe_split": {"columns": ["x", "user"], "data": [[1, "ana"], [2, "ben"]]}},
        {"input_data": {"columns": ["user"], "index": [0], "data": [["ana"]]}},
        {"inputs": {"x": [1, 2], "user": ["ana", "ben"]}},
        {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]},
                    {"name": "user", "shape": [1, 1], "datatype": "BYTES", "data": [["ana"]]}]},
        {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}], "parameters": {"user": "ana"}},
        [{"user": "ana"}, {"user": "ben"}],
        b'{"user": "ana"}\n{"user": "ben"}\n',
    ],
)  # fmt: skip
def test_a_field_is_found_in_every_contract(body):
    assert reader("field:user")(ask(body)) == "ana"


def test_a_field_is_found_behind_other_binary_tensors():
    read = reader("field:user")
    assert read(binary(("x", "FP64", struct.pack("<d", 2.5)), ("user", "BYTES", text("änne")))) == "änne"
    assert read(binary(("user", "INT64", struct.pack("<q", 7)), ("x", "FP64", struct.pack("<d", 2.5)))) == "7"


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"])  # fmt: skip
def test_a_number_is_the_same_key_in_every_form(kind):
    from modeldeploy.serving.datatypes import of_dtype

    array = np.array([7], dtype=kind)
    read = reader("field:user")
    forms = [
        binary(("user", of_dtype(array.dtype), array.tobytes())),
        ask({"user": 7}),
        ask({"user": 7.0}),
        ask({"user": "7"}),
    ]
    assert {read(form) for form in forms} == {"7"}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"1,2,3", b"null", b"7", b"[]", {}, {"other": 1}, {"user": None}, {"user": ""}, {"user": {}}, {"user": []},
     {"instances": []}, {"instances": [[1, 2]]}, {"instances": "user"}, {"inputs": [{"name": "user", "datatype": "FP32"}]},
     {"dataframe_split": {"columns": ["user"], "data": []}}, {"parameters": 3}],
)  # fmt: skip
def test_what_has_no_key_is_no_error(body):
    assert reader("field:user")(ask(body)) is None


def test_a_lying_length_is_no_error():
    read = reader("field:user")
    whole = binary(("user", "BYTES", text("ana")))
    for length in ("0", "3", "999999", "x", "-1", "9" * 5_000):
        assert read(Request("POST", "/", headers={"inference-header-content-length": length}, body=whole.body)) is None
    assert read(Request("POST", "/", headers=whole.headers, body=whole.body[:-4])) in {None, ""}


def test_a_huge_body_is_not_read_for_its_key():
    body = json.dumps({"user": "ana", "x": "y" * LARGEST}).encode()
    assert reader("field:user")(ask(body)) is None
    assert reader("field:user")(ask(body, modeldeploy_key="ana")) == "ana"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["user", "inputs", "instances", "data", "columns", "name", "datatype", "parameters"]),
                        inner, max_size=4), max_leaves=12))  # fmt: skip
def test_no_json_makes_it_fail(document):
    key = reader("field:user")(ask(document))
    assert key is None or (isinstance(key, str) and key)
