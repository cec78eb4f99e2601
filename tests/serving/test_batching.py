from __future__ import annotations

import json

import numpy as np
import pytest

from modeldeploy.errors import InvalidRequestError
from modeldeploy.serving.batching import Batcher, Call
from modeldeploy.serving.messages import Response
from modeldeploy.values.model import DType, Field


def call(*values: float, **others: np.ndarray) -> Call:
    column = np.array(values, dtype=float)
    inputs = {"a": column, "b": np.zeros(len(column)), **others}
    return Call(inputs, len(column), lambda outputs: Response(200, json.dumps(outputs["sum"].tolist()).encode()))


def bodies(responses: list[Response]) -> list[object]:
    return [json.loads(each.body) for each in responses]


def test_each_call_gets_the_answers_of_its_own_rows(stub):
    model = stub()
    calls = [call(*range(at, at + 1 + at % 3)) for at in range(50)]
    answers = Batcher(model).answer(calls)
    assert bodies(answers) == [[float(value) for value in range(at, at + 1 + at % 3)] for at in range(50)]
    assert model.sizes == [sum(each.rows for each in calls)]


def test_nothing_to_answer_predicts_nothing(stub):
    model = stub()
    assert Batcher(model).answer([]) == []
    assert model.sizes == []


def test_a_call_that_makes_the_model_raise_fails_alone(stub, caplog):
    answers = Batcher(stub()).answer([call(1), call(2, 666), call(3)])
    assert [each.status for each in answers] == [200, 500, 200]
    assert bodies(answers)[1] == {"error": "the model failed: RuntimeError", "field": None}
    assert "secret" in caplog.text


def test_a_call_whose_answer_is_nan_fails_alone(stub):
    answers = Batcher(stub()).answer([call(1), call(2, 777), call(3)])
    assert [each.status for each in answers] == [200, 500, 200]
    assert "invalid prediction: output 'sum' holds NaN or an infinity in row 1" in bodies(answers)[1]["error"]


def test_nan_is_an_answer_where_the_output_declares_it(stub):
    (answer,) = Batcher(stub(nullable=True)).answer([call(777)])
    assert answer.status == 200


def test_an_infinity_is_never_an_answer(stub):
    model = stub(nullable=True)
    model.predict = lambda inputs: {"sum": np.full(len(inputs["a"]), np.inf)}
    assert [each.status for each in Batcher(model).answer([call(1)])] == [500]


def test_batches_end_at_the_cap_of_rows_and_a_larger_call_goes_alone(stub):
    model = stub()
    answers = Batcher(model, max_rows=4).answer([call(1, 2), call(3, 4), call(5), call(*range(9)), call(6)])
    assert model.sizes == [4, 1, 9, 1]
    assert bodies(answers)[4] == [6.0]


def test_calls_of_different_shapes_are_not_mixed(stub):
    model = stub(Field("a", DType.FLOAT64), Field("b", DType.FLOAT64, (None,)))
    wide = [call(1, b=np.ones((1, size))) for size in (2, 3, 2)]
    assert bodies(Batcher(model).answer(wide)) == [[3.0], [4.0], [3.0]]
    assert sorted(model.sizes) == [1, 2]


def test_a_model_that_opted_out_sees_each_call_by_itself(stub):
    model = stub()
    Batcher(model, batchable=False).answer([call(1), call(2, 3)])
    assert model.sizes == [1, 2]


@pytest.mark.parametrize("rows", [1, 3])
def test_a_model_that_answers_the_wrong_number_of_rows_is_never_passed_on(stub, rows):
    model = stub()
    model.predict = lambda _inputs: {"sum": np.zeros(rows)}
    answers = Batcher(model).answer([call(1, 2), call(3, 4)])
    assert [each.status for each in answers] == [500, 500]
    assert f"has {rows} rows for 2" in bodies(answers)[0]["error"]


def test_a_model_that_forgets_an_output_is_invalid(stub):
    model = stub()
    model.predict = lambda _inputs: {}
    assert "output 'sum' is missing" in bodies(Batcher(model).answer([call(1)]))[0]["error"]


def test_a_model_may_say_that_the_request_is_wrong(stub):
    model = stub()

    def refuse(_inputs):
        message = "too old"
        raise InvalidRequestError(message, field="a")

    model.predict = refuse
    (answer,) = Batcher(model).answer([call(1)])
    assert (answer.status, json.loads(answer.body)) == (422, {"error": "too old", "field": "a"})


def test_an_answer_that_cannot_be_written_fails_alone(stub):
    broken = call(2)
    broken.write = lambda outputs: json.dumps(outputs["sum"])
    assert [each.status for each in Batcher(stub()).answer([call(1), broken])] == [200, 500]
