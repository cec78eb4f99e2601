"""Rows answered one by one: a line for each, whatever becomes of its neighbours."""

from __future__ import annotations

import attrs
import numpy as np
import orjson
import pytest

from modeldeploy.errors import PredictionError
from modeldeploy.serving import lines
from modeldeploy.serving.app import App
from modeldeploy.serving.messages import Request
from modeldeploy.values.model import DType, Field, Signature

SIGNATURE = Signature(
    (Field("x", DType.FLOAT64, nullable=True), Field("n", DType.INT64)), (Field("prediction", DType.FLOAT64),)
)


@attrs.define
class Model:
    """Answers ``x * n``; fails on 13, counts its calls."""

    signature: Signature = SIGNATURE
    calls: int = 0

    def predict(self, inputs):
        self.calls += 1
        if (inputs["n"] == 13).any():
            message = "the model failed: ValueError: unlucky"
            raise PredictionError(message)
        return {"prediction": inputs["x"] * inputs["n"]}


def ask(rows, model=None):
    body = b"".join(row if isinstance(row, bytes) else orjson.dumps(row) + b"\n" for row in rows)
    return [orjson.loads(line) for line in lines.answer(body, model or Model()).body.splitlines()]


def test_each_row_gets_its_line():
    model = Model()
    assert ask([{"x": 0.5, "n": at} for at in range(12)], model) == [0.5 * at for at in range(12)]
    assert model.calls == 1


def test_a_row_that_fails_says_why_beside_the_others():
    found = ask([{"x": 1.0, "n": at} for at in range(20)])
    assert found[13] == {"modeldeploy_error": "the model failed: ValueError: unlucky"}
    assert [each for at, each in enumerate(found) if at != 13] == [float(at) for at in range(20) if at != 13]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"x": 1.0, "n": 1.5}, "column 'n' holds float values, expected int64"),
        ({"x": "a", "n": 1}, "column 'x' holds 'a' (str), expected float64"),
        ({"x": 1.0}, "column 'n' is missing"),
        (b"[1]\n", "row 0 has 1 values for 2 columns"),
    ],
    ids=["float", "text", "missing", "short"],
)
def test_a_wrong_row_is_named_by_the_signature(row, reason):
    first, second = ask([row, {"x": 2.0, "n": 2}])
    assert first == {"modeldeploy_error": reason}
    assert second == 4.0


def test_a_line_that_is_no_json_is_a_row_like_any():
    (found,) = ask([b"{nonsense\n"])
    assert found["modeldeploy_error"].startswith("the line is not JSON")


def test_rows_may_be_lists_in_the_models_order():
    assert ask([[0.5, 4], [1.5, 2]]) == [2.0, 3.0]


def test_infinities_go_both_ways_and_nan_is_null():
    assert ask([{"x": "Infinity", "n": 1}, {"x": "-Infinity", "n": 2}, {"x": None, "n": 3}]) == [
        "Infinity",
        "-Infinity",
        None,
    ]


def test_several_outputs_and_vectors_are_objects_and_lists():
    class Two(Model):
        def predict(self, inputs):
            return {"sum": inputs["v"].sum(axis=1), "twice": 2 * inputs["v"]}

    outputs = (Field("sum", DType.FLOAT32), Field("twice", DType.FLOAT32, (2,)))
    (found,) = ask([{"v": [0.1, 0.2]}], Two(Signature((Field("v", DType.FLOAT32, (2,)),), outputs)))
    assert np.float32(found["sum"]) == np.float32(0.1) + np.float32(0.2)
    assert np.array(found["twice"], dtype=np.float32).tolist() == (2 * np.array([0.1, 0.2], dtype=np.float32)).tolist()


def test_an_app_answers_so_only_when_it_is_asked_to():
    app = App(Model(), name="m", version="1.0.0", revision="r")
    request = Request(
        "POST", "/invocations", headers={"content-type": "application/jsonlines"}, body=b'{"x":1.0,"n":13}\n'
    )
    assert app.respond_many([request])[0].status == 500
    app.row_by_row = True
    (found,) = app.respond_many([request])
    assert (found.status, found.headers["content-type"]) == (200, "application/jsonlines")
    assert b"unlucky" in found.body


@pytest.mark.parametrize(("value", "wanted"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_the_environment_switches_it_on(value, wanted):
    assert lines.wanted({lines.SWITCH: value}) is wanted


@pytest.mark.parametrize(
    "columns",
    [
        {"a": np.array([0.1, np.nan, 3e300])},
        {"a": np.array([0.1, 2.5], dtype=np.float32), "b": np.array([7, 8], dtype=np.float32)},
        {"a": np.array([2**63 - 1, -5]), "b": np.array([1, 2])},
        {"a": np.array([[1.5, 2.5], [3.5, 4.5]])},
        {"a": np.array([True, False])},
        {"a": np.array([0.5, 1.5], dtype=np.float16)},
        {"a": np.array(["],[", "x,y"], dtype=object), "b": np.array([np.inf, 1.0])},
        {"a": np.array([[["p", "q"]], [["r", "s"]]], dtype=object)},
    ],
    ids=["nan", "floats", "whole", "vectors", "flags", "halves", "texts", "deep"],
)
@pytest.mark.parametrize("objects", [False, True], ids=["lists", "objects"])
def test_what_is_dumped_is_loaded_exactly(columns, objects):
    found = lines.load(lines.dump(columns, objects=objects))
    assert len(found) == len(next(iter(columns.values())))
    for at, (name, array) in enumerate(columns.items()):
        values = found if len(columns) == 1 else [row[name if objects else at] for row in found]
        got = np.array(lines.numbers(values) if array.dtype.kind == "f" else values, dtype=array.dtype)
        assert np.array_equal(got.reshape(array.shape), array, equal_nan=array.dtype.kind == "f")


def test_nothing_is_no_line():
    assert lines.dump({"a": np.empty(0)}, objects=False) == b""
    assert lines.load(b"\n\n") == []
