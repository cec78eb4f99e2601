from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from modeldeploy.packaging.package import package
from modeldeploy.serving import link
from modeldeploy.serving.messages import Request

JSON = {"content-type": "application/json"}
BODY = b'{"instances":[{"x":%d}]}'
TIMEOUT = 30


class Doubler:
    """Twice the number; a negative number names a file to wait for, 666 fails."""

    def __init__(self, gate: str = "") -> None:
        self.gate = gate

    def predict(self, frame):
        import time
        from pathlib import Path

        print("a model may print what it likes", flush=True)  # noqa: T201 - as they do
        if (frame["x"] == 666).any():
            message = "secret"
            raise ValueError(message)
        if (frame["x"] < 0).any():
            Path(self.gate + ".entered").touch()
            deadline = time.monotonic() + 20
            while not Path(self.gate).exists() and time.monotonic() < deadline:
                time.sleep(0.005)
        return frame["x"] * 2


@pytest.fixture(scope="module")
def gate(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("gate") / "open"


@pytest.fixture(scope="module")
def doubler(store, gate):
    import pandas as pd

    return package(
        Doubler(str(gate)), name="doubler", version="1.0.0", example=pd.DataFrame({"x": [1, 2]}), store=store
    )


@contextlib.contextmanager
def worker(bundle, address: str, *more: str):
    command = [sys.executable, "-m", "modeldeploy.serving.worker", "--bundle", str(bundle.path), "--socket", address]
    with subprocess.Popen(
        [*command, "--name", "ep", "--revision", "r1", *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ready(process) -> dict[str, object]:
    return json.loads(process.stdout.readline())


def exchange(sock, *requests: Request):
    sock.sendall(link.encode_requests(list(enumerate(requests))))
    return receive(sock, len(requests))


def receive(sock, count: int):
    found: dict[int, object] = {}
    while len(found) < count:
        found.update(link.decode_responses(link.receive_frame(sock)))
    return [found[at] for at in sorted(found)]


def score(value: int) -> Request:
    return Request("POST", "/invocations", "", JSON, BODY % value)


@pytest.fixture
def address(modeldeploy_home) -> str:
    return str(modeldeploy_home / "w")


def test_a_worker_says_that_it_is_ready_answers_and_ends_with_its_stdin(doubler, address):
    with worker(doubler, address, "--trust", doubler.digest) as process:
        line = ready(process)
        assert line == {"ready": True, "pid": process.pid, "address": address}
        with link.connect(address, timeout=TIMEOUT) as sock:
            answers = exchange(sock, score(4), score(666), score(5), Request("POST", "/invocations", "", JSON, b"{"))
            assert [each.status for each in answers] == [200, 500, 200, 400]
            assert json.loads(answers[0].body) == {"predictions": [8]}
            assert all(each.headers["modeldeploy-revision"] == "r1" for each in answers)
            assert b"secret" not in answers[1].body
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0
        assert not process.stdout.read(), "only the ready line belongs on standard output"
        log = process.stderr.read().decode()
    assert "a model may print what it likes" in log
    assert "ValueError: secret" in log
    assert not Path(address).exists()


def test_frames_of_several_fronts_that_wait_become_one_answer_each(iris, address):
    with worker(iris, address) as process:
        assert ready(process)["ready"]
        body = b'{"instances":[[%d,3,4,1]]}'
        with contextlib.ExitStack() as stack:
            fronts = [stack.enter_context(link.connect(address, timeout=TIMEOUT)) for _each in range(4)]
            for sock in fronts:
                sock.sendall(
                    link.encode_requests([(at, Request("POST", "/score", "", JSON, body % at)) for at in range(20)])
                )
            for sock in fronts:
                assert [each.status for each in receive(sock, 20)] == [200] * 20
            fronts[0].close()
            assert exchange(fronts[1], Request("GET", "/readyz"))[0].status == 200


def test_a_front_that_talks_rubbish_is_dropped_and_the_others_served(iris, address):
    with worker(iris, address) as process:
        assert ready(process)["ready"]
        with link.connect(address, timeout=TIMEOUT) as bad, link.connect(address, timeout=TIMEOUT) as good:
            bad.sendall(b"\x08\x00\x00\x00\xff\xff\xff\xff{}{}")
            assert not bad.recv(1)
            assert exchange(good, Request("GET", "/ping"))[0].status == 200


def test_sigterm_finishes_the_frame_in_hand(doubler, gate, address, wait_until):
    with worker(doubler, address, "--trust", doubler.digest) as process:
        assert ready(process)["ready"]
        with link.connect(address, timeout=TIMEOUT) as sock:
            sock.sendall(link.encode_requests([(0, score(-3))]))
            wait_until(Path(f"{gate}.entered").exists, TIMEOUT)
            process.send_signal(signal.SIGTERM)
            gate.touch()
            (answer,) = receive(sock, 1)
            assert json.loads(answer.body) == {"predictions": [-6]}
        assert process.wait(TIMEOUT) == 0


def test_a_bundle_that_does_not_load_is_told_in_one_line(doubler, address):
    with worker(doubler, address) as process:
        line = ready(process)
        assert line["ready"] is False
        assert "IntegrityError" in line["error"]
        assert "Traceback" in line["traceback"]
        assert process.wait(TIMEOUT) == 1


def test_a_model_that_answers_otherwise_than_recorded_is_never_ready(store, tmp_path, address):
    """What it answers depends on where it runs, as with other versions of a library."""
    import pandas as pd

    class Moody:
        def predict(self, frame):
            return frame["x"] * int(os.environ.get("MOOD", "1"))

    bundle = package(Moody(), name="moody", version="1.0.0", example=pd.DataFrame({"x": [1, 2]}), store=store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOOD", "3")
        with worker(bundle, address, "--trust", bundle.digest) as process:
            line = ready(process)
            assert process.wait(TIMEOUT) == 1
    assert line["ready"] is False
    assert "output 'prediction' differs in 2 of 2 values, first in row 0" in line["error"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_run_serves_in_a_process_that_was_only_forked(iris, address):
    """The way a warm parent starts workers: no exec, descriptors passed by number."""
    script = f"""
import os, sys
from pathlib import Path
from modeldeploy.serving.worker import run
ready, told = os.pipe()
lifeline, held = os.pipe()
child = os.fork()
if not child:
    os.close(held)
    os._exit(run(Path({str(iris.path)!r}), {address!r}, name="ep", revision="r1", ready_fd=told, stdin_fd=lifeline))
os.close(told); os.close(lifeline)
print(os.read(ready, 1000).decode(), flush=True)
assert os.read(ready, 1) == b"", "the descriptor is closed after the line"
sys.stdin.read()
os.close(held)
print(os.waitpid(child, 0)[1], flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert ready(process)["ready"]
        with link.connect(address, timeout=TIMEOUT) as sock:
            assert exchange(sock, Request("GET", "/ping"))[0].status == 200
        process.stdin.close()
        assert [line for line in process.stdout.read().split() if line] == [b"0"]


def test_a_large_frame_arrives_whole_while_others_are_served(iris, address):
    with worker(iris, address) as process:
        assert ready(process)["ready"]
        with link.connect(address, timeout=TIMEOUT) as large, link.connect(address, timeout=TIMEOUT) as small:
            body = b'{"instances":[%s]}' % b",".join([b"[5,3,4,1]"] * 200_000)
            data = link.encode_requests([(0, Request("POST", "/score", "", JSON, body))])
            sender = threading.Thread(target=large.sendall, args=(data,))
            sender.start()
            assert exchange(small, Request("GET", "/ping"))[0].status == 200
            sender.join()
            (answer,) = receive(large, 1)
            assert len(json.loads(answer.body)["predictions"]) == 200_000


def test_a_front_that_does_not_read_its_answer_holds_up_nobody(iris, address):
    """Both are of one batch, and the answer to the first is larger than any socket's buffer."""
    with worker(iris, address) as process:
        assert ready(process)["ready"]
        with link.connect(address, timeout=TIMEOUT) as deaf, link.connect(address, timeout=TIMEOUT) as other:
            body = b'{"instances":[%s]}' % b",".join([b"[5,3,4,1]"] * 300_000)
            deaf.sendall(link.encode_requests([(0, Request("POST", "/score", "", JSON, body))]))
            for _each in range(3):
                assert exchange(other, Request("GET", "/ping"))[0].status == 200
            (answer,) = receive(deaf, 1)
            assert len(json.loads(answer.body)["predictions"]) == 300_000


def test_sigterm_answers_also_what_had_arrived_and_was_not_yet_read(doubler, gate, address, wait_until):
    """Its front was not told before it sent them, and may not be allowed to send them again."""
    with worker(doubler, address, "--trust", doubler.digest) as process:
        assert ready(process)["ready"]
        with link.connect(address, timeout=TIMEOUT) as first, link.connect(address, timeout=TIMEOUT) as second:
            assert exchange(second, Request("GET", "/ping"))[0].status == 200
            first.sendall(link.encode_requests([(0, score(-3))]))
            wait_until(Path(f"{gate}.entered").exists, TIMEOUT)
            second.sendall(link.encode_requests([(0, score(5))]))
            process.send_signal(signal.SIGTERM)
            gate.touch()
            assert json.loads(receive(first, 1)[0].body) == {"predictions": [-6]}
            assert json.loads(receive(second, 1)[0].body) == {"predictions": [10]}
        assert process.wait(TIMEOUT) == 0


def test_a_worker_loads_no_event_loop():
    """It has none, and its start waits for whatever it imports."""
    code = "import sys, modeldeploy.serving.boot, modeldeploy.serving.worker; sys.exit('asyncio' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
