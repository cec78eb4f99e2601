"""Rows 4, 6, 8 and 19: the front and the supervisor are killed, told to end, or stopped for a while; traffic is switched."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time

import psutil
import pytest


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.row(4)
def test_a_killed_front_is_back_on_its_port_and_the_workers_go_on(ground, measured):
    ground.deploy(workers=2)
    workers, front, url = sorted(ground.wait_until(lambda: ground.serving)), ground.front, ground.url
    downtimes = []
    for _kill in range(3):
        victim = ground.wait_until(lambda: ground.front)
        assert ground.ask(1.0).status == 200
        began = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        ground.wait_until(lambda victim=victim: not alive(victim))
        # Nobody is refused: the supervisor holds the listening socket, so this connection waits for the next front.
        assert ground.ask(1.0).status == 200
        downtimes.append(time.monotonic() - began)
        ground.wait_until(lambda victim=victim: ground.front not in (0, victim))
    assert max(downtimes) < 5
    assert (ground.url, sorted(ground.workers)) == (url, workers)
    assert not alive(front)
    measured("downtime of a killed front, s", downtimes)


@pytest.mark.row(8)
def test_sigterm_under_load_answers_everybody_and_says_close_and_that_it_is_not_ready(ground):
    """Sent to the whole group of processes, as service managers do."""
    revision = ground.deploy(seconds=0.3, workers=2)
    supervisor = ground.local.backend.processes()["supervisor"]
    every = [ground.front, *ground.workers, *ground.local.backend.processes()["forkservers"]]
    body = ground.body(1.0)
    head = f"POST /v2/models/iris/infer HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    with contextlib.ExitStack() as stack:
        callers = [stack.enter_context(ground.connect()) for _each in range(6)]
        probe = stack.enter_context(ground.connect())
        for sock in callers:
            sock.sendall(head.encode() + body.encode())
        ground.wait_until(lambda: ground.metric("inflight", revision) + ground.metric("queued", revision) == 6)
        os.killpg(supervisor, signal.SIGTERM)
        readiness = _probe_until_not_ready(probe)
        answers = [_read(sock) for sock in callers]
    assert readiness.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: " in readiness
    assert b"connection: close" in readiness
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["outputs"][0]["data"] == [2.0]
    ground.wait_until(lambda: not any(alive(pid) for pid in [supervisor, *every]), what="the end of all processes")


def _probe_until_not_ready(sock: socket.socket) -> bytes:
    address = sock.getpeername()
    answer = b"HTTP/1.1 200 "
    while answer.startswith(b"HTTP/1.1 200 "):
        # A 200 from just before may already say that the connection ends.
        if b"connection: close" in answer:
            sock.close()
            sock = socket.create_connection(address, timeout=20)
        sock.sendall(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        answer = sock.recv(4096)
    sock.close()
    return answer


def _read(sock: socket.socket) -> bytes:
    received = b""
    while chunk := sock.recv(4096):
        received += chunk
    return received


@pytest.mark.row(19)
def test_a_machine_that_sleeps_wakes_up_with_all_it_had(ground, under_load, wait_until):
    ground.deploy(workers=2, deadline="30")
    before = ground.wait_until(lambda: ground.serving)
    processes = ground.local.backend.processes()
    every = [processes["supervisor"], processes["front"], *processes["forkservers"], *before]
    with under_load(1.0, connections=4) as load:
        for _nap in range(3):
            seen = len(load.statuses)
            wait_until(lambda seen=seen: len(load.statuses) > seen + 20)
            for pid in every:
                os.kill(pid, signal.SIGSTOP)
            asleep = time.monotonic()
            wait_until(lambda asleep=asleep: time.monotonic() - asleep > 1.5)
            for pid in reversed(every):
                os.kill(pid, signal.SIGCONT)
    assert load.failed == []
    assert ground.local.backend.processes() == processes, "nothing was taken for dead"
    assert ground.metric("worker_restarts_total") == 0
