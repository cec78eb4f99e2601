"""Processes of the supervisor's that are begun with next to nothing imported: a fork server, and the front.

The supervisor forks its first ones, before it has a thread or an event loop; later ones, and all where there is no safe fork, are spawned.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import NamedTuple

from modeldeploy.backends.local.environment import of_process
from modeldeploy.backends.local.forking import fork


class Begun(NamedTuple):
    """A fork server: its process, which is our child, and our end of its control socket."""

    pid: int
    control: socket.socket


class BegunFront(NamedTuple):
    """A front: its process, which is our child, and our ends of its control socket and of the one that listening sockets go through."""

    pid: int
    control: socket.socket
    sockets: socket.socket


def begin(python: str, flavour: str) -> Begun:
    """Start a fork server; OSError when that is not possible."""
    ours, theirs = _orders()
    options = ["--control", str(theirs.fileno()), "--flavour", flavour]
    try:
        with theirs:
            pid = _spawn(python, "modeldeploy.backends.local.forkserver", options, theirs)
    except OSError:
        ours.close()
        raise
    return Begun(pid, ours)


def fork_server(flavour: str) -> Begun:
    """Fork one; nothing may run in another thread here."""
    ours, theirs = _orders()

    def run() -> int:
        from modeldeploy.backends.local.forkserver import serve

        return serve(theirs, flavour)

    with theirs:
        return Begun(fork(run, keep=[theirs.fileno()]), ours)


def begin_front() -> BegunFront:
    """Start a front; OSError when that is not possible."""
    (ours, theirs), (our_sockets, their_sockets) = socket.socketpair(), socket.socketpair()
    options = ["--control", str(theirs.fileno()), "--sockets", str(their_sockets.fileno())]
    try:
        with theirs, their_sockets:
            pid = _spawn(sys.executable, "modeldeploy.serving.front", options, theirs, their_sockets)
    except OSError:
        ours.close()
        our_sockets.close()
        raise
    return BegunFront(pid, ours, our_sockets)


def fork_front() -> BegunFront:
    """Fork one; nothing may run in another thread here."""
    (ours, theirs), (our_sockets, their_sockets) = socket.socketpair(), socket.socketpair()

    def run() -> int:
        from modeldeploy.serving.front import serve

        return serve(theirs.detach(), their_sockets.detach())

    with theirs, their_sockets:
        return BegunFront(fork(run, keep=[theirs.fileno(), their_sockets.fileno()]), ours, our_sockets)


def _orders() -> tuple[socket.socket, socket.socket]:
    # Whole messages: a descriptor belongs to one order.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)  # noqa: FBT003 - the signature of the standard library
    return ours, theirs


def _spawn(python: str, module: str, options: list[str], *theirs: socket.socket) -> int:
    """Start a program of ours, which inherits its sockets and is told who we are."""
    for each in theirs:
        each.set_inheritable(True)
    command = [python, "-P", "-m", module, *options, "--parent", str(os.getpid())]
    silence = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    return os.posix_spawnp(python, command, of_process(1), file_actions=[silence])
