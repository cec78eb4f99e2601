from __future__ import annotations

import json
import struct

import pytest

from modeldeploy.serving import binary_type
from modeldeploy.serving.app import App, Routes
from modeldeploy.serving.messages import Request
from modeldeploy.values.model import DType, Field, Signature

JSON = {"content-type": "application/json"}
BODY = b'{"instances":[{"a":1,"b":2}]}'
INFER = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP64","data":[1,2]}]}'


@pytest.fixture
def app(stub) -> App:
    return App(stub(), name="ep", version="1.0.0", revision="r1", routes=Routes("/aip/health", "/aip/v1:predict"))


def ask(app: App, method: str, path: str, body: bytes = b"", **headers: str):
    (answer,) = app.respond_many([Request(method, path, "", {**JSON, **headers}, body)])
    return answer


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/ping",
        "/healthz",
        "/readyz",
        "/aip/health",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/ep",
        "/v2/models/ep/ready",
        "/v2/models/ep/versions/r1",
        "/v2/models/ep/versions/1.0.0/ready",
        "/execution-parameters",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reading_routes_answer_without_the_model(app, method, path):
    answer = app.respond_now(Request(method, path))
    assert answer.status == 200
    assert answer.headers["modeldeploy-revision"] == "r1"


@pytest.mark.parametrize("path", ["/ping", "/readyz", "/aip/health", "/v2/health/ready", "/v2/models/ep/ready"])
def test_readiness_is_503_with_a_time_to_come_back_once_it_is_withdrawn(app, path):
    app.ready = False
    answer = ask(app, "GET", path)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert ask(app, "GET", "/healthz").status == ask(app, "GET", "/").status == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/invocations", BODY),
        ("/score", BODY),
        ("/aip/v1:predict", BODY),
        ("/v2/models/ep/infer", INFER),
        ("/v2/models/ep/versions/r1/infer", INFER),
    ],
)
def test_predicting_routes_predict(app, path, body):
    assert app.respond_now(Request("POST", path, "", JSON, body)) is None
    answer = json.loads(ask(app, "POST", path, body).body)
    assert answer.get("predictions") == [3.0] or answer["outputs"][0]["data"] == [3.0]


WRONG_ROUTES = [
    ("GET", "/nothing", 404),
    ("GET", "/v2/models/other", 404),
    ("POST", "/v2/models/other/infer", 404),
    ("POST", "/v2/models/ep/versions/r2/infer", 404),
    ("GET", "/v2/models/ep/x", 404),
    ("GET", "/v2/models/ep/versions", 404),
    ("GET", "/v2/models/", 404),
    ("GET", "/metrics", 404),
    ("GET", "/invocations", 405),
    ("DELETE", "/score", 405),
    ("POST", "/ping", 405),
    ("GET", "/v2/models/ep/infer", 405),
    ("POST", "/v2/models/ep", 405),
]


@pytest.mark.parametrize(("method", "path", "status"), WRONG_ROUTES)
def test_wrong_routes_are_404_or_405_as_json(app, method, path, status):
    answer = ask(app, method, path, BODY)
    assert answer.status == status
    assert json.loads(answer.body)["error"]
    assert (status == 405) == ("allow" in answer.headers)


def test_a_pin_to_another_revision_is_404(app):
    assert ask(app, "POST", "/score", BODY, **{"modeldeploy-revision": "r2"}).status == 404
    assert ask(app, "POST", "/score", BODY, **{"modeldeploy-revision": "r1"}).status == 200


def test_request_ids_are_echoed(app):
    answer = ask(app, "POST", "/score", BODY, **{"x-request-id": "abc", "x-ms-client-request-id": "d" * 999})
    assert answer.headers["x-request-id"] == "abc"
    assert answer.headers["x-ms-client-request-id"] == "d" * 256


def test_metadata_tells_the_signature(stub):
    model = stub(Field("a", DType.FLOAT32, (3, None)), Field("s", DType.STRING))
    data = json.loads(ask(App(model, name="ep", version="1", revision="r"), "GET", "/v2/models/ep").body)
    assert data["inputs"] == [
        {"name": "a", "datatype": "FP32", "shape": [-1, 3, -1]},
        {"name": "s", "datatype": "BYTES", "shape": [-1]},
    ]
    assert data["versions"] == ["r"]


def test_metrics_are_there_when_somebody_counts(stub):
    app = App(stub(), name="ep", version="1", revision="r", metrics=lambda: "up 1\n")
    answer = ask(app, "GET", "/metrics")
    assert (answer.status, answer.body) == (200, b"up 1\n")


UNFIT = {
    "missing": (b'{"instances":[{"a":1}]}', "b"),
    "extra": (b'{"instances":[{"a":1,"b":2,"c":3}]}', "c"),
    "text": (b'{"instances":[{"a":1,"b":"2"}]}', "b"),
    "flag": (b'{"instances":[{"a":1,"b":true}]}', "b"),
    "null": (b'{"instances":[{"a":1,"b":null}]}', "b"),
    "nested": (b'{"instances":[{"a":1,"b":[2]}]}', "b"),
    "an object": (b'{"instances":[{"a":1,"b":{}}]}', "b"),
    "above 2**53": (b'{"instances":[{"a":1,"b":9007199254740993}]}', "b"),
    "beyond 64 bits": (b'{"a":[1],"b":["%s"]}' % (b"9" * 40), "b"),
    "other lengths": (b'{"a":[1,2],"b":[1]}', "b"),
}


@pytest.mark.parametrize(("body", "field"), UNFIT.values(), ids=UNFIT)
def test_what_does_not_fit_the_signature_is_422_with_the_column(app, body, field):
    answer = ask(app, "POST", "/invocations", body)
    assert (answer.status, json.loads(answer.body)["field"]) == (422, field)


EMPTY = b'{"inputs":[{"name":"x","shape":[0,2],"datatype":"FP64","data":[]}]}'


@pytest.mark.parametrize(
    ("path", "body"),
    [("/invocations", b'{"instances":[]}'), ("/score", b'{"a":[],"b":[]}'), ("/invocations", b"a,b\n")],
)
def test_no_rows_are_answered_with_no_predictions_and_without_the_model(stub, path, body):
    model = stub()
    kind = "text/csv" if body == b"a,b\n" else "application/json"
    app = App(model, name="ep", version="1.0.0", revision="r1")
    answer = ask(app, "POST", path, body, **{"content-type": kind, "accept": "application/json"})
    assert (answer.status, answer.body) == (200, b'{"predictions":[]}')
    assert model.sizes == []


def test_a_tensor_of_no_rows_is_answered_with_one(app):
    answer = ask(app, "POST", "/v2/models/ep/infer", EMPTY)
    (tensor,) = json.loads(answer.body)["outputs"]
    assert (answer.status, tensor["shape"], tensor["data"]) == (200, [0], [])
    texts = App(Texts(), name="ep", version="1", revision="r")
    binary = EMPTY.replace(b"0,2", b"0").replace(b"FP64", b"BYTES")[:-1] + b',"parameters":{"binary_data_output":true}}'
    answer = ask(texts, "POST", "/v2/models/ep/infer", binary)
    assert answer.status == 200
    (tensor,) = json.loads(answer.body)["outputs"]
    assert (tensor["shape"], tensor["datatype"], tensor["parameters"]) == ([0, 2], "BYTES", {"binary_data_size": 0})


class Texts:
    """A model from text to pairs of text that must never be asked."""

    signature = Signature((Field("x", DType.STRING),), (Field("pair", DType.STRING, (2,)),))


def test_a_request_without_rows_among_others_gets_its_own_answer(app):
    requests = [Request("POST", "/invocations", "", JSON, body) for body in (BODY, b'{"instances":[]}', BODY)]
    answers = app.respond_many(requests)
    assert [json.loads(each.body) for each in answers] == [
        {"predictions": [3.0]},
        {"predictions": []},
        {"predictions": [3.0]},
    ]


def test_good_and_bad_requests_together_each_get_their_own_answer(stub):
    model = stub()
    app = App(model, name="ep", version="1", revision="r")
    wanted = []
    requests = []
    for at in range(60):
        good = at % 3
        requests.append(
            Request("POST", "/invocations", "", JSON, b'{"a":[%d],"b":[%s]}' % (at, b"1" if good else b'"x"'))
        )
        wanted.append((200, {"predictions": [at + 1.0]}) if good else (422, None))
    answers = app.respond_many(requests)
    assert [(each.status, json.loads(each.body) if each.status == 200 else None) for each in answers] == wanted
    assert model.sizes == [40]


def test_json_and_binary_callers_share_a_batch(stub):
    model = stub()
    app = App(model, name="ep", version="1", revision="r")
    csv = Request("POST", "/invocations", "", {"content-type": "text/csv"}, b"5,6\n")
    answers = app.respond_many(
        [Request("POST", "/score", "", JSON, BODY), Request("POST", "/v2/models/ep/infer", "", JSON, INFER), csv]
    )
    assert model.sizes == [3]
    assert answers[2].body == b"11.0\n"


def test_binary_tensors_whose_header_was_dropped_are_read_by_their_content_type(app):
    head = json.dumps(
        {
            "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "parameters": {"binary_data_size": 16}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    body = head + struct.pack("<2d", 1.0, 2.0)
    plain = {"content-type": "application/octet-stream", binary_type.HEADER: str(len(head))}
    direct = ask(app, "POST", "/v2/models/ep/infer", body, **plain)
    folded = ask(app, "POST", "/invocations", body, **binary_type.folded(plain))
    assert (folded.status, folded.body) == (200, direct.body)
    assert binary_type.HEADER not in folded.headers
    assert binary_type.unfolded(folded.headers) == direct.headers


@pytest.mark.parametrize("size", ["", "x", "99"])
def test_a_length_in_the_content_type_that_is_none_is_the_callers_mistake(app, size):
    answer = ask(app, "POST", "/invocations", b"{}", **{"content-type": f"{binary_type.PREFIX}{size}"})
    assert answer.status == 400
