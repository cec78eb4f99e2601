"""What a caller holds: the matrix and the columns never disagree, and nothing is copied in vain."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeldeploy.errors import InvalidRequestError
from modeldeploy.packaging.blocks import Block
from modeldeploy.packaging.signature import to_columns
from modeldeploy.serving import inputs
from modeldeploy.values.model import DType, Field, Signature

NAMES = ("a", "b", "c")
VALUES = {
    "f": st.sampled_from([0.0, 1.5, -2.0, 1e300, float("nan"), float("inf"), 1e39]),
    "i": st.sampled_from([0, 1, -1, 255, 1 << 24, (1 << 24) + 1, (1 << 53) + 1]),
    "b": st.booleans(),
    "o": st.sampled_from([None, 1, 2.5, True, "x", (1 << 53) + 1]),
}
NUMPY = {"f": "float64", "i": "int64", "b": "bool", "o": "object"}


def signature(dtype="float64", *, nullable=(), names=NAMES):
    fields = tuple(Field(name, DType(dtype), nullable=name in nullable) for name in names)
    return Signature(inputs=fields, outputs=(Field("prediction", DType.FLOAT64),))


def by(read, data, wanted):
    try:
        return dict(read(data, wanted))
    except InvalidRequestError as error:
        return str(error)


@st.composite
def tables(draw):
    kind = draw(st.sampled_from("fibo"))
    rows = draw(st.integers(0, 4))
    names = draw(st.permutations(NAMES))
    extra = draw(st.sampled_from([[], ["d"]]))
    missing = draw(st.sampled_from([0, 0, 1]))
    names = [*names[missing:], *extra]
    other = draw(st.sampled_from([kind, kind, *VALUES]))
    kinds = [kind] * (len(names) - 1) + [other]
    return {
        name: np.array(draw(st.lists(VALUES[each], min_size=rows, max_size=rows)), dtype=NUMPY[each])
        for name, each in zip(names, kinds, strict=True)
    }


def forms(columns):
    """Give a table in every form that can hold it."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*(c.tolist() for c in columns.values()), strict=True)]
    yield pd.DataFrame(columns)
    yield rows
    yield [list(row.values()) for row in rows]
    if all(array.dtype != object for array in columns.values()):
        yield pl.DataFrame(columns)
        yield pa.table(columns)
        yield np.stack(list(columns.values()), axis=1)


@settings(max_examples=300, deadline=None)
@given(
    tables(),
    st.sampled_from(["float64", "float32", "int64", "uint8", "bool"]),
    st.sets(st.sampled_from(NAMES)),
)
def test_matrix_and_columns_never_disagree(columns, dtype, nullable):
    wanted = signature(dtype, nullable=nullable)
    for data in forms(columns):
        short, long = by(inputs.read, data, wanted), by(to_columns, data, wanted)
        if isinstance(long, str):
            assert short == long
            continue
        assert list(short) == list(long)
        for name, array in long.items():
            assert short[name].dtype == array.dtype
            np.testing.assert_array_equal(short[name], array)


@settings(max_examples=150, deadline=None)
@given(tables(), st.sampled_from(["float64", "float32", "int64"]), st.booleans(), st.sampled_from([2, 3, None]))
def test_nor_do_they_for_a_model_that_takes_one_array(columns, dtype, nullable, width):
    field = Field("input", DType(dtype), (width,), nullable=nullable)
    wanted = Signature((field,), (Field("prediction", DType.FLOAT64),))
    for data in forms(columns):
        short, long = by(inputs.read, data, wanted), by(to_columns, data, wanted)
        if isinstance(long, str):
            assert short == long
        else:
            assert short["input"].dtype == long["input"].dtype
            np.testing.assert_array_equal(short["input"], long["input"])


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_of_the_right_type_is_not_copied(order):
    data = np.asarray(np.arange(12.0).reshape(4, 3), order=order)
    assert inputs.read(data, signature()).matrix is data


def test_a_frame_of_one_type_is_not_copied():
    data = pd.DataFrame(np.arange(12.0).reshape(4, 3), columns=list(NAMES))
    assert np.shares_memory(inputs.read(data, signature()).matrix, data.to_numpy())


@pytest.mark.parametrize("rows", [3, inputs.TALL])
@pytest.mark.parametrize("make", [pl.DataFrame, pa.table])
def test_many_rows_that_lie_in_columns_stay_there(make, rows):
    columns = {name: np.arange(float(rows)) for name in NAMES}
    found = inputs.read(make(columns), signature())
    assert isinstance(found, Block) == (rows < inputs.TALL)
    for name, array in found.items():
        np.testing.assert_array_equal(array, columns[name])


def test_columns_go_by_name_whatever_their_order():
    data = pd.DataFrame({"c": [3.0], "a": [1.0], "b": [2.0]})
    assert inputs.read(data, signature()).matrix.tolist() == [[1.0, 2.0, 3.0]]


def test_numbers_as_labels_are_names():
    data = pd.DataFrame([[1.0, 2.0]])
    assert inputs.read(data, signature(names=("0", "1"))).matrix.tolist() == [[1.0, 2.0]]


def test_rows_are_parted_without_a_copy():
    block = Block(NAMES, np.arange(12.0).reshape(4, 3), whole=False)
    columns = {"a": np.arange(4.0), "b": np.array(list("wxyz"), dtype=object)}
    part = inputs.part(block, range(1, 3))
    assert part.matrix.tolist() == [[3, 4, 5], [6, 7, 8]]
    assert part.names == NAMES
    assert np.shares_memory(part.matrix, block.matrix)
    assert {name: array.tolist() for name, array in inputs.part(columns, range(1, 3)).items()} == {
        "a": [1.0, 2.0],
        "b": ["x", "y"],
    }


def test_the_size_of_a_row_is_that_on_the_wire():
    assert inputs.row_bytes(Block(NAMES, np.zeros((4, 3)), whole=False)) == 24
    texts = np.array([None, "\u20ac" * 4] * 5_000, dtype=object)
    assert inputs.row_bytes({"a": np.zeros(10_000), "b": texts}) == pytest.approx(8 + 4 + 6, abs=7)
    assert inputs.row_bytes({"a": np.empty((0, 3))}) == 1
