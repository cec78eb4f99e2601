"""The front as a process of its own, told what to do over its control channel."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading

import psutil
import pytest

from modeldeploy.serving import link
from modeldeploy.serving.messages import Response

POLICY = {"deadline_s": 5.0}


class Front:
    def __init__(self, parent: int | None = None) -> None:
        ours, theirs = socket.socketpair()
        self._sockets, their_sockets = socket.socketpair()
        with theirs, their_sockets:
            fds = [theirs.fileno(), their_sockets.fileno()]
            self.process = subprocess.Popen(
                [sys.executable, "-m", "modeldeploy.serving.front", "--control", str(fds[0]), "--sockets", str(fds[1]),
                 "--parent", str(os.getpid() if parent is None else parent)],
                pass_fds=fds,
            )  # fmt: skip
        self._control = ours
        self._lines = ours.makefile("rb")
        self._number = 0

    def ask(self, do: str, **arguments: object) -> object:
        self._number += 1
        self._control.sendall(json.dumps({"id": self._number, "do": do, **arguments}).encode() + b"\n")
        while True:
            answer = json.loads(self._lines.readline())
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def listen(self, endpoint: str) -> int:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            socket.send_fds(self._sockets, [b"."], [listener.fileno()])
            self.ask("listen", endpoint=endpoint)
            return listener.getsockname()[1]

    def configure(self, endpoint: str, weights: dict[str, int], **revisions: dict) -> None:
        table = {"weights": weights, "shadow": {}, "key": "", "stable": None, "safe_canary": True}
        self.ask("configure", endpoint=endpoint, **table, revisions=revisions)

    def close(self) -> None:
        self._lines.close()
        self._control.close()
        self._sockets.close()
        assert self.process.wait(timeout=10) == 0


@pytest.fixture
def front(worker):
    made = Front()
    yield made
    made.close()


@pytest.fixture
def worker(tmp_path):
    """Give a function that starts a worker in a thread: it answers every request with its own name."""
    with contextlib.ExitStack() as stack:

        def start(name: str) -> str:
            sock, address = link.listen(str(tmp_path / name))
            thread = threading.Thread(target=_answer, args=(sock, name))
            stack.callback(thread.join, 10)
            stack.callback(sock.close)
            stack.callback(sock.shutdown, socket.SHUT_RDWR)
            thread.start()
            return address

        yield start


def _answer(listener: socket.socket, name: str) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _address = listener.accept()
            with connection:
                while frame := link.receive_frame(connection):
                    pairs = [(number, Response(200, name.encode())) for number, _request in link.decode_requests(frame)]
                    connection.sendall(link.encode_responses(pairs))


def serving(**workers: str) -> dict:
    return {
        "state": "serving",
        "policy": POLICY,
        "broken": "",
        "workers": workers,
        "leaving": [],
        "lines_dropped": 0,
    }


def ask(port: int, path: str = "/invocations", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", path, b"{}", headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_a_front_serves_what_it_is_told(front, worker):
    one, two = front.listen("one"), front.listen("two")
    front.configure("one", {"v1": 100}, v1=serving(a=worker("a")))
    front.configure("two", {"v1": 100}, v1=serving(b=worker("b")))
    assert ask(one) == (200, b"a")
    assert ask(two) == (200, b"b")


def test_a_new_table_holds_from_the_next_request_on(front, worker):
    port, groups = front.listen("one"), {"v1": serving(a=worker("a")), "v2": serving(b=worker("b"))}
    front.configure("one", {"v1": 100}, **groups)
    assert ask(port) == (200, b"a")
    front.configure("one", {"v2": 100}, **groups)
    assert ask(port) == (200, b"b")


def test_a_retired_revision_gets_nothing_new_and_is_drained(front, worker):
    port, a, b = front.listen("one"), serving(a=worker("a")), serving(b=worker("b"))
    front.configure("one", {"v1": 100}, v1=a, v2=b)
    front.configure("one", {"v1": 100}, v1=a, v2={**b, "state": "retired"})
    assert ask(port, **{"modeldeploy-revision": "v2"})[0] == 404
    assert front.ask("drain", endpoint="one", revision="v2", grace=5) is True
    front.configure("one", {"v1": 100}, v1=a)
    assert ask(port) == (200, b"a")


def test_the_same_told_twice_changes_nothing(front, worker):
    port, a = front.listen("one"), serving(a=worker("a"))
    for _each in range(2):
        front.configure("one", {"v1": 100}, v1=a)
    assert ask(port) == (200, b"a")
    window = front.ask("window", endpoint="one", revision="v1", since=0, until=1e12)
    assert (window["requests"], window["errors"]) == (1, 0)


def test_a_forgotten_endpoint_listens_no_more(front, worker):
    port = front.listen("one")
    front.configure("one", {"v1": 100}, v1=serving(a=worker("a")))
    front.ask("forget", endpoint="one", grace=1)
    with pytest.raises(OSError):  # noqa: PT011 - refused or reset, as the moment has it
        ask(port)


def test_a_command_that_fails_is_reported_and_the_front_goes_on(front):
    with pytest.raises(AssertionError, match="TypeError"):
        front.ask("drain", endpoint="one")
    assert front.ask("drain", endpoint="one", revision="v1", grace=1) is True


def test_it_loads_neither_numpy_nor_a_model_library(front):
    front.listen("one")
    mapped = (
        {mapping.path for mapping in psutil.Process(front.process.pid).memory_maps()}
        if sys.platform == "linux"
        else set()
    )
    assert not [path for path in mapped if "numpy" in path or "sklearn" in path]


def test_it_ends_when_the_supervisor_does_not_exist_any_more():
    made = Front(parent=1)
    if sys.platform == "linux":
        assert made.process.wait(timeout=10) == 1
        made._lines.close()
        made._control.close()
        made._sockets.close()
    else:
        made.close()
