"""Rows 13 to 16: bodies and tables that are wrong, empty or too large, and predictions that are none, at a real server."""

from __future__ import annotations

import json

import numpy as np
import orjson
import pytest
import urllib3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store

NAN = -15.0
EXAMPLE = {
    "whole": np.array([1, 2]),
    "real": np.array([0.5, 1.5]),
    "text": np.array(["a", "b"], dtype=object),
    "flag": np.array([True, False]),
    "loose": np.array([0.5, np.nan]),
}
ROW = {"whole": 3, "real": 2.5, "text": "c", "flag": True, "loose": None}
NOT_OF = {
    "whole": [2.5, "2", True, None, [1], {}, 2**63, -(2**63) - 1],
    "real": ["2.5", False, None, [1.0], {}, 2**53 + 1, -(2**53) - 1],
    "text": [1, 2.5, True, ["a"], {}],
    "flag": [1, 0.0, "true", None, [True]],
    "loose": ["x", True, [1.0], 2**53 + 1],
}
patient = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


def echo(columns):
    """Give back what came in, so that a silent cast would be seen; NaN for a nullable column that is null."""
    return {name: column for name, column in columns.items() if name in ("whole", "real", "flag", "loose")}


class Caller:
    def __init__(self, url):
        self._url = url
        self._pool = urllib3.PoolManager()

    def ask(self, body, path="/invocations"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = self._pool.request("POST", self._url + path, body=data, headers={"content-type": "application/json"})
        return answer.status, orjson.loads(answer.data)

    def close(self):
        self._pool.clear()


@pytest.fixture(scope="module")
def echoing(serve, tmp_path_factory):
    """One model server for all of these: none of them may end it."""
    store = Store(tmp_path_factory.mktemp("store"))
    bundle = package(echo, name="echo", version="1.0.0", example=EXAMPLE, store=store)
    served = serve("--bundle", bundle.path, "--trust", bundle.digest)
    caller = Caller(f"http://{served.host}:{served.port}")
    yield caller
    caller.close()


@pytest.mark.row(13)
def test_any_bytes_are_refused_in_words_and_always_in_the_same_way(echoing):
    right = json.dumps({"instances": [ROW]}).encode()

    @patient
    @given(st.data())
    def fuzz(data):
        body = bytearray(right)
        for _change in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(body)))
            body[at : at + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=5) | st.sampled_from(PIECES))
        for path in ("/invocations", "/v2/models/echo/infer"):
            status, answer = echoing.ask(bytes(body), path)
            assert status in {200, 400, 422}, (status, answer)
            assert status == 200 or (answer.keys() == {"error", "field"} and answer["error"])
            assert echoing.ask(bytes(body), path) == (status, answer)

    fuzz()
    status, _answer = echoing.ask(right)
    assert status == 200


PIECES = [b'"', b"{", b"}", b"[", b"]", b":", b",", b"NaN", b"1e999", b"\\ud800", b"\xff", b'"whole":1,', b"-", b"null"]


@pytest.mark.row(13)
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"instances": [{"whole": 1,,}]}', "line 1 column 28"),
        (b'{"instances": [[1, 2\xff]]}', "UTF-8"),
        (b'{"instances": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}", "depth limit exceeded: line 1 column"),
        (b'{"instances": [{"whole": 1, "whole": 2}]}', "'whole' is given twice"),
    ],
)
def test_a_malformed_body_is_a_400_that_points_at_what_is_wrong(echoing, body, pointer):
    status, answer = echoing.ask(body)
    assert status == 400
    assert pointer.lower() in answer["error"].lower()


@pytest.mark.row(14)
def test_what_is_no_number_is_refused_unless_the_column_takes_it(echoing):
    for word in ("NaN", "Infinity", "-Infinity", "1e999"):
        status, _answer = echoing.ask(json.dumps({"instances": [ROW]}).replace("2.5", word).encode())
        assert status == 400, word
    status, answer = echoing.ask({"instances": [{**ROW, "real": None}]})
    assert (status, answer["field"]) == (422, "real")
    status, answer = echoing.ask({"instances": [ROW]})
    assert (status, answer["predictions"][0]["loose"]) == (200, None), "null in, and the declared null out"


@pytest.mark.row(14)
def test_a_prediction_that_is_no_number_is_a_500_of_its_own_and_counts_as_a_bad_event(ground):
    revision = ground.deploy()
    answer = ground.ask(NAN)
    assert answer.status == 500
    assert b"invalid prediction: output" in answer.data
    assert ground.ask(1.0).status == 200
    window = ground.local.seen(revision)
    assert (window.requests, window.errors) == (2, 1)


@pytest.mark.row(15)
def test_a_value_of_another_type_is_a_422_that_names_its_column_and_nothing_is_cast(echoing):
    for column, values in NOT_OF.items():
        for value in values:
            status, answer = echoing.ask({"instances": [ROW, {**ROW, column: value}]})
            assert (status, answer.get("field")) == (422, column), (value, answer)
            assert repr(column) in answer["error"]
    exact = {**ROW, "whole": 2**53 + 1, "real": 2**53, "loose": -1e300}
    status, answer = echoing.ask({"instances": [exact]})
    assert status == 200
    assert {name: answer["predictions"][0][name] for name in ("whole", "real", "loose", "flag")} == {
        name: exact[name] for name in ("whole", "real", "loose", "flag")
    }


@pytest.mark.row(15)
def test_a_column_that_is_missing_or_unknown_is_a_422_that_names_it(echoing):
    for column, right in ROW.items():
        without = {name: value for name, value in ROW.items() if name != column}
        status, answer = echoing.ask({"instances": [without]})
        assert (status, answer["field"]) == (422, column)
        status, answer = echoing.ask({"instances": [{**without, column.upper(): right}]})
        assert status == 422
        assert answer["field"] in {column, column.upper()}
    status, answer = echoing.ask({"instances": [{**ROW, "more": 1}]})
    assert (status, answer["field"]) == (422, "more")


@pytest.mark.row(15)
def test_a_row_of_another_shape_is_a_422_that_names_a_column(echoing):
    values = list(ROW.values())
    for row in (values[:-1], [*values, 1], []):
        status, answer = echoing.ask({"instances": [values, row]})
        assert status == 422
        assert answer["field"] in ROW or "columns" in answer["error"]


@pytest.mark.row(16)
def test_no_rows_are_answered_with_none_and_a_million_with_413(echoing):
    assert echoing.ask({"instances": []}) == (200, {"predictions": []})
    million = {"whole": [1], "real": [0.5], "text": ["a"], "flag": [True], "loose": [None]}
    status, answer = echoing.ask(orjson.dumps({name: values * 1_000_000 for name, values in million.items()}))
    assert status == 413
    assert "1000000 rows" in answer["error"]
    assert "batch job" in answer["error"]
    status, _answer = echoing.ask({"instances": [ROW]})
    assert status == 200
