from __future__ import annotations

import contextlib
import itertools
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeldeploy.errors import InvalidRequestError
from modeldeploy.packaging.signature import check
from modeldeploy.serving import payloads
from modeldeploy.serving.messages import RefusedError
from modeldeploy.values.model import DType, Field, Signature

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
OUT = (Field("prediction", DType.FLOAT64),)
FRAME = Signature((Field("age", DType.INT64), Field("height", DType.FLOAT64), Field("city", DType.STRING)), OUT)
ARRAY = Signature((Field("input", DType.FLOAT64, (2,)),), OUT)
SCALAR = Signature((Field("x", DType.FLOAT64),), OUT)
RECORD = {"age": 41, "height": 1.8, "city": "Oslo"}
LIST = [41, 1.8, "Oslo"]

OUTPUTS = {
    "label": np.array([1, 0, 2, 1]),
    "flag": np.array([True, False, True, True]),
    "name": np.array(["a,b", '"', "é", ""]),
    "score": np.array([0.1, np.nan, 3e38, -0.0], np.float32),
    "exact": np.array([0.1, 1e-300, 2.0, np.nan]),
    "chances": np.array([[0.1, 0.9], [1 / 3, 2 / 3], [np.nan, 1.0], [0.0, 1.0]], np.float32),
    "grid": np.arange(8).reshape(4, 2),
}

FRAME_BODIES = {
    "instances of objects": {"instances": [RECORD, RECORD]},
    "instances of lists": {"instances": [LIST, LIST]},
    "instances with empty parameters": {"instances": [LIST, LIST], "parameters": {}},
    "inputs of rows": {"inputs": [LIST, LIST]},
    "inputs of columns": {"inputs": {"age": [41, 41], "height": [1.8, 1.8], "city": ["Oslo", "Oslo"]}},
    "data": {"data": [LIST, LIST]},
    "input_data split": {
        "input_data": {"columns": ["city", "age", "height"], "data": [["Oslo", 41, 1.8]] * 2, "index": [0, 1]}
    },
    "input_data rows": {"input_data": [LIST, LIST]},
    "dataframe_split": {"dataframe_split": {"columns": ["height", "age", "city"], "data": [[1.8, 41, "Oslo"]] * 2}},
    "dataframe_records": {"dataframe_records": [RECORD, RECORD]},
    "a list of objects": [RECORD, RECORD],
    "a list of lists": [LIST, LIST],
    "columns": {"age": [41, 41], "height": [1.8, 1.8], "city": ["Oslo", "Oslo"]},
}


def read(body: object, signature: Signature, content_type: str = "application/json") -> dict[str, np.ndarray]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return check(signature, payloads.decode(data, payloads.plain_type(content_type), signature))


@pytest.mark.parametrize("body", FRAME_BODIES.values(), ids=FRAME_BODIES)
def test_every_usual_shape_of_a_table_is_read(body):
    columns = read(body, FRAME)
    assert {name: column.tolist() for name, column in columns.items()} == {
        "age": [41, 41],
        "height": [1.8, 1.8],
        "city": ["Oslo", "Oslo"],
    }


@pytest.mark.parametrize(
    "body",
    [
        {"instances": [[1, 2], [3, 4]]},
        {"inputs": [[1, 2], [3, 4]]},
        [[1, 2], [3, 4]],
        {"input": [[1, 2], [3, 4]]},
        {"instances": [{"input": [1, 2]}, {"input": [3, 4]}]},
    ],
)
def test_rows_of_an_array_model_are_vectors(body):
    assert read(body, ARRAY)["input"].tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    "body", [{"instances": [1, 2]}, [1, 2], {"instances": [[1], [2]]}, {"x": [1, 2]}, {"inputs": [1, 2]}]
)
def test_rows_of_a_model_with_one_column_may_be_bare_values(body):
    assert read(body, SCALAR)["x"].tolist() == [1.0, 2.0]


def test_one_object_of_scalars_is_one_row():
    assert {name: column.tolist() for name, column in read(RECORD, FRAME).items()} == {
        "age": [41],
        "height": [1.8],
        "city": ["Oslo"],
    }


VECTORS = Signature((Field("tags", DType.STRING, (2,)), Field("any", DType.INT64, (None,))), OUT)
NO_ROWS = {
    "instances": {"instances": []},
    "inputs": {"inputs": []},
    "data": {"data": []},
    "input_data": {"input_data": []},
    "dataframe_records": {"dataframe_records": []},
    "a list": [],
}


@pytest.mark.parametrize("signature", [FRAME, ARRAY, SCALAR, VECTORS], ids=["frame", "array", "scalar", "vectors"])
def test_no_rows_are_a_table_of_the_right_types_in_every_shape(signature):
    names = [field.name for field in signature.inputs]
    columns = {name: [] for name in names}
    split = {"columns": names, "data": []}
    bodies = [*NO_ROWS.values(), columns, {"inputs": columns}, {"input_data": split}, {"dataframe_split": split}]
    header = (",".join(names) + "\n").encode()
    for found in [read(body, signature) for body in bodies] + [read(header, signature, "text/csv")]:
        shapes = {name: column.shape for name, column in found.items()}
        assert shapes == {field.name: (0, *(size or 0 for size in field.shape)) for field in signature.inputs}
        kinds = {name: column.dtype.name for name, column in found.items()}
        assert kinds == {
            field.name: {"string": "object"}.get(field.dtype.value, field.dtype.value) for field in signature.inputs
        }


@pytest.mark.parametrize("content_type", ["text/csv", "application/jsonlines"])
def test_an_empty_body_is_refused_with_a_right_one(content_type):
    with pytest.raises(RefusedError, match="the body is empty; send") as caught:
        read(b" \n" if content_type != "text/csv" else b"\n", SCALAR, content_type)
    assert caught.value.status == 422


def test_a_header_alone_must_name_the_columns():
    with pytest.raises(RefusedError) as caught:
        read(b"age,height\n", FRAME, "text/csv")
    assert (caught.value.status, caught.value.field) == (422, "city")


def test_no_predictions_are_written_in_every_form():
    outputs = {"label": np.empty(0, dtype=object), "probability": np.empty((0, 3))}
    for form, body in (("application/json", b'{"predictions":[]}'), ("text/csv", b""), ("application/jsonlines", b"")):
        assert payloads.write(outputs, form) == body
        for name, array in outputs.items():
            assert payloads.write({name: array}, form) == body


def test_a_column_may_bear_the_name_of_an_envelope():
    odd = Signature((Field("data", DType.FLOAT64), Field("inputs", DType.FLOAT64)), OUT)
    assert read({"data": [1.0], "inputs": [2.0]}, odd)["inputs"].tolist() == [2.0]


WRONG = {
    "bad JSON": (b"{", 400, None),
    "NaN": (b'{"instances":[[NaN,1.0,"a"]]}', 400, None),
    "a number": (b"1", 400, None),
    "a string": (b'"x"', 400, None),
    "an unknown shape": ({"rows": [LIST]}, 400, None),
    "an empty object": ({}, 400, None),
    "something beside": ({"instances": [LIST], "signature_name": "x"}, 400, "signature_name"),
    "parameters with content": ({"instances": [LIST], "parameters": {"a": 1}}, 400, "parameters"),
    "instances no list": ({"instances": "x"}, 400, None),
    "split without rows and a column": ({"dataframe_split": {"columns": ["age", "height"], "data": []}}, 422, "city"),
    "mixed rows": ({"instances": [LIST, RECORD]}, 400, None),
    "a missing column": ({"instances": [RECORD, {"age": 1, "height": 1.0}]}, 422, "city"),
    "an extra column": ({"instances": [{**RECORD, "sex": "f"}]}, 422, "sex"),
    "a misnamed column": ({"instances": [{"age": 1, "height": 1.0, "town": "x"}]}, 422, "city"),
    "a short row": ({"instances": [LIST, LIST[:2]]}, 422, "city"),
    "a column that is no list": ({"age": [1], "height": [1.0], "city": "Oslo"}, 422, "city"),
    "split without data": ({"dataframe_split": {"columns": ["age"]}}, 400, None),
    "split with a column twice": ({"dataframe_split": {"columns": ["age", "age"], "data": []}}, 400, None),
    "split with numbers as columns": ({"dataframe_split": {"columns": [1], "data": []}}, 400, None),
    "split with rows that are none": ({"dataframe_split": {"columns": ["age"], "data": [1]}}, 400, None),
    "split with a short row": (
        {"dataframe_split": {"columns": ["age", "height", "city"], "data": [[1, 2.0]]}},
        422,
        "city",
    ),
    "1e5 keys": ({f"k{at}": [1] for at in range(100_000)}, 400, None),
}


@pytest.mark.parametrize(("body", "status", "field"), WRONG.values(), ids=WRONG)
def test_a_wrong_body_is_refused_with_its_status_and_field(body, status, field):
    with pytest.raises(RefusedError) as caught:
        read(body, FRAME)
    assert (caught.value.status, caught.value.field) == (status, field)


def test_an_unknown_shape_is_answered_with_a_right_one_for_this_model():
    for signature in (FRAME, ARRAY, SCALAR):
        with pytest.raises(RefusedError) as caught:
            read({"rows": 1}, signature)
        shown = str(caught.value).partition("send ")[2]
        assert read(json.loads(shown), signature)


@patient
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["age", "height", "city", "instances", "data", "columns", "inputs", "dataframe_split"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_read_or_refused(body):
    for signature in (FRAME, ARRAY, SCALAR):
        with contextlib.suppress(RefusedError, InvalidRequestError):
            read(body, signature)


# CSV and JSON Lines.


@pytest.mark.parametrize(
    "body",
    [
        b"41,1.8,Oslo\n41,1.8,Oslo\n",
        b"age,height,city\r\n41,1.8,Oslo\r\n41,1.8,Oslo",
        b'\xef\xbb\xbfcity,age,height\n"Oslo",41,1.8\n\nOslo,41,1.8\n',
    ],
)
def test_csv_goes_by_position_or_by_its_header(body):
    columns = read(body, FRAME, "text/csv; charset=utf-8")
    assert {name: column.tolist() for name, column in columns.items()} == {
        "age": [41, 41],
        "height": [1.8, 1.8],
        "city": ["Oslo", "Oslo"],
    }


def test_csv_of_an_array_model_has_a_cell_for_each_element():
    cube = Signature((Field("a", DType.FLOAT64, (2, 2)), Field("b", DType.BOOL)), OUT)
    columns = read(b"1,2,3,4,true\n5,6,7,8,0\n", cube, "text/csv")
    assert columns["a"].tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert columns["b"].tolist() == [True, False]


def test_an_empty_cell_is_null_where_the_column_takes_one():
    loose = Signature((Field("a", DType.FLOAT64, (), nullable=True), Field("b", DType.STRING, (), nullable=True)), OUT)
    columns = read(b"1,x\n,\n", loose, "text/csv")
    assert np.isnan(columns["a"][1])
    assert columns["b"].tolist() == ["x", None]


WRONG_CSV = {
    "nothing": (b"", 422, None),
    "a short row": (b"1,2.0,a\n1,2.0\n", 422, "city"),
    "a word for a number": (b"1,tall,a\n", 422, "height"),
    "a float for an integer": (b"1.5,2.0,a\n", 422, "age"),
    "an underscore": (b"1_000,2.0,a\n", 422, "age"),
    "a header that lacks one": (b"age,height,town\n1,2.0,a\n", 422, "city"),
    "a header that names one twice": (b"age,age,city\n1,2,a\n", 400, None),
    "not UTF-8": (b"1,2.0,\xff\n", 400, None),
    "an open quote": (b'1,2.0,"a\n', 400, None),
}


@pytest.mark.parametrize(("body", "status", "field"), WRONG_CSV.values(), ids=WRONG_CSV)
def test_wrong_csv_is_refused_with_its_status_and_field(body, status, field):
    with pytest.raises(RefusedError) as caught:
        read(body, FRAME, "text/csv")
    assert (caught.value.status, caught.value.field) == (status, field)


@pytest.mark.parametrize("cell", [b"nan", b"inf", b"-Infinity", b""])
def test_csv_words_for_no_number_are_refused_where_none_is_allowed(cell):
    with pytest.raises(InvalidRequestError) as caught:
        read(b"1," + cell + b",a\n", FRAME, "text/csv")
    assert caught.value.field == "height"


@pytest.mark.parametrize("kind", ["application/jsonlines", "application/x-ndjson"])
def test_json_lines_are_rows(kind):
    body = json.dumps(LIST).encode() + b"\n\n" + json.dumps(LIST).encode()
    assert read(body, FRAME, kind)["age"].tolist() == [41, 41]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "image/png"])
def test_another_content_type_is_415(kind):
    with pytest.raises(RefusedError) as caught:
        payloads.plain_type(kind)
    assert caught.value.status == 415


# Answers.


@pytest.mark.parametrize(
    ("accept", "sent", "expected"),
    [
        ("", "", "application/json"),
        ("", "text/csv", "text/csv"),
        ("*/*", "text/csv", "text/csv"),
        ("application/json", "text/csv", "application/json"),
        ("text/html, text/csv;q=0.5", "application/json", "text/csv"),
        ("application/x-jsonlines", "application/json", "application/jsonlines"),
    ],
)
def test_the_answer_comes_as_accepted_else_as_the_request_came(accept, sent, expected):
    assert payloads.accepted(accept, sent) == expected


def test_an_answer_in_a_form_that_is_not_written_is_406():
    with pytest.raises(RefusedError) as caught:
        payloads.accepted("text/html", "application/json")
    assert caught.value.status == 406


VECTOR = {"p": np.array([[0.25, 0.75], [1.0, 0.0]], dtype=np.float32)}
PAIR = {
    "label": np.array(["a", "b"], dtype=object),
    "ok": np.array([True, False]),
    "p": np.array([0.1, np.nan], dtype=np.float32),
}


@pytest.mark.parametrize(
    ("outputs", "predictions"),
    [
        (VECTOR, [[0.25, 0.75], [1.0, 0.0]]),
        ({"x": np.array([1, 2])}, [1, 2]),
        ({"x": np.array(["a", None], dtype=object)}, ["a", None]),
        ({"x": np.array([1.5, np.nan])}, [1.5, None]),
        (PAIR, [{"label": "a", "ok": True, "p": 0.1}, {"label": "b", "ok": False, "p": None}]),
    ],
)
def test_json_and_json_lines_hold_one_prediction_for_each_row(outputs, predictions):
    assert json.loads(payloads.write(outputs, "application/json")) == {"predictions": predictions}
    lines = payloads.write(outputs, "application/jsonlines").splitlines()
    assert [json.loads(line) for line in lines] == predictions


def test_csv_answers_one_line_for_each_row():
    assert payloads.write(VECTOR, "text/csv") == b"0.25,0.75\n1.0,0.0\n"
    assert payloads.write(PAIR, "text/csv") == b"a,true,0.1\nb,false,\n"


def test_a_slice_of_a_batch_is_written_like_a_whole():
    whole = np.arange(12.0).reshape(3, 4)
    assert json.loads(payloads.write({"x": whole[1:, ::2]}, "application/json"))["predictions"] == [
        [4, 6],
        [8, 10],
    ]


@patient
@given(
    st.lists(st.sampled_from(sorted(OUTPUTS)), min_size=1, max_size=3, unique=True),
    st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(lambda sizes: sum(sizes) <= 4),
    st.sampled_from([payloads.JSON_TYPE, payloads.CSV_TYPE]),
)
def test_answers_written_together_are_those_written_one_by_one(names, sizes, form):
    writer = payloads.Writer(form, {"told": "x"})
    outputs = {name: OUTPUTS[name][: sum(sizes)] for name in names}
    together = writer.many(outputs, sizes)
    if form != payloads.JSON_TYPE:
        assert together is None
        return
    ends = list(itertools.accumulate(sizes, initial=0))
    alone = [
        writer({name: each[start:end] for name, each in outputs.items()}) for start, end in itertools.pairwise(ends)
    ]
    assert together == alone


def test_many_rows_of_several_outputs_are_written_as_arrays():
    outputs = {"a": np.arange(1_000), "b": np.arange(1_000)}
    assert payloads.Writer(payloads.JSON_TYPE, {}).many(outputs, [500, 500]) is None
