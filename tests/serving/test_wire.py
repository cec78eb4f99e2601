from __future__ import annotations

import contextlib
import json
import struct

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modeldeploy.serving import wire
from modeldeploy.serving.messages import RefusedError, Request
from modeldeploy.values.model import DType, Field, Signature

NAMES = [
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
]
shapes = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)
numbers = st.sampled_from(NAMES).flatmap(
    lambda name: hnp.arrays(
        name, shapes, elements={"allow_nan": False, "allow_infinity": False} if "float" in name else None
    )
)
texts = shapes.flatmap(lambda shape: hnp.arrays(object, shape, elements=st.text(max_size=6), fill=st.nothing()))
arrays = st.one_of(numbers, texts)


def signature_of(array: np.ndarray, *, nullable: bool = True) -> Signature:
    dtype = DType.STRING if array.dtype == object else DType(array.dtype.name)
    field = Field("x", dtype, array.shape[1:], nullable)
    return Signature((field,), (field,))


def infer_of(array: np.ndarray, *, binary: bool) -> wire.Infer:
    return wire.Infer({}, (wire.Wanted("x", binary),), "id-1")


def sent(document: object, tail: bytes = b"", **headers: str) -> Request:
    head = orjson.dumps(document)
    length = {wire.HEADER: str(len(head))} if tail else {}
    return Request("POST", "/", "", {**length, **headers}, head + tail)


def tensor(**changes: object) -> dict[str, object]:
    return {"name": "x", "shape": [2], "datatype": "FP64", "data": [1.0, 2.0], **changes}


# The first array that is drawn costs a second of set-up on a busy machine.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
FLOATS = Signature((Field("x", DType.FLOAT64),), (Field("y", DType.FLOAT64),))


@patient
@given(arrays, st.booleans())
def test_what_is_written_as_outputs_reads_back_as_inputs(array, binary):
    """The two directions share one form, so each checks the other."""
    answer = wire.encode(infer_of(array, binary=binary), {"x": array}, model="m", version="1")
    read = wire.read_tensors(Request("POST", "/", "", answer.headers, answer.body), "outputs")["x"]
    assert read.shape == array.shape
    if binary or array.dtype.kind != "f":
        assert read.dtype == array.dtype
    np.testing.assert_array_equal(read.astype(array.dtype), array)


@patient
@given(arrays)
def test_binary_arrays_are_the_callers_own_to_write_to(array):
    answer = wire.encode(infer_of(array, binary=True), {"x": array}, model="m", version="1")
    read = wire.read_tensors(Request("POST", "/", "", answer.headers, answer.body), "outputs")["x"]
    assert read.flags.writeable
    assert read.flags.aligned


@patient
@given(st.binary(max_size=60), st.text(max_size=5))
def test_any_bytes_are_read_or_refused(body, length):
    for headers in ({}, {wire.HEADER: length}):
        with pytest.raises(RefusedError) as caught:
            wire.Reader(FLOATS).decode(Request("POST", "/", "", headers, body))
        assert 400 <= caught.value.status < 500


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@patient
@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("name", "shape", "datatype", "data", "parameters"), json_values)),
    json_values,
)
def test_any_json_in_a_tensor_is_read_or_refused(changes, extra):
    document = {"inputs": [tensor(**changes)], "outputs": extra}
    with contextlib.suppress(RefusedError):
        wire.Reader(FLOATS).decode(sent(document))


def test_binary_input_is_taken_in_the_order_of_the_tensors():
    two = Signature((Field("a", DType.INT32), Field("b", DType.STRING)), FLOATS.outputs)
    document = {
        "inputs": [
            {"name": "a", "shape": [2], "datatype": "INT32", "parameters": {"binary_data_size": 8}},
            {"name": "b", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 13}},
        ]
    }
    tail = struct.pack("<ii", 7, -8) + struct.pack("<I", 2) + "é".encode() + struct.pack("<I", 3) + b"abc"
    columns = wire.Reader(two).decode(sent(document, tail)).columns
    assert columns["a"].tolist() == [7, -8]
    assert columns["b"].tolist() == ["é", "abc"]


@pytest.mark.parametrize("nested", [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]])
def test_json_data_may_be_flat_or_nested(nested):
    vector = Signature((Field("x", DType.FLOAT64, (3,)),), FLOATS.outputs)
    columns = wire.Reader(vector).decode(sent({"inputs": [tensor(shape=[2, 3], data=nested)]})).columns
    assert columns["x"].tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


def test_one_matrix_fills_scalar_columns_of_one_type():
    frame = Signature((Field("a", DType.FLOAT64), Field("b", DType.FLOAT64)), FLOATS.outputs)
    columns = (
        wire.Reader(frame).decode(sent({"inputs": [tensor(name="any", shape=[3, 2], data=[1, 2, 3, 4, 5, 6])]})).columns
    )
    assert {name: column.tolist() for name, column in columns.items()} == {"a": [1, 3, 5], "b": [2, 4, 6]}


def test_a_column_with_an_axis_of_one_is_a_scalar_column():
    columns = wire.Reader(FLOATS).decode(sent({"inputs": [tensor(shape=[2, 1])]})).columns
    assert columns["x"].tolist() == [1.0, 2.0]


def test_each_output_comes_in_the_form_that_was_asked_for():
    pair = Signature(FLOATS.inputs, (Field("y", DType.INT64), Field("z", DType.STRING)))
    document = {
        "id": "42",
        "inputs": [tensor()],
        "parameters": {"binary_data_output": True},
        "outputs": [{"name": "z", "parameters": {"binary_data": False}}, {"name": "y"}],
    }
    infer = wire.Reader(pair).decode(sent(document))
    outputs = {"y": np.array([1, 2]), "z": np.array(["a", None], dtype=object)}
    answer = wire.encode(infer, outputs, model="m", version="r")
    size = int(answer.headers[wire.HEADER])
    head = json.loads(answer.body[:size])
    assert (head["id"], head["model_name"], head["model_version"]) == ("42", "m", "r")
    assert head["outputs"][0] == {"name": "z", "datatype": "BYTES", "shape": [2], "data": ["a", None]}
    assert head["outputs"][1]["parameters"] == {"binary_data_size": 16}
    assert answer.body[size:] == struct.pack("<qq", 1, 2)


def test_nan_is_null_in_json_and_itself_in_binary():
    array = np.array([1.0, np.nan])
    text = wire.encode(infer_of(array, binary=False), {"x": array}, model="m", version="1")
    assert json.loads(text.body)["outputs"][0]["data"] == [1.0, None]
    binary = wire.encode(infer_of(array, binary=True), {"x": array}, model="m", version="1")
    read = wire.read_tensors(Request("POST", "/", "", binary.headers, binary.body), "outputs")["x"]
    assert np.isnan(read[1])


BROKEN = {
    "no JSON": (Request("POST", "/", "", {}, b"{"), 400, None),
    "NaN literal": (
        Request("POST", "/", "", {}, b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[NaN]}]}'),
        400,
        None,
    ),
    "Infinity literal": (Request("POST", "/", "", {}, b"[Infinity]"), 400, None),
    "1e999": (Request("POST", "/", "", {}, b'{"inputs":[1e999]}'), 400, None),
    "invalid UTF-8": (Request("POST", "/", "", {}, b'{"inputs":"\xff"}'), 400, None),
    "depth 1e5": (Request("POST", "/", "", {}, b"[" * 100_000), 400, None),
    "a list": (sent([1]), 400, None),
    "no inputs": (sent({}), 400, None),
    "empty inputs": (sent({"inputs": []}), 400, None),
    "no name": (sent({"inputs": [{"shape": [1]}]}), 400, None),
    "no datatype": (sent({"inputs": [tensor(datatype=None)]}), 400, "x"),
    "BF16": (sent({"inputs": [tensor(datatype="BF16")]}), 400, "x"),
    "no shape": (sent({"inputs": [tensor(shape=None)]}), 400, "x"),
    "shape without rows": (sent({"inputs": [tensor(shape=[])]}), 400, "x"),
    "negative shape": (sent({"inputs": [tensor(shape=[-1])]}), 400, "x"),
    "huge shape": (sent({"inputs": [tensor(shape=[2**40, 2**40])]}), 400, "x"),
    "huge empty shape": (sent({"inputs": [tensor(shape=[0, 2**62, 2**62], data=[])]}), 400, "x"),
    "many axes": (sent({"inputs": [tensor(shape=[1] * 60, data=[1])]}), 400, "x"),
    "fewer values": (sent({"inputs": [tensor(shape=[3])]}), 400, "x"),
    "ragged": (sent({"inputs": [tensor(shape=[2, 2], data=[[1, 2], 3, 4])]}), 400, "x"),
    "ragged text": (sent({"inputs": [tensor(shape=[1, 2], datatype="BYTES", data=[["a"], "b"])]}), 400, "x"),
    "no data": (sent({"inputs": [tensor(data=None)]}), 400, "x"),
    "text as number": (sent({"inputs": [tensor(data=[1, "2"])]}), 422, "x"),
    "flag as number": (sent({"inputs": [tensor(data=[1, True])]}), 422, "x"),
    "number as flag": (sent({"inputs": [tensor(datatype="BOOL", data=[1, 0])]}), 422, "x"),
    "float as integer": (sent({"inputs": [tensor(datatype="INT64", data=[1, 2.5])]}), 422, "x"),
    "integer out of range": (sent({"inputs": [tensor(datatype="INT8", data=[1, 128])]}), 422, "x"),
    "negative unsigned": (sent({"inputs": [tensor(datatype="UINT64", data=[1, -1])]}), 422, "x"),
    "integer no float holds": (sent({"inputs": [tensor(data=[1, 2**53 + 1])]}), 422, "x"),
    "number as text": (sent({"inputs": [tensor(datatype="BYTES", data=["a", 1])]}), 422, "x"),
    "tensor twice": (sent({"inputs": [tensor(), tensor()]}), 400, "x"),
    "id is a number": (sent({"inputs": [tensor()], "id": 1}), 400, None),
    "shared memory": (sent({"inputs": [tensor(parameters={"shared_memory_region": "r"})]}), 400, "x"),
    "parameters a list": (sent({"inputs": [tensor(parameters=[1])]}), 400, "x"),
    "outputs no list": (sent({"inputs": [tensor()], "outputs": {}}), 400, None),
    "unknown output": (sent({"inputs": [tensor()], "outputs": [{"name": "q"}]}), 422, "q"),
    "classification": (
        sent({"inputs": [tensor()], "outputs": [{"name": "y", "parameters": {"classification": 3}}]}),
        400,
        "y",
    ),
    "binary flag no flag": (sent({"inputs": [tensor()], "parameters": {"binary_data_output": 1}}), 400, None),
    "header no number": (sent({}, **{wire.HEADER: "ten"}), 400, None),
    "header beyond body": (sent({}, **{wire.HEADER: "99"}), 400, None),
    "header of many digits": (sent({}, **{wire.HEADER: "9" * 5000}), 400, None),
}
_BINARY = {"parameters": {"binary_data_size": 16}, "data": None}
BROKEN |= {
    "binary truncated": (sent({"inputs": [tensor(**_BINARY)]}, b"x" * 15), 400, "x"),
    "binary too long": (sent({"inputs": [tensor(**_BINARY)]}, b"x" * 17), 400, None),
    "binary size lies": (sent({"inputs": [tensor(**_BINARY, shape=[3])]}, b"x" * 16), 400, "x"),
    "binary size negative": (sent({"inputs": [tensor(parameters={"binary_data_size": -1})]}, b"x"), 400, "x"),
    "binary size a flag": (sent({"inputs": [tensor(parameters={"binary_data_size": True})]}, b"x"), 400, "x"),
    "binary flag 2": (
        sent({"inputs": [tensor(datatype="BOOL", parameters={"binary_data_size": 2})]}, b"\x01\x02"),
        422,
        "x",
    ),
    "bytes length lies": (
        sent({"inputs": [tensor(datatype="BYTES", shape=[1], parameters={"binary_data_size": 5})]}, b"\x09\0\0\0a"),
        400,
        "x",
    ),
    "bytes cut": (
        sent({"inputs": [tensor(datatype="BYTES", shape=[1], parameters={"binary_data_size": 3})]}, b"\0\0\0"),
        400,
        "x",
    ),
    "bytes left": (
        sent({"inputs": [tensor(datatype="BYTES", shape=[1], parameters={"binary_data_size": 5})]}, b"\0\0\0\0a"),
        400,
        "x",
    ),
    "bytes no text": (
        sent({"inputs": [tensor(datatype="BYTES", shape=[1], parameters={"binary_data_size": 5})]}, b"\x01\0\0\0\xff"),
        422,
        "x",
    ),
}


@pytest.mark.parametrize(("request_", "status", "field"), BROKEN.values(), ids=BROKEN)
def test_a_wrong_request_is_refused_with_its_status_and_field(request_, status, field):
    with pytest.raises(RefusedError) as caught:
        wire.Reader(FLOATS).decode(request_)
    assert (caught.value.status, caught.value.field) == (status, field)
    assert len(str(caught.value)) < 600
