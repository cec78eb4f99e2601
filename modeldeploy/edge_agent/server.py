"""The model server of a device, in a process of its own: proves a release, waits for the word, serves on the agent's socket.

What was proved is what serves: the process that passed the self-test goes on with the very model that it tested. The agent keeps the
listening socket, so the port stays while versions come and go, and connections that nobody has taken yet wait in the kernel.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import platform
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from modeldeploy.serving.lifeline import die_with_parent

if TYPE_CHECKING:
    from modeldeploy.serving.standalone import Standalone

GO, ASK = b"g", b"?"
_LINE = 1 << 16
_MAX_REASON = 500
_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run in an interpreter of its own, for releases that bring their own libraries, and where forking is not safe."""
    parser = argparse.ArgumentParser(prog="python -m modeldeploy.edge_agent.server", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--revision", required=True)
    parser.add_argument("--listen", type=int, required=True, help="descriptor of the socket, bound")
    parser.add_argument("--control", type=int, required=True, help="descriptor of the connection to the agent")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--grace", type=float, default=5.0)
    asked = parser.parse_args(arguments)
    die_with_parent(asked.parent)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    listener, control = socket.socket(fileno=asked.listen), socket.socket(fileno=asked.control)
    return run(asked.bundle, listener, control, revision=asked.revision, grace=asked.grace)


def run(bundle: Path, listener: socket.socket, control: socket.socket, *, revision: str, grace: float) -> int:
    """Prove, wait, serve until SIGTERM or until the agent is gone; give the exit code."""
    from modeldeploy.serving.access import Access
    from modeldeploy.serving.boot import boot
    from modeldeploy.serving.entrance import Entrance
    from modeldeploy.serving.http import run as run_loop
    from modeldeploy.serving.standalone import Standalone

    standalone = Standalone(handover=True)
    try:
        app = boot(bundle, revision=revision, metrics=standalone.metrics)
    except BaseException as error:  # noqa: BLE001 - whatever keeps a model from answering is a failed self-test
        _tell(control, {"failed": f"{type(error).__name__}: {error}"[:_MAX_REASON]})
        return 1
    _tell(control, {"proved": True, "versions": versions()})
    if control.recv(1) != GO:
        return 0
    entrance = Entrance(Access(host=listener.getsockname()[0]), endpoint=app.name)
    announce = _Announce(control, standalone)
    return run_loop(standalone.serve(app, listener, grace=grace, announce=announce, entrance=entrance))


def versions() -> dict[str, str]:
    """Name what runs here."""
    import modeldeploy

    found = {"python": platform.python_version(), "machine": platform.machine(), "modeldeploy": modeldeploy.__version__}
    modules = {name: sys.modules.get(name) for name in ("numpy", "onnxruntime")}
    return {**found, **{name: str(module.__version__) for name, module in modules.items() if module is not None}}


class _Announce:
    """Says that it serves, and from then on answers the agent's questions from within the loop: a loop that hangs does not answer."""

    def __init__(self, control: socket.socket, standalone: Standalone) -> None:
        self._control = control
        self._standalone = standalone

    def __call__(self) -> None:
        self._control.settimeout(0)
        asyncio.get_running_loop().add_reader(self._control.fileno(), self._heed)
        _tell(self._control, {"serving": True})

    def _heed(self) -> None:
        try:
            asked = self._control.recv(64)
        except BlockingIOError:
            return
        except OSError:
            asked = b""
        if asked:
            _tell(self._control, {"outcomes": self._standalone.outcomes})
            return
        # The agent is gone, and with it whoever could replace this.
        asyncio.get_running_loop().remove_reader(self._control.fileno())
        signal.raise_signal(signal.SIGTERM)


def _tell(control: socket.socket, line: dict[str, Any]) -> None:
    try:
        control.sendall(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
    except OSError as error:
        _log.warning("the agent does not hear: %s", error)


def become(act: Callable[[], int]) -> None:
    """Be the forked process: do this and end, whatever happens; never returns."""
    code = 1
    try:
        code = act()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - the agent's own stack lies below this one; nothing may get there
        _log.exception("the model server failed")
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
