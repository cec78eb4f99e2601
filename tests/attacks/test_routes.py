"""Every route with every method: who shows no key gets nothing (MLflow CVE-2026-0545, Ray CVE-2023-48022 and CVE-2026-27482)."""

from __future__ import annotations

import pytest

from modeldeploy.serving.access import HEALTH, Doors, Scope
from modeldeploy.serving.app import App, Routes
from modeldeploy.serving.router import LIVE, READY
from modeldeploy.values.model import DType, Field, Signature

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "PURGE", "SEARCH", "LOCK")
ROUTES = Routes(health="/aip/health", predict="/aip/predict")
OF_A_MODEL = (
    "",
    "/ready",
    "/infer",
    "/versions/1.0.0",
    "/versions/1.0.0/ready",
    "/versions/1.0.0/infer",
    "/versions/1.0.0/config",
)
UNKNOWN = ("/admin", "/docs", "/openapi.json", "/api/2.0/mlflow/experiments/list", "/models", "/v2/repository/index", "/ajax-api/x", "/metrics/", "/healthz/..", "/%2e%2e/metrics")  # fmt: skip


class _Nothing:
    signature = Signature((Field("a", DType.FLOAT64),), (Field("b", DType.FLOAT64),))


def _table() -> list[str]:
    """Take the routes from the code that answers them, so that a new one is tested here from its first day."""
    app = App(_Nothing(), name="line", version="1.0.0", revision="1.0.0", routes=ROUTES)
    return sorted({*app._reading, *app._predicting, *(f"/v2/models/line{each}" for each in OF_A_MODEL), *UNKNOWN})


TABLE = _table()
OPEN = HEALTH | {ROUTES.health}


def request(method: str, path: str, *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Length: 0", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize("path", TABLE)
def test_without_a_key_every_route_is_401_whatever_the_method(keyed, path):
    for method in METHODS:
        expected = 200 if path in OPEN and method in {"GET", "HEAD"} else 401
        assert keyed.statuses(request(method, path)) == [expected], method


@pytest.mark.parametrize(
    "path", ["/%6detrics", "/metrics?x=/healthz", "/healthz%00", "/healthz;/metrics", "/healthz/%2e%2e/metrics", "//metrics", "/metrics#/healthz", "http://localhost/metrics", "http://healthz/metrics", "/v2/models/line/../../../metrics", "/HEALTHZ", "/metrics%3f/ready"]
)  # fmt: skip
def test_no_way_of_writing_a_path_goes_around(keyed, path):
    assert keyed.statuses(request("GET", path)) == [401]


@pytest.mark.parametrize(
    "header",
    [
        "X-HTTP-Method-Override: GET",
        "X-Original-URL: /healthz",
        "X-Rewrite-URL: /healthz",
        "X-Forwarded-For: 127.0.0.1",
        "Forwarded: for=127.0.0.1",
        "modeldeploy-caller: owner",
        "modeldeploy-peer: 127.0.0.1",
    ],
)
def test_no_header_takes_the_place_of_a_key(keyed, header):
    assert keyed.statuses(request("POST", "/metrics", header)) == [401]


def test_a_predict_key_reads_nothing_but_predictions(keyed, ring, wait_until):
    _key, token = ring.create("ana")
    wait_until(
        lambda: keyed.statuses(request("GET", "/v2/models/line/ready", f"Authorization: Bearer {token}")) == [200]
    )
    for path in TABLE:
        (status,) = keyed.statuses(request("GET", path, f"Authorization: Bearer {token}"))
        needed = Doors(OPEN, Doors().predictions | {ROUTES.predict}).scope("GET", path)
        assert (status == 403) == (needed is Scope.ADMIN), path


def test_every_health_route_is_one_that_the_code_answers():
    assert set(TABLE) >= HEALTH
    assert HEALTH >= LIVE | READY
    assert "/metrics" not in HEALTH
