"""The caller's side of a request: what is written is what the server reads."""

from __future__ import annotations

import numpy as np
import pytest

from modeldeploy.serving import caller, wire
from modeldeploy.serving.inputs import TALL
from modeldeploy.serving.messages import Request
from modeldeploy.values.model import DType, Field, Signature

NAMES = ("a", "b", "c")


def signature(dtype=DType.FLOAT64):
    return Signature(tuple(Field(name, dtype) for name in NAMES), (Field("prediction", DType.FLOAT64),))


def sent(given, wanted):
    payload = caller.encode(given, wanted, path="/v2/models/iris/infer")
    headers = {name: value for name, value in payload.headers.items() if name != "path"}
    return wire.decode(Request("POST", "/v2/models/iris/infer", headers=headers, body=payload.body), wanted).columns


@pytest.mark.parametrize("rows", [1, TALL - 1, TALL, TALL + 1])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [DType.FLOAT64, DType.FLOAT32, DType.INT8, DType.BOOL])
def test_a_matrix_arrives_as_it_is(rows, order, dtype):
    rng = np.random.default_rng(rows)
    matrix = np.asarray(rng.integers(0, 2, (rows, 3)).astype(dtype.value), order=order)
    columns = dict(zip(NAMES, matrix.T, strict=True))
    for given in (matrix, columns, matrix[::1], np.asarray(matrix, dtype=matrix.dtype.newbyteorder(">"))):
        got = sent(given, signature(dtype))
        for name, array in columns.items():
            np.testing.assert_array_equal(got[name], array)
            assert got[name].dtype == dtype.value


def test_a_part_of_a_matrix_arrives_as_it_is():
    matrix = np.asfortranarray(np.arange(3.0 * 3 * TALL).reshape(-1, 3))
    got = sent(matrix[5 : TALL + 7], signature())
    np.testing.assert_array_equal(got["b"], matrix[5 : TALL + 7, 1])


def test_few_rows_are_one_tensor_and_many_that_lie_in_columns_one_for_each():
    """The first saves the server the look at each column, the second both sides the turning."""

    def tensors(matrix):
        payload = caller.encode(matrix, signature(), path="/")
        head = payload.body[: int(payload.headers[wire.HEADER])]
        return [each["name"] for each in wire.load_json(head)["inputs"]]

    assert tensors(np.zeros((10, 3), order="F")) == ["input"]
    assert tensors(np.zeros((TALL, 3))) == ["input"]
    assert tensors(np.zeros((TALL, 3), order="F")) == list(NAMES)
