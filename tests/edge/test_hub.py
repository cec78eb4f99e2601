"""The hub: who may do what, and what it refuses."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys

import pytest

from modeldeploy.edge.http_store import HttpStore
from modeldeploy.edge.hub import MAX_REPORT, Hub
from modeldeploy.errors import AccessDeniedError, ConfigurationError, CredentialsError


@pytest.fixture
def hub(hub_directory):
    with Hub(hub_directory) as found:
        yield found


@pytest.fixture
def guarded(hub_directory):
    with Hub(hub_directory, token="publisher", device_token="device") as found:
        yield found


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def ask(hub, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection(hub.host, hub.port, timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_a_device_reads_everything_and_writes_reports_alone(guarded):
    HttpStore(guarded.url, bearer("publisher")).put("desired.json", b"wanted")
    device = HttpStore(guarded.url, bearer("device"))
    assert device.get("desired.json") == b"wanted"
    device.put("reports/a.json", b"{}")
    for act in (lambda: device.put("desired.json", b"x"), lambda: device.delete("reports/a.json")):
        with pytest.raises(AccessDeniedError):
            act()
    assert device.get("desired.json") == b"wanted"


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer"}, {"Authorization": "Bearer wrong"}])
def test_nobody_else_reads_anything(guarded, headers):
    with pytest.raises(CredentialsError):
        HttpStore(guarded.url, headers).get("desired.json")


def test_an_address_that_others_reach_needs_tokens(hub_directory):
    for given in ({}, {"token": "a"}, {"device_token": "a"}):
        with pytest.raises(ConfigurationError, match="there are no tokens"):
            Hub(hub_directory, host="0.0.0.0", **given)


def test_devices_may_not_have_the_publishers_token(hub_directory):
    with pytest.raises(ConfigurationError, match="make two"):
        Hub(hub_directory, token="same", device_token="same")


@pytest.mark.parametrize("path", ["/../secret", "/%2e%2e/secret", "/a/%2e%2e/%2e%2e/secret", "/.put-x", "//etc/passwd"])
def test_nothing_outside_of_the_directory_is_served(hub, hub_directory, path):
    (hub_directory.parent / "secret").write_text("secret")
    status, _headers, body = ask(hub, "GET", path)
    assert status in {400, 404}
    assert b"secret" not in body.replace(path.encode(), b"")


def test_a_report_that_is_too_large_is_refused_before_it_is_read(hub):
    status, _headers, _body = ask(hub, "PUT", "/reports/a.json", None, {"content-length": str(MAX_REPORT + 1)})
    assert status == 413
    status, _headers, _body = ask(hub, "PUT", "/reports/a.json", b"", {"content-length": "-5"})
    assert status == 411


def test_what_was_cut_off_on_its_way_is_not_kept(hub, hub_directory, wait_until):
    connection = http.client.HTTPConnection(hub.host, hub.port, timeout=10)
    connection.putrequest("PUT", "/reports/a.json")
    connection.putheader("content-length", "100")
    connection.endheaders(b"half")
    connection.close()
    wait_until(lambda: not list(hub_directory.glob(".put-*")))
    assert ask(hub, "GET", "/reports/a.json")[0] == 404


def test_ranges_and_conditions_are_answered_as_http_has_them(hub):
    ask(hub, "PUT", "/releases/a.tar.gz", b"0123456789")
    status, headers, body = ask(hub, "GET", "/releases/a.tar.gz", None, {"range": "bytes=4-"})
    assert (status, headers["content-range"], body) == (206, "bytes 4-9/10", b"456789")
    assert ask(hub, "GET", "/releases/a.tar.gz", None, {"range": "bytes=10-"})[0] == 416
    # Other ranges are not needed: the whole is an answer to them that HTTP allows.
    assert ask(hub, "GET", "/releases/a.tar.gz", None, {"range": "bytes=1-2"})[2] == b"0123456789"
    assert ask(hub, "GET", "/releases/a.tar.gz", None, {"if-none-match": headers["etag"]})[0] == 304
    status, headers, body = ask(hub, "HEAD", "/releases/a.tar.gz")
    assert (status, headers["content-length"], body) == (200, "10", b"")


def test_a_directory_is_no_document(hub):
    ask(hub, "PUT", "/releases/a.tar.gz", b"x")
    assert ask(hub, "GET", "/releases")[0] == 404


def test_the_program_says_where_it_is_and_ends_when_told(tmp_path):
    command = [sys.executable, "-m", "modeldeploy.edge.hub", "--directory", str(tmp_path / "hub")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) as process:
        line = json.loads(process.stdout.readline())
        store = HttpStore(f"http://127.0.0.1:{line['port']}")
        store.put("desired.json", b"wanted")
        assert store.get("desired.json") == b"wanted"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
