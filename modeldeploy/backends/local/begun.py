"""A fork server that was begun, with next to nothing imported: the supervisor does so before it loads its own modules."""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

from modeldeploy.backends.local.environment import of_process


class Begun(NamedTuple):
    """Its process, which is our child, and our end of its control socket."""

    pid: int
    control: socket.socket


def begin(python: str, flavour: str) -> Begun:
    """Start one; OSError when that is not possible."""
    # Whole messages: a descriptor belongs to one order.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)  # noqa: FBT003 - the signature of the standard library
    number = str(theirs.fileno())
    command = [python, "-P", "-m", "modeldeploy.backends.local.forkserver"]
    options = ["--control", number, "--parent", str(os.getpid()), "--flavour", flavour]
    silence = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    try:
        with theirs:
            theirs.set_inheritable(True)
            pid = os.posix_spawnp(python, [*command, *options], of_process(1), file_actions=[silence])
    except OSError:
        ours.close()
        raise
    return Begun(pid, ours)
