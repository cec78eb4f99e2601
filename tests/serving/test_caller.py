"""The caller's side of a request: what is written is what the server reads."""

from __future__ import annotations

import numpy as np
import pytest

from modeldeploy.packaging.blocks import Block
from modeldeploy.serving import caller, wire
from modeldeploy.serving.messages import Request
from modeldeploy.values.model import DType, Field, Signature

NAMES = ("a", "b", "c")


def signature(dtype=DType.FLOAT64):
    return Signature(tuple(Field(name, dtype) for name in NAMES), (Field("prediction", DType.FLOAT64),))


def sent(given, wanted):
    payload = caller.encode(given, wanted, path="/v2/models/iris/infer")
    headers = {name: value for name, value in payload.headers.items() if name != "path"}
    return (
        wire.Reader(wanted).decode(Request("POST", "/v2/models/iris/infer", headers=headers, body=payload.body)).columns
    )


@pytest.mark.parametrize("rows", [1, 5_000])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [DType.FLOAT64, DType.FLOAT32, DType.INT8, DType.BOOL])
def test_a_table_of_one_type_arrives_as_it_is(rows, order, dtype):
    rng = np.random.default_rng(rows)
    matrix = np.asarray(rng.integers(0, 2, (rows, 3)).astype(dtype.value), order=order)
    columns = dict(zip(NAMES, matrix.T, strict=True))
    foreign = matrix.astype(matrix.dtype.newbyteorder(">"))
    for given in (block(matrix), columns, block(foreign)):
        got = sent(given, signature(dtype))
        for name, array in columns.items():
            np.testing.assert_array_equal(got[name], array)
            assert got[name].dtype == dtype.value


def test_a_part_of_a_table_arrives_as_it_is():
    matrix = np.asfortranarray(np.arange(300.0).reshape(-1, 3))
    np.testing.assert_array_equal(sent(block(matrix[5:77]), signature())["b"], matrix[5:77, 1])


def test_columns_of_several_types_arrive_one_by_one():
    fields = (Field("a", DType.FLOAT64), Field("b", DType.STRING, nullable=True), Field("c", DType.INT8, (2,)))
    given = {
        "a": np.array([1.5, 2.5]),
        "b": np.array(["x", None], dtype=object),
        "c": np.array([[1, 2], [3, 4]], dtype=np.int8),
    }
    got = sent(given, Signature(fields, (Field("prediction", DType.FLOAT64),)))
    assert {name: array.tolist() for name, array in got.items()} == {
        name: array.tolist() for name, array in given.items()
    }


def block(matrix):
    return Block(NAMES, matrix, whole=False)
