"""One model in one process: loads a bundle, then answers frames from the front until it is told to end.

One thread does everything, so that a prediction never waits for Python's lock: it takes all frames that wait on all its connections as
one batch, and answers each connection with one frame. It ends when its standard input does, which it holds for exactly that reason:
whoever started it is gone then.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import orjson

from modeldeploy.serving import link, sink
from modeldeploy.serving.messages import Request, Response, failure
from modeldeploy.serving.saying import Log

if TYPE_CHECKING:
    from modeldeploy.serving.app import App
    from modeldeploy.serving.lent import Lent

_log = Log(__name__)
_CHUNK = 1 << 20
_SEND_TIMEOUT = 30.0
_TICK = 5.0
_ORPHAN_GRACE = 5.0
_LEAVE = 2.0
_STANDARD = 2
_OBJECTS = 20_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program: the ready line goes to standard output, and whatever the model prints to standard error."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m modeldeploy.serving.worker", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--socket", required=True, help="a path, or tcp:127.0.0.1:0 where there are no unix sockets")
    parser.add_argument("--name", required=True)
    parser.add_argument("--revision", required=True)
    parser.add_argument("--trust", action="append", default=[], metavar="DIGEST")
    asked = parser.parse_args(arguments)
    ready_fd = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return run(
        asked.bundle, asked.socket, name=asked.name, revision=asked.revision, trust=asked.trust, ready_fd=ready_fd
    )


def run(
    bundle: Path,
    address: str,
    *,
    name: str,
    revision: str,
    trust: Collection[str] = (),
    ready_fd: int = 1,
    stdin_fd: int = 0,
) -> int:
    """Load, listen, say so on ``ready_fd`` in one line of JSON, and serve; give the exit code.

    May be called in a process that was just forked. ``ready_fd`` is closed after the line unless it is a standard stream.
    """
    sink.install()
    stop = _Stop()
    stop.on_end_of(stdin_fd)
    try:
        from modeldeploy.serving.boot import boot

        app = boot(bundle, name=name, revision=revision, trust=trust)
        listener, address = link.listen(address)
        lender = link.listen_for_loans(address)
    except BaseException as error:  # noqa: BLE001 - a model's code may raise anything, SystemExit included
        import traceback

        _say(
            ready_fd, {"ready": False, "error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        )
        return 1
    _settle_down()
    stop.on_signal()
    with listener, lender or contextlib.nullcontext():
        _say(ready_fd, {"ready": True, "pid": os.getpid(), "address": address})
        _Loop(app, listener, lender, stop).run()
    with contextlib.suppress(OSError):
        link.remove(address)
    return 0


def _settle_down() -> None:
    """Tell the collector that what is here stays, and that a batch makes many objects and leaves few."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS, 10, 10)


def _say(fd: int, data: dict[str, Any]) -> None:
    line = orjson.dumps(data, option=orjson.OPT_APPEND_NEWLINE)
    with contextlib.suppress(BrokenPipeError):
        while line:
            line = line[os.write(fd, line) :]
    if fd > _STANDARD:
        os.close(fd)


class _Stop:
    """The wish to end, which wakes the loop; a frame in hand is finished first."""

    def __init__(self) -> None:
        self.asked = False
        self.wake, self._bell = socket.socketpair()
        self._bell.settimeout(0)

    def ask(self) -> None:
        """End soon."""
        self.asked = True
        with contextlib.suppress(BlockingIOError):
            self._bell.send(b"!")

    def on_signal(self) -> None:
        """End at SIGTERM after the frame in hand; before this, while the model loads, there is nothing to finish."""
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, lambda _number, _frame: self.ask())
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is meant for whoever started us

    def on_end_of(self, fd: int) -> None:
        """End when ``fd`` does, even when the model hangs."""
        threading.Thread(target=self._watch, args=(fd,), daemon=True, name="lifeline").start()

    def _watch(self, fd: int) -> None:
        with contextlib.suppress(OSError):
            while os.read(fd, 4096):
                pass
        self.ask()
        threading.Event().wait(_ORPHAN_GRACE)
        os._exit(1)


@attrs.define(slots=True, eq=False)
class _Front:
    """One connection from a front, with what arrived of it and what it has not yet read."""

    sock: socket.socket
    frames: link.Frames = attrs.field(factory=link.Frames)
    unsent: bytearray = attrs.field(factory=bytearray)
    since: float = 0.0
    """When it last read something of what is unsent."""


_Asked: TypeAlias = "list[tuple[int, Request]]"
"""Requests with the ids that their front gave them."""


class _Loop:
    """Takes what waits, answers it, and looks again; a front that is slow to read holds up nobody else."""

    def __init__(self, app: App, listener: socket.socket, lender: socket.socket | None, stop: _Stop) -> None:
        self._app = app
        self._listener = listener
        self._lender = lender
        self._stop = stop
        self._fronts: set[_Front] = set()
        self._lent: set[Lent] = set()
        self._selector = selectors.DefaultSelector()
        listener.settimeout(0)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        if lender is not None:
            lender.settimeout(0)
            self._selector.register(lender, selectors.EVENT_READ, functools.partial(self._accept_loans, lender))
        self._selector.register(stop.wake, selectors.EVENT_READ, None)

    def run(self) -> None:
        """Serve until told to end."""
        with self._selector:
            while not self._stop.asked:
                self._turn(_TICK)
                self._give_up_on_deaf()
            self._take_leave()
            for front in list(self._fronts):
                self._part(front)

    def _take_leave(self) -> None:
        """Tell every front that this worker ends, and answer what they send until each has heard of it and closed its connection."""
        for sock in (self._listener, self._stop.wake, *([self._lender] if self._lender else ())):
            self._selector.unregister(sock)
        for lent in list(self._lent):
            self._end(lent)
        for front in list(self._fronts):
            front.unsent += link.encode_responses([])
            self._send(front)
        deadline = time.monotonic() + _LEAVE
        while self._fronts and time.monotonic() < deadline:
            self._turn(_LEAVE)

    def _turn(self, seconds: float) -> None:
        """Answer what came, from whomever, together; nothing when nothing did in so many seconds."""
        asked = self._wait(seconds)
        lent = [(each, each.take()) for each in self._lent]
        requests = [request for _front, pairs in asked for _number, request in pairs]
        for _each, taken in lent:
            requests += taken
        answers = iter(self._respond(requests) if requests else ())
        for front, pairs in asked:
            front.since = front.since if front.unsent else time.monotonic()
            front.unsent += link.encode_responses([(number, next(answers)) for number, _request in pairs])
            self._send(front)
        for each, taken in lent:
            each.answer([next(answers) for _request in taken])
            each.tell()

    def _wait(self, seconds: float) -> list[tuple[_Front, _Asked]]:
        """Give what came, from whom; nothing when nothing did in so many seconds."""
        found = []
        for key, events in self._selector.select(seconds):
            front = key.data
            if callable(front):
                front()
            elif front is not None:
                if events & selectors.EVENT_WRITE:
                    self._send(front)
                if events & selectors.EVENT_READ and (asked := self._read(front)):
                    found.append((front, asked))
        return found

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            sock, _address = self._listener.accept()
            sock.settimeout(0)
            front = _Front(sock)
            self._fronts.add(front)
            self._selector.register(sock, selectors.EVENT_READ, front)

    def _accept_loans(self, lender: socket.socket) -> None:
        from modeldeploy.serving.lent import Lent  # not while the worker starts

        with contextlib.suppress(BlockingIOError, ConnectionError):
            channel, _address = lender.accept()
            channel.settimeout(0)
            lent = Lent(channel)
            self._lent.add(lent)
            self._selector.register(channel, selectors.EVENT_READ, functools.partial(self._hear, lent))
            self._selector.register(lent, selectors.EVENT_READ, None)

    def _hear(self, lent: Lent) -> None:
        lent.hear()
        if lent.ended:
            self._end(lent)

    def _end(self, lent: Lent) -> None:
        """Have no more to do with what a front lent."""
        self._lent.discard(lent)
        self._selector.unregister(lent.channel)
        self._selector.unregister(lent)
        lent.close()

    def _read(self, front: _Front) -> _Asked:
        try:
            data = front.sock.recv(_CHUNK)
            frames = front.frames.feed(data)
            asked = [pair for frame in frames for pair in link.decode_requests(frame)]
        except BlockingIOError:
            return []
        except (OSError, link.FrameError) as error:
            _log.warning("a front was dropped: %s", error)
            data, asked = b"", []
        if not data:
            self._drop(front)
        return asked

    def _drop(self, front: _Front) -> None:
        if front in self._fronts:
            self._fronts.discard(front)
            self._selector.unregister(front.sock)
            front.sock.close()

    def _send(self, front: _Front) -> None:
        if front not in self._fronts:
            return
        try:
            while front.unsent:
                with memoryview(front.unsent)[:_CHUNK] as part:
                    sent = front.sock.send(part)
                del front.unsent[:sent]
                front.since = time.monotonic()
        except BlockingIOError:
            pass
        except OSError as error:
            _log.warning("a front went away before its answers: %s", error)
            self._drop(front)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if front.unsent else 0)
        if self._selector.get_key(front.sock).events != events:
            self._selector.modify(front.sock, events, front)

    def _give_up_on_deaf(self) -> None:
        late = time.monotonic() - _SEND_TIMEOUT
        for front in [front for front in self._fronts if front.unsent and front.since < late]:
            _log.warning("a front was dropped: it does not read its answers")
            self._drop(front)

    def _part(self, front: _Front) -> None:
        """Send the rest, then close."""
        front.sock.settimeout(_SEND_TIMEOUT)
        with contextlib.suppress(OSError):
            front.sock.sendall(front.unsent)
        front.sock.close()

    def _respond(self, requests: list[Request]) -> list[Response]:
        try:
            return self._app.respond_many(requests)
        except Exception:  # noqa: BLE001 - a worker outlives any request
            _log.exception("requests could not be answered together")
            return [self._respond_one(request) for request in requests]

    def _respond_one(self, request: Request) -> Response:
        try:
            return self._app.respond_many([request])[0]
        except Exception:  # noqa: BLE001 - as above
            _log.exception("a request to %s could not be answered", request.path)
            return failure(500, "the server failed")


if __name__ == "__main__":
    sys.exit(main())
