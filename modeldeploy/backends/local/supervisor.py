"""The process that keeps this machine's endpoints serving: ``python -m modeldeploy.backends.local.supervisor HOME SECONDS [FLAVOUR]``.

It is started by whoever needs it first, outlives them all, answers on a private Unix socket, and ends when there has been nothing to serve
for so many seconds. It begins a fork server for the flavour before all else, for whoever starts it is about to deploy such a model; hence
what it does itself lies in ``control``, which takes longer to import than this.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from modeldeploy.backends.local.begun import fork_front, fork_server
from modeldeploy.backends.local.paths import Paths

# How long one that is ending may keep the lock while the next one waits for it.
_TAKE_OVER_S = 60.0
_POLL_S = 0.02

# What the fork server, the front and we ourselves need; numpy and the like are none of it.
_SHARED = (
    "modeldeploy.backends.local.forkserver",
    "modeldeploy.values.codec",
    "modeldeploy.values.model",
    "modeldeploy.values.tolerance",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the supervisor of one home; end at once when another one serves it."""
    # Of what is made while modules load next to nothing can be collected.
    gc.disable()
    home, idle_exit, *flavours = sys.argv[1:] if argv is None else argv
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    paths = Paths(Path(home))
    lock = _lock(paths)
    if lock is None:
        return 0
    with lock:
        for name in _SHARED:
            importlib.import_module(name)
        begun = {(sys.executable, flavour): fork_server(flavour) for flavour in flavours}
        # After the fork server, which needs no event loop.
        import asyncio

        from modeldeploy.backends.local.control import run

        gc.freeze()
        gc.enable()
        front = fork_front() if sys.platform == "linux" else None
        asyncio.run(run(paths, float(idle_exit), lock, begun=begun, front=front))
    return 0


def _lock(paths: Paths) -> IO[bytes] | None:
    """Become the one supervisor of a home; None when there is one that answers."""
    stream = paths.lock.open("ab")
    deadline = time.monotonic() + _TAKE_OVER_S
    while time.monotonic() < deadline:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if _answers(paths):
                break
            time.sleep(_POLL_S)
        else:
            return stream
    stream.close()
    return None


def _answers(paths: Paths) -> bool:
    from modeldeploy.backends.local.client import knock

    return knock(paths)


if __name__ == "__main__":
    raise SystemExit(main())
