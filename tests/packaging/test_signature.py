import contextlib

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nst

from modeldeploy.errors import ConfigurationError, InvalidRequestError
from modeldeploy.packaging.signature import check, infer, to_columns
from modeldeploy.values.model import DType, Field, Signature

TYPES = [each for each in DType if each is not DType.STRING]


def signature(*fields):
    return Signature(inputs=fields, outputs=(Field("prediction", DType.FLOAT64),))


PEOPLE = signature(
    Field("age", DType.INT64), Field("income", DType.FLOAT64, nullable=True), Field("city", DType.STRING)
)
ROWS = [{"age": 30, "income": 1.5, "city": "Bern"}, {"age": 40, "income": 2.5, "city": "Oslo"}]
VECTOR = signature(Field("input", DType.FLOAT64, shape=(3,)))


def strings(*values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


# ---------------------------------------------------------------- inference


@given(st.sampled_from(TYPES).flatmap(lambda each: nst.arrays(each.value, nst.array_shapes(min_dims=1, max_dims=3))))
def test_what_a_signature_was_inferred_from_passes_its_check_unchanged(array):
    inferred = infer({"x": array}, {"y": array})
    checked = check(inferred, {"x": array})["x"]
    assert checked.dtype == array.dtype
    np.testing.assert_array_equal(checked, array)


@given(st.lists(st.one_of(st.none(), st.text()), min_size=1))
def test_text_and_nulls_pass_the_check_of_their_own_signature(values):
    inferred = infer({"x": strings(*values)}, {})
    assert inferred.inputs[0].nullable == (None in values)
    assert check(inferred, {"x": values})["x"].tolist() == values


def test_a_column_takes_nan_when_the_example_holds_one_or_it_is_asked_for():
    columns = {"a": np.array([1.0, np.nan]), "b": np.array([1.0, 2.0]), "c": np.array([1.0, 2.0])}
    inferred = infer(columns, {}, nullable=["c"])
    assert [field.nullable for field in inferred.inputs] == [True, False, True]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array(["2020-01-01"], dtype="datetime64[s]"), "turn dates into numbers"),
        (np.array([1 + 2j]), "complex128"),
        (strings({"a": 1}), "holds dict values"),
        (strings({1}, None), "holds set values beside text or nulls"),
        (np.array([b"x"]), "bytes"),
    ],
)
def test_a_column_that_no_wire_carries_is_refused_with_a_remedy(values, message):
    with pytest.raises(ConfigurationError, match=message):
        infer({"when": values}, {})


def test_a_whole_number_column_cannot_be_nullable():
    with pytest.raises(ConfigurationError, match="int64, which has no NaN"):
        infer({"age": np.array([1])}, {}, nullable=["age"])


def test_a_nullable_column_that_is_not_there_is_refused():
    with pytest.raises(ConfigurationError, match="'incme'"):
        infer({"income": np.ones(2)}, {}, nullable=["incme"])


# ---------------------------------------------------------------- the check


def test_whole_numbers_become_floats_and_narrow_floats_are_rounded():
    wide = signature(Field("a", DType.FLOAT64), Field("b", DType.FLOAT32), Field("c", DType.INT8))
    checked = check(wide, {"a": [1, 2], "b": np.array([0.1, 0.2]), "c": np.array([-128, 127])})
    assert {name: array.dtype.name for name, array in checked.items()} == {"a": "float64", "b": "float32", "c": "int8"}


@pytest.mark.row(15)
@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        (Field("x", DType.INT64), [1.0, 2.0], "holds float values, expected int64"),
        (Field("x", DType.INT64), [1, "two"], r"holds 'two' \(str\) in row 1, expected int64"),
        (Field("x", DType.INT64), ["1", "2"], r"holds '1' \(str\) in row 0"),
        (Field("x", DType.INT64), [1, None], "holds a null in row 1"),
        (Field("x", DType.INT8), [1, 300], "holds 300 in row 1, which int8 cannot hold exactly"),
        (Field("x", DType.UINT8), [-1], "holds -1 in row 0"),
        (Field("x", DType.UINT64), [-1], "holds -1 in row 0"),
        (Field("x", DType.INT64), np.array([2**63], dtype=np.uint64), "cannot hold exactly"),
        (Field("x", DType.INT64), [2**70], "cannot be read|ragged|in row 0"),
        (Field("x", DType.FLOAT64), [2**53 + 1], "cannot hold exactly"),
        (
            Field("x", DType.FLOAT64),
            [2.5, 2**53 + 1],
            "holds 9007199254740993 in row 1, which float64 cannot hold exactly",
        ),
        (Field("x", DType.FLOAT32), [2.5, 2**24 + 1], "holds 16777217 in row 1, which float32 cannot hold exactly"),
        (
            Field("x", DType.FLOAT64, (), nullable=True),
            [None, 2**53 + 1],
            "in row 1, which float64 cannot hold exactly",
        ),
        (
            Field("x", DType.FLOAT64, (2,)),
            [[1.0, 2.0], [2.5, 2**53 + 1]],
            "in row 1, which float64 cannot hold exactly",
        ),
        (Field("x", DType.FLOAT32), [1e300], "too large for float32"),
        (Field("x", DType.FLOAT64), [1.0, np.nan], "holds NaN in row 1"),
        (Field("x", DType.FLOAT64), [1.0, -np.inf], "holds an infinity in row 1"),
        (Field("x", DType.FLOAT64), [1.0, None], "holds a null in row 1"),
        (Field("x", DType.FLOAT64), ["1.5"], "holds '1.5'"),
        (Field("x", DType.FLOAT64), [1.0, True], r"holds True \(bool\) in row 1"),
        (Field("x", DType.FLOAT64), [True], "bool"),
        (Field("x", DType.FLOAT64), [{"a": 1}], r"\(dict\) in row 0"),
        (Field("x", DType.FLOAT64), [[1.0], [2.0]], r"has shape \(2, 1\), expected \(rows\)"),
        (Field("x", DType.INT64), np.array(["2020-01-01"], dtype="datetime64[ns]"), "holds datetime64"),
        (Field("x", DType.FLOAT64), np.array([1 + 2j]), "holds complex128"),
        (Field("x", DType.FLOAT64), 5.0, "is the single float 5.0"),
        (Field("x", DType.BOOL), [0, 1], "holds integer values, expected bool"),
        (Field("x", DType.STRING), ["a", 5], r"holds 5 \(int\) in row 1, expected string"),
        (Field("x", DType.STRING), ["a", None], "holds a null in row 1"),
        (Field("x", DType.STRING), [b"a"], r"\(bytes\) in row 0"),
        (Field("x", DType.STRING), np.array([1.0]), r"holds 1.0 \(float\) in row 0"),
        (Field("x", DType.FLOAT64, (2,)), [[1.0, 2.0], [3.0]], "ragged: row 1"),
        (Field("x", DType.FLOAT64, (2,)), [[1.0, 2.0], [3.0, "b"]], r"'b' \(str\) in row 1"),
        (Field("x", DType.FLOAT64, (2,)), [[1.0, 2.0, 3.0]], r"expected \(rows, 2\)"),
        (Field("x", DType.FLOAT64, (None,)), [1.0], r"expected \(rows, any\)"),
    ],
)
def test_a_value_that_does_not_fit_names_column_row_and_both_types(field, values, message):
    with pytest.raises(InvalidRequestError, match=message) as caught:
        check(signature(field), {"x": values})
    assert caught.value.field == "x"


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"age": None}, "age", "column 'age' is missing"),
        ({"extra": [1, 2]}, "extra", "column 'extra' is not known"),
        ({"age": None, "Age": [1, 2]}, "age", "'age' is missing and column 'Age' is not known"),
        ({"city": ["Bern"]}, "city", "column 'city' has 1 rows where 'age' has 2"),
    ],
)
def test_columns_that_do_not_fit_are_named(change, field, message):
    columns = {"age": [30, 40], "income": [1.0, 2.0], "city": ["Bern", "Oslo"], **change}
    columns = {name: values for name, values in columns.items() if values is not None}
    with pytest.raises(InvalidRequestError, match=message) as caught:
        check(PEOPLE, columns)
    assert caught.value.field == field


def test_nulls_become_nan_and_none_where_they_are_allowed():
    fields = signature(Field("x", DType.FLOAT64, nullable=True), Field("s", DType.STRING, nullable=True))
    checked = check(fields, {"x": [1.0, None], "s": ["a", float("nan")]})
    assert np.isnan(checked["x"][1])
    assert checked["s"].tolist() == ["a", None]


def test_no_rows_are_not_an_error():
    assert {len(array) for array in check(PEOPLE, {"age": [], "income": [], "city": []}).values()} == {0}


@given(
    st.sampled_from(TYPES),
    st.lists(st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.booleans(), st.text(), st.none())),
)
def test_the_check_gives_the_exact_values_or_an_error_of_its_own(dtype, values):
    fields = signature(Field("x", dtype))
    with contextlib.suppress(InvalidRequestError):
        array = check(fields, {"x": values})["x"]
        assert array.dtype == dtype.value
        np.testing.assert_allclose(
            array.astype(object).tolist(), values, rtol=2**-10 if dtype.value.startswith("f") else 0, atol=1e-7
        )


# ---------------------------------------------------------------- what users hold


@pytest.mark.parametrize(
    "data",
    [
        ROWS,
        pd.DataFrame(ROWS),
        pd.DataFrame(ROWS).convert_dtypes(),
        pd.DataFrame(ROWS).astype({"city": "category"}),
        pd.DataFrame(ROWS)[["city", "income", "age"]],
        pl.DataFrame(ROWS),
        pl.LazyFrame(ROWS),
        pa.Table.from_pylist(ROWS),
        pa.RecordBatch.from_pylist(ROWS),
        {"age": [30, 40], "income": np.array([1.5, 2.5]), "city": ("Bern", "Oslo")},
        {"age": pd.Series([30, 40]), "income": pl.Series([1.5, 2.5]), "city": pd.Series(["Bern", "Oslo"])},
        [[30, 1.5, "Bern"], [40, 2.5, "Oslo"]],
        np.array([[30, 1.5, "Bern"], [40, 2.5, "Oslo"]], dtype=object),
    ],
    ids=lambda data: type(data).__module__.partition(".")[0] + "." + type(data).__name__,
)
def test_a_table_in_any_container_gives_the_same_columns(data):
    columns = to_columns(data, PEOPLE)
    assert columns["age"].tolist() == [30, 40]
    assert columns["income"].tolist() == [1.5, 2.5]
    assert columns["city"].tolist() == ["Bern", "Oslo"]
    assert [array.dtype.name for array in columns.values()] == ["int64", "float64", "object"]


@pytest.mark.parametrize("one", [ROWS[0], pd.DataFrame(ROWS).iloc[0]], ids=["dict", "series"])
def test_one_row_as_a_dict_or_a_series_is_one_row(one):
    assert to_columns(one, PEOPLE)["city"].tolist() == ["Bern"]


@pytest.mark.parametrize(
    "data",
    [
        np.arange(6.0).reshape(2, 3),
        [[0, 1, 2], [3, 4, 5]],
        pd.DataFrame(np.arange(6).reshape(2, 3), columns=list("abc")),
        pl.DataFrame({"a": [0.0, 3.0], "b": [1.0, 4.0], "c": [2.0, 5.0]}),
    ],
    ids=["numpy", "lists", "pandas", "polars"],
)
def test_a_model_of_arrays_takes_tables_of_as_many_columns(data):
    assert to_columns(data, VECTOR)["input"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.ones((2, 2)), r"expected \(rows, 3\)"),
        (np.ones(3), r"expected \(rows, 3\)"),
        (pd.DataFrame({"a": [1.0]}), "1 columns was given where 3"),
        ([[1, 2, 3], [4, 5]], "row 1 has 2 values where row 0 has 3"),
        ([], "empty list"),
        (5, "int is not a table"),
        (np.array(5.0), "single value"),
        ("text", "str is not a table"),
        (None, "NoneType is not a table"),
        (object(), "object is not a table"),
        (pd.DataFrame([[1, 2, 3]], columns=list("aab")), r"'a'\] occur more than once"),
        (pd.Index([1, 2]), "pandas.*Index is not a table"),
        ([{"a": 1}, {"b": 2}], "row 1 does not have the columns of row 0"),
        ([{"a": 1}, 5], "row 1 is a int"),
        (
            pd.DataFrame([[1.0, 2.0, 3.0]], columns=pd.MultiIndex.from_product([["a"], [1, 2, 3]])),
            "flatten a MultiIndex",
        ),
    ],
)
def test_what_is_no_table_is_refused_with_what_is_accepted(data, message):
    with pytest.raises(InvalidRequestError, match=message) as caught:
        to_columns(data, VECTOR)
    assert caught.value.hint


def test_an_array_of_the_wrong_width_names_the_columns():
    with pytest.raises(InvalidRequestError, match=r"\(2, 5\).*\(rows, 3\).*'age'"):
        to_columns(np.ones((2, 5)), PEOPLE)


def test_a_column_of_dates_is_refused_by_name():
    frame = pd.DataFrame(ROWS).assign(age=pd.to_datetime(["2020-01-01", "2020-01-02"]))
    with pytest.raises(InvalidRequestError, match="'age'"):
        to_columns(frame, PEOPLE)


def test_a_wide_frame_is_read_in_well_under_a_second():
    names = [f"c{at}" for at in range(5_000)]
    frame = pd.DataFrame(np.ones((4, 5_000)), columns=names)
    wide = signature(*(Field(name, DType.FLOAT64) for name in names))
    assert len(to_columns(frame, wide)) == 5_000


def test_a_sparse_matrix_is_an_array():
    scipy_sparse = pytest.importorskip("scipy.sparse")
    assert to_columns(scipy_sparse.csr_matrix(np.eye(3)), VECTOR)["input"].tolist() == np.eye(3).tolist()


@pytest.mark.parametrize(
    "data",
    [
        pd.Series(["a", "b"], name="text", index=[3, 4]),
        pd.DataFrame({"text": ["a", "b"]}),
        pl.Series("text", ["a", "b"]),
    ],
    ids=["series", "frame", "polars"],
)
def test_one_column_of_any_name_is_the_list_that_a_model_of_texts_takes(data):
    texts = signature(Field("input", DType.STRING))
    assert to_columns(data, texts)["input"].tolist() == ["a", "b"]
    with pytest.raises(InvalidRequestError):
        to_columns(pd.DataFrame({"text": ["a"], "more": ["b"]}), texts)
