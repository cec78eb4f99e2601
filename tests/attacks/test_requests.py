"""Bytes that try to be two requests, more than one, or something that runs (BentoML CVE-2024-2912, -9056, CVE-2025-27520; request smuggling)."""

from __future__ import annotations

import json
import pickle

import psutil
import pytest

SECOND = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
HEAD = b"POST /score HTTP/1.1\r\nHost: localhost\r\n"


def post(body: bytes, *headers: bytes, kind: bytes = b"application/json", path: bytes = b"/score") -> bytes:
    lines = [
        b"POST %b HTTP/1.1" % path,
        b"Host: localhost",
        b"Content-Type: " + kind,
        b"Content-Length: %d" % len(body),
        b"Connection: close",
        *headers,
    ]
    return b"\r\n".join([*lines, b"", b""]) + body


SMUGGLED = {
    "length and chunks": HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 0\r\nContent-Length: 55\r\n\r\n",
    "two equal lengths": HEAD + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a list of lengths": HEAD + b"Content-Length: 0, 55\r\n\r\n",
    "a length with a sign": HEAD + b"Content-Length: +0\r\n\r\n",
    "a length in hexadecimal": HEAD + b"Content-Length: 0x0\r\n\r\n",
    "a length with an underscore": HEAD + b"Content-Length: 1_0\r\n\r\n",
    "a length in other digits": HEAD + "Content-Length: \u0661\r\n\r\n".encode(),
    "a length that is empty": HEAD + b"Content-Length: \r\n\r\n",
    "an unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked not last": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "two codings": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a coding behind a space": HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a coding folded": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a coding with a vertical tab": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a coding behind a null": HEAD + b"\x00Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bare line feed hides a header": HEAD + b"X: y\nContent-Length: 0\r\n\r\n",
    "a bare return hides a header": HEAD + b"X: y\rContent-Length: 0\r\n\r\n",
    "a null in a header": HEAD + b"X: a\x00b\r\nContent-Length: 0\r\n\r\n",
    "a folded header": HEAD + b"X: a\r\n\tContent-Length: 0\r\n\r\n",
    "a header without a name": HEAD + b": 0\r\nContent-Length: 0\r\n\r\n",
    "a space before the first header": b"POST /score HTTP/1.1\r\n Host: localhost\r\nContent-Length: 0\r\n\r\n",
    "a chunk size with a sign": HEAD + b"Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n",
    "a chunk size with a prefix": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
    "a chunk size beyond all": HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n",
    "chunks by bare line feeds": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\n\n",
    "a chunk longer than it says": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
    "a null in an extension": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0;a=\x00\r\n\r\n",
    "two hosts": b"POST /score HTTP/1.1\r\nHost: localhost\r\nHost: other\r\nContent-Length: 0\r\n\r\n",
    "a space in the target": b"POST /score x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
    "version 0.9": b"GET /\r\n\r\n",
    "version 2.0": b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", SMUGGLED)
def test_what_two_parsers_might_read_differently_is_refused_and_nothing_behind_it_answered(target, name):
    statuses = target.statuses(SMUGGLED[name] + SECOND)
    assert len(statuses) == 1
    assert 400 <= statuses[0] < 506
    assert statuses[0] != 500


def test_a_request_in_the_body_of_another_is_a_body(target):
    assert len(target.statuses(post(SECOND))) == 1


@pytest.mark.parametrize(
    "kind",
    ["application/python-pickle", "application/x-pickle", "application/vnd.bentoml+pickle", "application/x-python-serialize", "application/octet-stream", "application/x-joblib", "application/x-npy", "application/cloudpickle", "text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/score", "/invocations", "/v2/models/line/infer"])
def test_a_pickle_in_a_request_is_never_opened(target, kind, path, tmp_path):
    mark = tmp_path / "executed"
    body = pickle.dumps(_Exploit(str(mark)))
    (status,) = target.statuses(post(body, kind=kind.encode(), path=path.encode()))
    assert status in {400, 415}
    for header in (b"Accept: application/x-pickle", b"Accept: application/python-pickle", b"Payload-Container: Pickle"):
        assert target.statuses(post(b'{"instances": [[1, 2]]}', header, path=path.encode()))[0] in {200, 400, 406}
    assert not mark.exists()


class _Exploit:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.path}",)


DEEP = b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BODIES = {
    "deep lists": (DEEP, 400),
    "deep objects": (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 400),
    "deep and unclosed": (b"[" * 1_000_000, 400),
    "1e5 keys": (json.dumps({f"k{at}": at for at in range(100_000)}).encode(), 400),
    "1e5 keys in a row": (json.dumps({"instances": [{f"k{at}": at for at in range(100_000)}]}).encode(), 422),
    "a number of a megabyte": (b'{"instances": [[' + b"9" * 1_000_000 + b", 1]]}", 400),
    "a text of a megabyte": (b'{"instances": [["' + b"9" * 1_000_000 + b'", 1]]}', 422),
    "invalid UTF-8": (b'{"instances": [["\xc0\xaf", 1]]}', 400),
    "a null in a name": (b'{"inst\\u0000ances": [[1, 2]]}', 400),
    "keys that are Python's": (b'{"__proto__": {}, "__class__": "x", "instances": [[1, "a"]]}', 400),
    "a byte order mark": (b'\xef\xbb\xbf{"instances": [[1, 2]]}', 400),
    "UTF-16": ('{"instances": [[1, 2]]}'.encode("utf-16"), 400),
    "an entity": (b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>', 400),
    "a reference to a file": (b'{"instances": [["file:///etc/passwd", {"b64": "eA=="}]]}', 422),
    "an address": (b'{"instances": [["http://169.254.169.254/latest/meta-data/", 1]]}', 422),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body_is_the_callers_mistake_in_little_time_and_memory(target, name):
    body, expected = BODIES[name]
    process = psutil.Process(target.pid)
    before, began = process.memory_info().rss, sum(process.cpu_times()[:2])
    answers = [target.send(post(body)) for _each in range(2)]
    assert [int(answer.split()[1]) for answer in answers] == [expected] * 2
    assert all(len(answer) < 2_000 for answer in answers)
    assert answers[0].partition(b"\r\n\r\n")[2] == answers[1].partition(b"\r\n\r\n")[2]
    assert sum(process.cpu_times()[:2]) - began < 5
    assert process.memory_info().rss - before < 200 << 20


def test_a_key_that_occurs_twice_is_refused_always(target):
    body = b'{"instances": [[1, 2]], "instances": [[1, "x"]]}'
    assert target.statuses(post(body)) == target.statuses(post(body)) == [400]


@pytest.mark.parametrize("boundary", [b"x" * 200, b"-" * 30_000, b"x;" * 1_000])
def test_a_boundary_costs_nothing_for_nobody_reads_parts(target, boundary):
    body = (b"--" + boundary[:100] + b"\r\n") * 10_000
    (status,) = target.statuses(post(body, kind=b"multipart/form-data; boundary=" + boundary))
    assert status in {415, 431}


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd", b"gzip, gzip", b"identity, gzip", b"x-gzip"])
def test_a_compressed_body_is_refused_and_not_unpacked(target, coding):
    import gzip

    bomb = gzip.compress(bytes(50 << 20))
    before = psutil.Process(target.pid).memory_info().rss
    assert target.statuses(post(bomb, b"Content-Encoding: " + coding)) == [415]
    assert psutil.Process(target.pid).memory_info().rss - before < 20 << 20


ECHOED = ["x-request-id", "x-ms-client-request-id", "modeldeploy-revision", "modeldeploy-key"]


@pytest.mark.parametrize("name", ECHOED)
@pytest.mark.parametrize(
    "value", [b"a\x85Set-Cookie: x=1", b"a\x9b31m", b"a\xe2\x80\xa8b", b"\xff\xfe", b"a" * 5_000, b"a\tb", b"\x7f", b"\x1b]0;x\x07", b"<script>alert(1)</script>", b"a\\r\\nSet-Cookie: x=1", b"%0d%0aSet-Cookie: x=1"]
)  # fmt: skip
def test_what_is_sent_back_is_harmless(target, name, value):
    answer = target.send(post(b'{"instances": [[1, 2]]}', name.encode() + b": " + value))
    head, _blank, body = answer.partition(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        text = line.decode("ascii")
        assert text.isprintable()
        assert not text.lower().startswith("set-cookie")
        assert len(text) < 400
    assert b"content-type: application/json" in head or answer.startswith(b"HTTP/1.1 4")
    assert all(byte >= 0x20 for byte in body)


def test_the_server_outlives_all_of_it(target):
    assert target.statuses(post(b'{"instances": [[1, 2]]}')) == [200]
