"""What a browser can be made to send, and what a program on this machine sends."""

from __future__ import annotations

import pytest

from modeldeploy.serving.origins import HostCheck, is_loopback


def judge(
    host: str | None, origin: str | None = None, *, bound: str = "127.0.0.1", allowed: tuple[str, ...] = ()
) -> int:
    headers = {name: value for name, value in (("host", host), ("origin", origin)) if value is not None}
    check = HostCheck(bound, allowed)
    answers = [check("POST", b"/score", dict(headers), "127.0.0.1") for _each in range(2)]
    statuses = {200 if answer is None else answer.status for answer in answers}
    assert len(statuses) == 1, "the second time as the first"
    return statuses.pop()


HERE = ["127.0.0.1", "127.0.0.1:8080", "127.8.9.1:80", "localhost", "LOCALHOST:5", "localhost.:5", "iris.localhost:5", "[::1]:80", "[::1]", "[::ffff:127.0.0.1]:1"]  # fmt: skip
ELSEWHERE = [
    "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example#localhost", "127.0.0.1@evil.example",
    "evil.example@127.0.0.1", "169.254.169.254", "192.168.0.1:80", "0.0.0.0:80", "[::]:80", "[fe80::1]", "", ":80", "[", "[::1", "xn--localhost",
    "127.0.0.1, evil.example", "0x7f000001", "2130706433",
]  # fmt: skip


@pytest.mark.parametrize("host", HERE)
def test_the_names_of_this_machine_are_served(host):
    assert judge(host) == 200


@pytest.mark.parametrize("host", ELSEWHERE)
def test_any_other_name_is_misdirected(host):
    assert judge(host) == 421


@pytest.mark.parametrize(
    "origin", ["http://localhost:8888", "http://127.0.0.1", "https://app.localhost", "http://[::1]:3000"]
)
def test_pages_of_this_machine_may_ask(origin):
    assert judge("localhost", origin) == 200


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "",
        "http://localhost.evil.example",
        "file://",
        "chrome-extension://abc",
        "http://[",
        "localhost",
    ],
)
def test_pages_of_other_sites_may_not(origin):
    assert judge("localhost", origin) == 403


def test_an_old_client_without_a_host_is_served():
    assert judge(None) == 200


def test_the_address_that_it_is_bound_to_and_allowed_names_are_served():
    assert judge("models.example:443", allowed=("Models.Example",)) == 200
    assert judge("localhost", "https://models.example", allowed=("models.example",)) == 200
    assert judge("sub.models.example", allowed=("models.example",)) == 421


def test_a_client_cannot_fill_the_memory_with_names():
    check = HostCheck("127.0.0.1")
    for at in range(1000):
        assert check("GET", b"/", {"host": f"h{at}.localhost"}, "") is None
    assert len(check._seen) <= 64


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.255.0.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("", False), ("models.example", False), ("10.0.0.1", False), ("::ffff:127.0.0.1", True)],
)  # fmt: skip
def test_only_what_cannot_be_reached_from_outside_is_loopback(host, loopback):
    assert is_loopback(host) is loopback
