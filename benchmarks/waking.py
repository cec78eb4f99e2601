"""What it costs on this machine to wake another process: the part of a lone request that no server can save.

Between the cores of a virtual machine a wake-up may take ten times what it takes on one core, and ten times what it takes on another day.
Figures of lone requests can be compared only beside it. Linux only.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import attrs

TURNS = 3_000


@attrs.frozen
class Turn:
    """A byte to another process and back."""

    where: str
    seconds: float
    cpu_s: float
    """Of both processes."""


def turns() -> Iterator[Turn]:
    """Measure it on one core and, where there are two, from one core to the other."""
    cores = sorted(os.sched_getaffinity(0))
    try:
        yield _turn("on one core", cores[0], cores[0])
        if len(cores) > 1:
            yield _turn("between two cores", cores[0], cores[1])
    finally:
        os.sched_setaffinity(0, cores)


def _turn(where: str, ours: int, theirs: int) -> Turn:
    here, there = socket.socketpair()
    with here, there:
        child = os.fork()
        if child == 0:
            _echo(there, theirs)
        os.sched_setaffinity(0, {ours})
        began, cpu = time.perf_counter(), time.process_time()
        for _each in range(TURNS):
            here.send(b"?")
            here.recv(1)
        took, own = time.perf_counter() - began, time.process_time() - cpu
        here.shutdown(socket.SHUT_WR)
        used = os.wait4(child, 0)[2]
    return Turn(where, took / TURNS, (own + used.ru_utime + used.ru_stime) / TURNS)


def _echo(sock: socket.socket, core: int) -> None:
    code = 1
    try:
        os.sched_setaffinity(0, {core})
        while data := sock.recv(1):
            sock.send(data)
        code = 0
    finally:
        os._exit(code)
