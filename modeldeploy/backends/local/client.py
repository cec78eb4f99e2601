"""Talks to the supervisor, and starts one when nobody answers.

One connection for each question: it costs some fifty microseconds, and is safe across threads and forks without a lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from modeldeploy.backends.local.paths import Paths, check_private
from modeldeploy.errors import ConfigurationError, UnavailableError, UnsupportedError

if TYPE_CHECKING:
    import socket

IDLE_EXIT_S = 60.0
"""How long a supervisor that we start stays when there is nothing to serve."""

_START_S = 30.0
_ANSWER_S = 60.0
_POLL_S = 0.005
# A supervisor that ended without serving leaves the lock to another; this long until we start one more.
_AGAIN_S = 0.5
_LOG_TAIL = 2_000
_WINDOWS = os.name == "nt"


def refuse_windows() -> None:
    """Raise UnsupportedError where the processes of this backend cannot run."""
    if _WINDOWS:
        message = "backend 'local' needs Unix sockets that pass descriptors on, which Windows lacks"
        raise UnsupportedError(message, capability="serving", hint="use WSL, or a cloud backend")


def idle_exit(settings: Mapping[str, str]) -> float:
    """Read the setting of this name; ConfigurationError when it is no number."""
    try:
        return float(settings.get("idle_exit", IDLE_EXIT_S))
    except ValueError as error:
        message = f"setting idle_exit of backend 'local' is {settings['idle_exit']!r}"
        raise ConfigurationError(message, hint="use a number of seconds") from error


def connect(paths: Paths) -> socket.socket | None:
    """Connect to the supervisor; None when there is none."""
    refuse_windows()
    try:
        control = Path(json.loads(paths.info.read_bytes())["control"])
        check_private(control.parent)
        import socket  # not for a first deployment, which has a supervisor begun before it goes on

        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except (FileNotFoundError, ValueError, KeyError):
        return None
    try:
        sock.settimeout(_ANSWER_S)
        sock.connect(str(control))
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except BaseException:
        sock.close()
        raise
    return sock


def knock(paths: Paths) -> bool:
    """Whether a supervisor answers."""
    sock = connect(paths)
    if sock is not None:
        sock.close()
    return sock is not None


class Control(NamedTuple):  # no attrs class, as Paths
    """Asks the supervisor of one home."""

    paths: Paths
    idle_exit: float = IDLE_EXIT_S

    def ask(self, do: str, **arguments: Any) -> Any:
        """Ask, and start a supervisor when nobody answers; every question may be asked twice."""
        for _attempt in range(3):
            sock = connect(self.paths) or start(self.paths, self.idle_exit)
            with contextlib.suppress(_Silence):
                return _ask(sock, {"do": do, **arguments})
        message = "the local supervisor does not answer"
        raise UnavailableError(message, hint=f"see {str(self.paths.supervisor_log)!r}")

    def expect(self, flavour: str) -> None:
        """Have a supervisor and, unless it is empty, the libraries of a flavour loaded soon; nothing is waited for."""
        if not self.begin(flavour) and flavour:
            self.ask_if_there("warm", python=sys.executable, flavour=flavour)

    def begin(self, flavour: str) -> bool:
        """Start a supervisor that loads these libraries unless there is one, or one of our own that starts; whether there is none that answers."""
        if knock(self.paths):
            return False
        if _starting(self.paths) is None:
            begun = [flavour] if flavour and sys.platform == "linux" else []
            _spawn(self.paths, self.idle_exit, *begun)
        return True

    def shut_down(self) -> int | None:
        """Tell the supervisor to end, also one that we have just started; give its pid, None when there is none."""
        ask = self.ask if _starting(self.paths) is not None else self.ask_if_there
        pid: int | None = ask("shutdown")
        return pid

    def ask_if_there(self, do: str, **arguments: Any) -> Any:
        """Ask a supervisor that runs; None when there is none."""
        sock = connect(self.paths)
        if sock is not None:
            with contextlib.suppress(_Silence):
                return _ask(sock, {"do": do, **arguments})
        return None


class _Silence(Exception):  # noqa: N818 - no error, a state
    """The supervisor went away before it answered."""


def _ask(sock: socket.socket, message: dict[str, Any]) -> Any:
    from modeldeploy.backends.local import wire

    with sock, sock.makefile("rb") as stream:
        try:
            sock.sendall(wire.encode(message))
            line = stream.readline()
        except TimeoutError as error:
            text = f"the local supervisor did not answer within {_ANSWER_S:g} s"
            raise UnavailableError(text) from error
        except OSError as error:
            raise _Silence from error
    if not line.endswith(b"\n"):
        raise _Silence
    answer = wire.decode(line)
    if "error" in answer:
        raise wire.to_error(answer["error"])
    return answer["result"]


def start(paths: Paths, idle_exit: float) -> socket.socket:
    """Start a supervisor, detached from this process, and connect; whoever else does so at the same time reaches the same one."""
    deadline = time.monotonic() + _START_S
    child, since = _starting(paths) or _spawn(paths, idle_exit), time.monotonic()
    while True:
        sock = connect(paths)
        if sock is not None:
            _withdraw(paths, child)
            return sock
        now = time.monotonic()
        if now > deadline:
            message = "the local supervisor could not be started"
            raise UnavailableError(message, hint=f"its log ends with: {_tail(paths.supervisor_log)}")
        if _reap(child) and now - since > _AGAIN_S:
            child, since = _spawn(paths, idle_exit), now
        time.sleep(_POLL_S)


def _withdraw(paths: Paths, child: int) -> None:
    """End our own supervisor when another one was first; it would take over the moment that one ends."""
    if child not in _started:  # it has ended already
        return
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
        if json.loads(paths.info.read_bytes())["pid"] == child:
            return
    import signal

    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)
    _started.pop(child, None)


_ENDED = "ZX"
"""States of a process that has ended."""

_started: dict[int, Path] = {}
"""Supervisors that this process started, and for which home; whoever starts a process must take note of its end."""


def _starting(paths: Paths) -> int | None:
    """Find a living supervisor of this home that we started ourselves."""
    return next((pid for pid, home in list(_started.items()) if home == paths.home and not _reap(pid)), None)


def gone(pid: int) -> bool:
    """Whether a process has ended, also one whose own parent has not noticed: a notebook that started what a terminal stops."""
    if not _reap(pid):
        return False
    with contextlib.suppress(OSError):  # there is no such process, or no /proc
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in _ENDED
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return False
    return True


def _spawn(paths: Paths, idle_exit: float, *flavours: str) -> int:
    for pid in list(_started):
        _reap(pid)
    paths.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    pid = _spawn_detached(paths, str(idle_exit), *flavours)
    _started[pid] = paths.home
    return pid


def _spawn_detached(paths: Paths, *rest: str) -> int:
    from modeldeploy.backends.local.environment import of_process

    log = os.open(paths.supervisor_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    arguments = [sys.executable, "-P", "-m", "modeldeploy.backends.local.supervisor", str(paths.home), *rest]
    streams = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
    try:
        # Not subprocess: its object warns when it is collected while the process lives on, which is just what this one must do.
        return os.posix_spawn(sys.executable, arguments, of_process(1), file_actions=streams, setsid=True)
    except NotImplementedError:  # an older macOS; the supervisor ignores the terminal's signals anyway
        return os.posix_spawn(sys.executable, arguments, of_process(1), file_actions=streams)
    finally:
        os.close(log)
        os.close(null)


def _reap(pid: int) -> bool:
    """Whether our child has ended; it is not left behind as a zombie when it has."""
    try:
        ended = os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:  # no child of ours, or not any more
        ended = True
    if ended:
        _started.pop(pid, None)
    return ended


def _tail(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[-_LOG_TAIL:]
    except OSError as error:
        return str(error)
