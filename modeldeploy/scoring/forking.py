"""A process that scores as a copy of its runner, which has imported what both need. Linux only: elsewhere libraries do not stand it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable

POSSIBLE = sys.platform == "linux"


class Forked:
    """The copy, as ``subprocess.Popen`` gives a process with pipes to its stdin and from its stdout."""

    def __init__(self, pid: int, stdin: int, stdout: int) -> None:
        self.pid = pid
        self.stdin = os.fdopen(stdin, "wb")
        self.stdout = os.fdopen(stdout, "rb")
        self._ended: int | None = None

    def poll(self) -> int | None:
        """Give how it ended, as ``Popen`` does; None while it runs."""
        return self._look(os.WNOHANG)

    def wait(self) -> int:
        """Wait for its end and give how it ended."""
        ended = self._look(0)
        assert ended is not None  # noqa: S101 - it was waited for
        return ended

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _look(self, how: int) -> int | None:
        if self._ended is None:
            pid, status = os.waitpid(self.pid, how)
            self._ended = os.waitstatus_to_exitcode(status) if pid else None
        return self._ended


def fork(act: Callable[[], int]) -> Forked:
    """Let a copy of this process do nothing but ``act``, and end with what it gives."""
    theirs_in, stdin = os.pipe()
    stdout, theirs_out = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(theirs_in, 0)
        os.dup2(theirs_out, 1)
        for each in (theirs_in, theirs_out, stdin, stdout):
            os.close(each)
        _end_with(act)
    os.close(theirs_in)
    os.close(theirs_out)
    return Forked(pid, stdin, stdout)


def _end_with(act: Callable[[], int]) -> None:
    """Act and end; never returns, for below this lies the stack of the runner."""
    code = 1
    try:
        code = act()
    except BaseException:  # noqa: BLE001 - said, as the interpreter would
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)
