from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeldeploy.errors import InvalidRequestError
from modeldeploy.packaging.signature import check
from modeldeploy.serving import matrix
from modeldeploy.values.model import DType, Field, Signature

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**54), 2**54) | st.integers(-9, 9)
values = numbers | st.sampled_from([True, None, "1", float("nan"), [1.0]])
dtypes = st.sampled_from([DType.FLOAT64, DType.FLOAT32, DType.FLOAT16, DType.INT64])


def signature_of(dtype: DType, *, width: int = 2, nullable: bool = False) -> Signature:
    fields = tuple(Field(f"c{at}", dtype, (), nullable) for at in range(width))
    return Signature(fields, (Field("y", DType.FLOAT64),))


@patient
@given(st.lists(st.lists(values, min_size=2, max_size=2), min_size=1, max_size=3), dtypes, st.booleans())
def test_the_short_way_takes_only_what_the_long_way_takes_and_gives_the_same(rows, dtype, nullable):
    signature = signature_of(dtype, nullable=nullable)
    short = matrix.of_rows(rows, signature)
    try:
        long = check(signature, {"c0": [row[0] for row in rows], "c1": [row[1] for row in rows]})
    except InvalidRequestError:
        long = None
    if short is not None:
        assert long is not None
        for name, column in short.items():
            assert column.dtype == long[name].dtype
            np.testing.assert_array_equal(column, long[name])


@patient
@given(st.lists(st.lists(values, min_size=1, max_size=3), min_size=1, max_size=3), dtypes, st.booleans())
def test_the_short_way_for_an_array_takes_only_what_the_long_way_takes(rows, dtype, nullable):
    signature = Signature((Field("x", dtype, (2,), nullable),), (Field("y", DType.FLOAT64),))
    short = matrix.of_rows(rows, signature)
    if short is not None:
        long = check(signature, {"x": rows})
        assert (list(short), short["x"].dtype) == (["x"], long["x"].dtype)
        np.testing.assert_array_equal(short["x"], long["x"])


def test_an_array_of_plain_floats_takes_the_short_way_however_long_it_is():
    signature = Signature((Field("x", DType.FLOAT32, (30,)),), (Field("y", DType.FLOAT64),))
    rows = np.random.default_rng(0).normal(size=(5_000, 30)).tolist()
    short = matrix.of_rows(rows, signature)
    assert short.whole
    np.testing.assert_array_equal(short["x"], np.array(rows, dtype=np.float32))


@pytest.mark.parametrize("large", [3.4028235677973366e38, 1e300, -1e39])
def test_what_a_float32_cannot_hold_takes_no_short_way(large):
    assert matrix.of_rows([[1.0, large]], signature_of(DType.FLOAT32)) is None
    assert matrix.of_rows([[1.0, large]], signature_of(DType.FLOAT64)) is not None


def test_plain_floats_do_take_the_short_way():
    short = matrix.of_rows([[1.5, 2], [3, 4.25]], signature_of(DType.FLOAT32))
    assert {name: column.tolist() for name, column in short.items()} == {"c0": [1.5, 3.0], "c1": [2.0, 4.25]}
    assert all(column.flags.c_contiguous and column.flags.writeable for column in short.values())


def test_a_matrix_of_the_columns_type_takes_the_short_way_and_no_other():
    signature = signature_of(DType.FLOAT64)
    good = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert matrix.of_array(good, signature)["c1"].tolist() == [2.0, 4.0]
    for other in (good.astype("float32"), good[:, :1], good[:0], good * np.nan, good[0]):
        assert matrix.of_array(other, signature) is None


@patient
@given(
    st.lists(st.lists(st.lists(values, min_size=2, max_size=2), min_size=1, max_size=3), min_size=1, max_size=4),
    st.sampled_from([DType.FLOAT64, DType.FLOAT32]),
)
def test_rows_of_several_callers_are_read_together_as_each_alone(tables, dtype):
    signature = signature_of(dtype)
    for rows, block in zip(tables, matrix.together(tables, signature), strict=True):
        alone = matrix.of_rows(rows, signature)
        assert (block is None) == (alone is None)
        if block is not None:
            np.testing.assert_array_equal(block.matrix, alone.matrix)


def test_rows_are_columns_too():
    rows = matrix.rows_of([[1.0, 2], [3.0, 4]], signature_of(DType.FLOAT64))
    assert dict(rows) == {"c0": [1.0, 3.0], "c1": [2, 4]}
    array = Signature((Field("x", DType.FLOAT64, (2,)),), (Field("y", DType.FLOAT64),))
    assert dict(matrix.rows_of([[1.0, 2]], array)) == {"x": [[1.0, 2]]}
    assert matrix.rows_of([[1.0], [1.0, 2.0]], array) is None


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.FLOAT64])
def test_a_row_of_floats_alone_takes_the_short_way_and_may_be_written_to(dtype):
    signature = Signature((Field("x", dtype, (3,)),), (Field("y", DType.FLOAT64),))
    short = matrix.of_rows([[0.1, -2.5, 3e8]], signature)
    np.testing.assert_array_equal(short["x"], np.array([[0.1, -2.5, 3e8]], dtype=dtype.value))
    assert short["x"].dtype == dtype.value
    assert short["x"].flags.writeable
    assert matrix.of_rows([[0.1, float("inf"), 1.0]], signature) is None
