"""Endpoints that ask for a key: other people need one, the owner of the state directory does not."""

from __future__ import annotations

import os
import stat

import psutil
import pytest
import urllib3

from modeldeploy.backends.local.backend import LocalBackend
from modeldeploy.errors import AccessDeniedError, ConfigurationError, CredentialsError, ThrottledError
from modeldeploy.serving import audit_file, owner
from modeldeploy.values.serving import EndpointSpec


@pytest.fixture
def ask():
    """Give ``ask(url, body, key=None)``: what a client of another kind does; gives the answer."""
    with urllib3.PoolManager(retries=False) as pool:

        def send(method: str, url: str, body: bytes | None = None, key: str | None = None, **headers: str):
            sent = {"content-type": "application/json", **headers}
            if key is not None:
                sent["authorization"] = f"Bearer {key}"
            return pool.request(method, url, body=body, headers=sent, timeout=20)

        yield send


@pytest.fixture
def keyed(local):
    """An endpoint that asks for keys; gives its address."""
    local.backend.keys.create("somebody")
    local.deploy(local.revision(), auth="keys")
    return local.backend.observe("iris").url


def test_strangers_need_a_key_and_the_owner_does_not(local, keyed, ask, query):
    _key, token = local.backend.keys.create("ana")
    infer, body = f"{keyed}/v2/models/iris/infer", query(1.0).body
    refused = ask("POST", infer, body)
    assert (refused.status, refused.headers["www-authenticate"]) == (401, 'Bearer realm="modeldeploy"')
    assert ask("POST", infer, body, key=token).status == 200
    assert local.predict(1.0) == [2.0]


def test_a_revoked_key_is_refused_by_the_running_server(local, keyed, ask, query, wait_until):
    key, token = local.backend.keys.create("ana")
    infer, body = f"{keyed}/v2/models/iris/infer", query(1.0).body
    wait_until(lambda: ask("POST", infer, body, key=token).status == 200)
    local.backend.keys.revoke(key.id)
    wait_until(lambda: ask("POST", infer, body, key=token).status == 401, timeout=5)


def test_metrics_need_an_admin_key_and_health_needs_none(local, keyed, ask):
    _key, predict = local.backend.keys.create("ana")
    _key, admin = local.backend.keys.create("prometheus", scopes=["admin"])
    assert ask("GET", f"{keyed}/healthz").status == 200
    assert ask("GET", f"{keyed}/readyz").status == 200
    assert ask("GET", f"{keyed}/metrics").status == 401
    assert ask("GET", f"{keyed}/metrics", key=predict).status == 403
    assert (
        b'modeldeploy_refused_total{endpoint="iris",reason="forbidden"} 1'
        in ask("GET", f"{keyed}/metrics", key=admin).data
    )


def test_the_owner_shows_a_ticket_and_never_the_secret(local, keyed, monkeypatch):
    shown = []
    call = local.backend._caller.call
    monkeypatch.setattr(
        local.backend._caller, "call", lambda *args, **kwargs: shown.append(kwargs["shown"]) or call(*args, **kwargs)
    )
    assert local.predict(1.0) == [2.0]
    secret = (local.home / "local" / "owner.secret").read_bytes()
    assert owner.is_ticket(shown[0].removeprefix("Bearer "))
    assert secret.hex() not in shown[0]
    assert stat.S_IMODE((local.home / "local" / "owner.secret").stat().st_mode) == 0o600


def test_a_ticket_for_one_endpoint_opens_no_other(local, keyed, ask, query):
    local.deploy(local.revision(), endpoint="other", auth="keys")
    secret = owner.read_secret(local.home / "local" / "owner.secret")
    import time

    ticket = owner.ticket(secret, "other", time.time())
    other = local.backend.observe("other").url
    assert ask("POST", f"{other}/v2/models/other/infer", query(1.0).body, key=ticket).status == 200
    assert ask("POST", f"{keyed}/v2/models/iris/infer", query(1.0).body, key=ticket).status == 401


def test_keys_hold_after_the_front_and_the_supervisor_were_killed(local, keyed, ask, query, wait_until):
    infer, body = f"{keyed}/v2/models/iris/infer", query(1.0).body
    psutil.Process(local.backend.processes()["front"]).kill()
    assert wait_until(lambda: _status(ask, infer, body), timeout=20) == 401
    psutil.Process(local.backend.processes()["supervisor"]).kill()
    wait_until(lambda: local.predict(1.0) == [2.0])
    assert ask("POST", infer, body).status == 401


def _status(ask, url, body) -> int:
    try:
        return ask("POST", url, body).status
    except urllib3.exceptions.HTTPError:
        return 0


def test_a_key_of_the_caller_s_own_is_used_when_it_was_given(local, keyed, query, monkeypatch):
    _key, token = local.backend.keys.create("ana", scopes=["admin"])
    stranger = LocalBackend.configure(local.home, {"api_key": "md_0_unknown"})
    with pytest.raises(CredentialsError, match="modeldeploy keys create"):
        stranger.invoke("iris", query(1.0), timeout=10)
    admin = LocalBackend(local.home, api_key=token)
    with pytest.raises(AccessDeniedError, match="no scope 'predict'"):
        admin.invoke("iris", query(1.0), timeout=10)
    stranger.close()
    admin.close()


def test_the_key_of_a_caller_is_not_inherited_by_the_processes_that_serve(local, monkeypatch):
    monkeypatch.setenv("MODELDEPLOY_LOCAL_API_KEY", "md_0_secret")
    local.deploy(local.revision())
    processes = local.backend.processes()
    pids = [processes["supervisor"], processes["front"], *local.workers(local.revision())]
    assert all("MODELDEPLOY_LOCAL_API_KEY" not in psutil.Process(pid).environ() for pid in pids)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "models.example"])
def test_an_address_that_others_reach_is_refused_without_keys_before_anything_is_written(local, host):
    with pytest.raises(
        ConfigurationError, match="there is no API key; make one with: modeldeploy keys create NAME --home"
    ):
        local.backend.put_revision(EndpointSpec("iris", {"host": host}), local.revision())
    with pytest.raises(ConfigurationError, match="there is no API key"):
        LocalBackend(local.home, host=host).put_revision(EndpointSpec("iris"), local.revision())
    assert not (local.home / "local").exists()


def test_an_expired_key_is_no_key(local):
    local.backend.keys.create("late", days=1e-9)
    with pytest.raises(ConfigurationError, match="there is no API key"):
        local.backend.put_revision(EndpointSpec("iris", {"host": "0.0.0.0"}), local.revision())


def test_an_address_that_others_reach_asks_for_keys_by_itself(local, ask, query):
    _key, token = local.backend.keys.create("ana")
    local.deploy(local.revision(), host="0.0.0.0")
    url = local.backend.observe("iris").url
    assert ask("POST", f"{url}/v2/models/iris/infer", query(1.0).body).status == 401
    # Behind a name of any kind: what protects it is the key.
    named = ask("POST", f"{url}/v2/models/iris/infer", query(1.0).body, key=token, host="models.example")
    assert named.status == 200
    assert local.predict(1.0) == [2.0]


def test_who_says_that_no_key_is_needed_gets_an_open_address(local, ask, query):
    local.deploy(local.revision(), host="0.0.0.0", auth="none")
    url = local.backend.observe("iris").url
    assert ask("POST", f"{url}/v2/models/iris/infer", query(1.0).body).status == 200


def test_a_page_of_another_site_reaches_nothing_on_loopback(local, ask, query):
    local.deploy(local.revision())
    infer = f"{local.backend.observe('iris').url}/v2/models/iris/infer"
    assert ask("POST", infer, query(1.0).body, host="evil.example").status == 421
    assert ask("POST", infer, query(1.0).body, origin="https://evil.example").status == 403
    assert ask("POST", infer, query(1.0).body, origin="null").status == 403
    assert ask("POST", infer, query(1.0).body, host="localhost:1234").status == 200


def test_a_proxy_s_name_can_be_allowed(local, ask, query):
    local.deploy(local.revision(), allowed_hosts="models.example, other.example")
    infer = f"{local.backend.observe('iris').url}/v2/models/iris/infer"
    assert ask("POST", infer, query(1.0).body, host="models.example").status == 200
    assert ask("POST", infer, query(1.0).body, host="evil.example").status == 421


def test_a_limit_holds_for_each_address_and_says_when_to_come_back(local, query):
    local.deploy(local.revision(), rate="0.001", burst="3")
    answers = [local.predict(1.0) for _each in range(3)]
    assert answers == [[2.0]] * 3
    with pytest.raises(ThrottledError) as caught:
        local.predict(1.0)
    assert 900 < caught.value.retry_after <= 1000


def test_the_audit_log_tells_who_asked_what_and_no_payload(local, ask, query, wait_until):
    key, token = local.backend.keys.create("ana")
    revision = local.revision()
    local.deploy(revision, auth="keys", audit="true")
    url = local.backend.observe("iris").url
    ask("POST", f"{url}/v2/models/iris/infer", query(4711.0, 2.0).body, key=token, **{"x-request-id": "r-1"})
    ask("POST", f"{url}/v2/models/iris/infer", query(4711.0).body)
    path = local.home / "local" / "audit.jsonl"
    wait_until(lambda: path.exists() and path.read_bytes().count(b'"status"') >= 2)
    served, refused = (line for line in _entries(path) if "status" in line)
    assert served["rows"] == 2
    assert {name: served[name] for name in ("endpoint", "key", "client", "method", "path", "status", "request")} == {
        "endpoint": "iris", "key": key.id, "client": "127.0.0.1", "method": "POST", "path": "/v2/models/iris/infer",
        "status": 200, "request": "r-1",
    }  # fmt: skip
    assert served["revision"] == revision.id
    assert served["ms"] > 0
    assert (refused["status"], refused["key"]) == (401, "")
    assert b"4711" not in path.read_bytes()
    assert token.encode() not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert audit_file.verify(path).lines == 3


def _entries(path: os.PathLike) -> list[dict]:
    import json

    return [json.loads(line) for line in audit_file.lines(path)]


@pytest.mark.parametrize(
    "options",
    [
        {"auth": "password"},
        {"rate": "-1"},
        {"rate": "nan"},
        {"burst": "3"},
        {"rate": "1", "burst": "-1"},
        {"audit": "x"},
    ],
    ids=str,
)
def test_a_wrong_option_is_refused_before_anything_is_written(local, options):
    with pytest.raises(ConfigurationError):
        local.backend.put_revision(EndpointSpec("iris", options), local.revision())
    assert not (local.home / "local").exists()
