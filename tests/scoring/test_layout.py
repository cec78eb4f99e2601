"""Every mistake in the columns is found before the first row, and named with its remedy."""

from __future__ import annotations

import attrs
import pyarrow as pa
import pytest

from modeldeploy.errors import ConfigurationError, InvalidRequestError
from modeldeploy.scoring import plan, schemas
from modeldeploy.scoring.formats import Format
from modeldeploy.scoring.layout import Layout
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.model import DType, Field, ModelVersion, Signature

PARQUET, CSV = Format("parquet"), Format("csv")
OUTPUTS = (Field("prediction", DType.INT64),)
COLUMNS = pa.schema([("id", pa.int64()), ("x", pa.float64()), ("y", pa.int32()), ("note", pa.string())])


def _spec(*inputs, outputs=OUTPUTS, **options):
    signature = Signature(inputs=inputs or (Field("x", DType.FLOAT64), Field("y", DType.INT64)), outputs=outputs)
    model = ModelVersion("model", "1.0.0", "sha256:" + "0" * 64, "nowhere", "function", signature)
    return BatchSpec(name="the-job", model=model, source=("/in.parquet",), output="/out.parquet", **options)


def _layout(spec, schema=COLUMNS, source=PARQUET, target=PARQUET):
    return Layout.of(spec, schema, source=source, target=target)


def test_all_columns_are_kept_beside_the_prediction_unless_named():
    assert _layout(_spec()).written.names == ["id", "x", "y", "note", "prediction"]
    assert _layout(_spec(keep=())).written.names == ["prediction"]


def test_the_key_is_kept_whatever_else_is():
    assert _layout(_spec(key="id", keep=("note",))).written.names == ["id", "note", "prediction"]


def test_a_column_without_any_value_fits_a_model_that_takes_nulls():
    schema = pa.schema([("x", pa.null()), ("q", pa.null())])
    read = _layout(_spec(Field("x", DType.FLOAT64, nullable=True)), schema).read
    assert read.field("x").type == pa.float64()
    assert read.field("q").type == pa.string()


def test_columns_that_nobody_needs_are_not_read():
    assert _layout(_spec(key="id", keep=())).read.names == ["id", "x", "y"]


def test_a_model_input_may_come_from_a_column_of_another_name():
    schema = COLUMNS.remove(1).append(pa.field("measure", pa.float64()))
    assert _layout(_spec(columns={"x": "measure"}), schema).inputs["x"] == ("measure",)


def test_a_model_of_an_array_takes_the_columns_beside_the_key():
    vector = Field("input", DType.FLOAT64, (2,))
    schema = pa.schema([("id", pa.int64()), ("a", pa.float64()), ("b", pa.int64())])
    assert _layout(_spec(vector, key="id"), schema).inputs["input"] == ("a", "b")
    spec = _spec(vector, columns={"input": '["b", "a"]'})
    assert _layout(spec, schema).inputs["input"] == ("b", "a")


def test_vectors_become_numbered_columns_in_csv_and_lists_elsewhere():
    outputs = (Field("probability", DType.FLOAT32, (2,)),)
    assert _layout(_spec(outputs=outputs, keep=()), target=CSV).written.names == ["probability_0", "probability_1"]
    assert _layout(_spec(outputs=outputs, keep=())).written.field("probability").type == pa.list_(pa.float32(), 2)


@pytest.mark.parametrize(
    ("spec", "error", "said"),
    [
        (_spec(Field("z", DType.FLOAT64)), InvalidRequestError, "column 'z' is missing"),
        (_spec(columns={"x": "q"}), InvalidRequestError, r"column 'q' \(for the model's 'x'\) is missing"),
        (_spec(columns={"q": "x"}), ConfigurationError, "no input of model 'model 1.0.0'"),
        (_spec(key="q"), InvalidRequestError, "key column 'q' is missing"),
        (_spec(keep=("q",)), ConfigurationError, "keep= names column 'q'"),
        (_spec(Field("note", DType.FLOAT64)), InvalidRequestError, "'note' has type string"),
        (_spec(Field("x", DType.INT64)), InvalidRequestError, "'x' has type double"),
        (_spec(Field("x", DType.STRING)), InvalidRequestError, "'x' has type double"),
        (_spec(Field("x", DType.FLOAT64, (3,))), InvalidRequestError, r"shape \(3,\)"),
        (_spec(Field("input", DType.FLOAT64, (9,))), InvalidRequestError, "takes an array of 9 columns"),
        (
            _spec(outputs=(Field("note", DType.INT64),)),
            ConfigurationError,
            "input column 'note' and prediction column 'note'",
        ),
        (_spec(outputs=(Field("id", DType.INT64),), key="id"), ConfigurationError, "rename the key column"),
    ],
)
def test_what_does_not_fit_is_named(spec, error, said):
    with pytest.raises(error, match=said):
        _layout(spec)


def test_a_name_clash_says_what_to_keep():
    with pytest.raises(ConfigurationError) as caught:
        _layout(_spec(outputs=(Field("note", DType.INT64),)))
    assert caught.value.hint == "leave the input column out with keep=['id', 'x', 'y']"


# ---------------------------------------------------------------- types of text columns


def _types(tmp_path, text, name="in.csv"):
    path = tmp_path / name
    path.write_text(text)
    return schemas.of_file(str(path), Format.of(name))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2", ""], pa.int64()),
        (["1", "2.5"], pa.float64()),
        (["1e3", "nan"], pa.float64()),
        (["007", "010"], pa.string()),
        (["12345678901234567890"], pa.string()),
        (["true", "FALSE"], pa.bool_()),
        (["0", "1"], pa.int64()),
        (["2024-01-01"], pa.string()),
        (["", ""], pa.string()),
        (["1", "x"], pa.string()),
    ],
)
def test_a_text_column_gets_the_type_that_loses_nothing(tmp_path, values, kind):
    lines = "".join(f"{value},q\n" for value in values)
    assert _types(tmp_path, f"a,b\n{lines}").field("a").type == kind


def test_a_few_bad_values_do_not_make_a_column_of_numbers_text(tmp_path):
    schema = _types(tmp_path, "x,y\n1,2\n3,4\n5,oops\n")
    layout = _layout(_spec(), schema, CSV, CSV)
    assert layout.read.field("y").type == pa.int64()


def test_a_column_of_words_does_not_fit_a_number(tmp_path):
    schema = _types(tmp_path, "x,y\n1,two\n3,four\n5,6\n")
    with pytest.raises(InvalidRequestError, match="'y' has type string"):
        _layout(_spec(), schema, CSV, CSV)


def test_digits_in_a_text_file_are_text_where_the_model_wants_text(tmp_path):
    schema = _types(tmp_path, "zip\n80331\n10115\n")
    assert _layout(_spec(Field("zip", DType.STRING)), schema, CSV, CSV).read.field("zip").type == pa.string()


def test_files_of_different_columns_are_refused(tmp_path):
    first = _types(tmp_path, "a,b\n1,2\n", "1.csv")
    second = _types(tmp_path, "a,c\n1,2\n", "2.csv")
    with pytest.raises(ConfigurationError, match=r"'2.csv' has no column 'b'"):
        schemas.together(["1.csv", "2.csv"], [first, second])


def test_numbers_of_different_width_are_widened_over_files(tmp_path):
    first = _types(tmp_path, "a\n1\n", "1.csv")
    second = _types(tmp_path, "a\n1.5\n", "2.csv")
    assert schemas.together(["1.csv", "2.csv"], [first, second]).field("a").type == pa.float64()


@pytest.mark.parametrize(
    ("name", "data"),
    [("in.parquet", b"not parquet"), ("in.jsonl", b""), ("in.jsonl", b"nonsense\n"), ("in.csv.gz", b"plain")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ConfigurationError, match=name):
        schemas.of_file(str(path), Format.of(name))


def test_a_missing_file_is_named(tmp_path):
    spec = attrs.evolve(_spec(), source=(str(tmp_path / "gone.parquet"),))
    with pytest.raises(ConfigurationError, match=r"gone\.parquet"):
        plan.inspect(spec)


def test_files_of_different_formats_are_refused():
    with pytest.raises(ConfigurationError, match="different formats"):
        plan.source_of(attrs.evolve(_spec(), source=("/a.csv", "/b.parquet")))
