"""What all handles of one backend share: the backend, the journal, the sinks, and the threads that drive operations."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from modeldeploy import config, registry
from modeldeploy.engine.drivers import RealClock, Wake, World, arun, run
from modeldeploy.engine.effects import Emit, Flow
from modeldeploy.engine.journal import Journal
from modeldeploy.engine.owners import forget, new_owner
from modeldeploy.engine.record import Kind, Record
from modeldeploy.engine.retry import RetryPolicy, retrying
from modeldeploy.errors import ConfigurationError, UnsupportedError
from modeldeploy.handles import flows
from modeldeploy.observe.sinks import Sinks
from modeldeploy.spi import Backend, Batch, Edge, Expecting, Logs, Meters, Rollable, Serving
from modeldeploy.values.events import Event, Level, Name
from modeldeploy.values.names import operation_id
from modeldeploy.values.serving import Revision

JOURNAL = "journal.sqlite"


class Session:
    """A backend with its journal and sinks. Handles make one by themselves; make your own to share a backend object or to watch events."""

    def __init__(self, backend: Backend, journal: Journal, *, home: Path, retry: RetryPolicy | None = None) -> None:
        self.backend = backend
        self.journal = journal
        self.home = home
        self.retry = retry or RetryPolicy()
        self.sinks = Sinks(_logged)
        self._drives: dict[str, Drive] = {}
        self._wakes: dict[str, Wake] = {}
        self._lock = threading.Lock()
        weakref.finalize(self, journal.close)

    @classmethod
    def of(cls, backend: str | Backend | Session | None = None, *, home: Path | str | None = None) -> Session:
        """Make or find the session of a backend: a name, a typed object, or None for the configured default."""
        if isinstance(backend, Session):
            return backend
        settings = config.load()
        place = Path(home).absolute() if home is not None else settings.home
        if isinstance(backend, Backend):
            return _shared((id(backend), place), lambda: cls._open(backend, place))
        name = backend or settings.backend
        given = config.at(settings, place)
        return _shared((name, place), lambda: cls._open(registry.create(name, given), place))

    @classmethod
    def _open(cls, backend: Backend, home: Path) -> Session:
        durable = backend.capabilities.durable
        try:
            journal = Journal(home / JOURNAL if durable else None)
        except OSError as error:
            message = f"state directory {str(home)!r} cannot be used: {error.strerror or error}"
            hint = "name one that you can write to: home=, --home or MODELDEPLOY_HOME"
            raise ConfigurationError(message, hint=hint) from error
        return cls(backend, journal, home=home)

    def __reduce__(self) -> NoReturn:
        message = "a handle holds connections and cannot be pickled; send its name and find it there with get()"
        raise TypeError(message)

    def subscribe(self, sink: Callable[[Event], object]) -> Callable[[], None]:
        """Call ``sink`` with every event from now on; gives the function that ends it. One that raises is dropped."""
        return self.sinks.subscribe(sink)

    # What the backend is, looked up once: to ask a class for the methods of a protocol costs as much as a request.

    @functools.cached_property
    def serving(self) -> Serving:
        """The backend, if it serves; else UnsupportedError."""
        self.backend.capabilities.require("serving", backend=self.backend.name)
        if not isinstance(self.backend, Serving):
            raise _undeclared(self.backend, "serving")
        return self.backend

    @functools.cached_property
    def edge(self) -> Edge:
        """The backend, if it puts models on devices; else UnsupportedError."""
        self.backend.capabilities.require("edge", backend=self.backend.name)
        if not isinstance(self.backend, Edge):
            raise _undeclared(self.backend, "edge")
        return self.backend

    @functools.cached_property
    def rollable(self) -> Rollable:
        """The backend, if it serves or puts models on devices; else UnsupportedError."""
        return self.edge if self.backend.capabilities.edge else self.serving

    @functools.cached_property
    def batch(self) -> Batch:
        """The backend, if it scores tables; else UnsupportedError."""
        self.backend.capabilities.require("batch", backend=self.backend.name)
        if not isinstance(self.backend, Batch):
            raise _undeclared(self.backend, "batch")
        return self.backend

    @functools.cached_property
    def meters(self) -> Meters:
        """The backend, if it measures its revisions; else UnsupportedError."""
        self.backend.capabilities.require("meters", backend=self.backend.name)
        if not isinstance(self.backend, Meters):
            raise _undeclared(self.backend, "meters")
        return self.backend

    @functools.cached_property
    def logs(self) -> Logs:
        """The backend, if it keeps logs; else UnsupportedError."""
        self.backend.capabilities.require("logs", backend=self.backend.name)
        if not isinstance(self.backend, Logs):
            raise _undeclared(self.backend, "logs")
        return self.backend

    def expect(self, revision: Revision) -> None:
        """Let the backend know what is about to be asked for, if it cares."""
        if isinstance(self.backend, Expecting):
            self.backend.expect(revision)

    # Operations

    def begin(self, kind: Kind, target: str, cursor: Any, *, reason: str = "", supersede: str | None = None) -> Record:
        """Journal a new operation and drive it by a background thread; ConflictError while another one is unfinished on the target."""
        made = Record(operation_id(kind.value), kind, self.backend.name, target, cursor, reason=reason)
        # What no process can read again would block its target for good, so it is not written at all.
        flows.of_record(made, self.backend)
        started = self._event(Name.OPERATION_STARTED, made)
        owner = new_owner()
        try:
            record = self.journal.create(made, supersede=supersede, owner=owner, events=[started])
        except BaseException:
            forget(owner)
            raise
        self.sinks(started)
        with self._lock:
            drive = self._drives[record.id] = Drive(self, record.id, (record, owner))
        drive.start()
        return record

    def drive(self, operation: str) -> Drive:
        """Drive an operation by a background thread of this process, or find the thread that does."""
        with self._lock:
            found = self._drives.get(operation)
            if found is None or found.done:
                found = self._drives[operation] = Drive(self, operation)
                found.start()
            return found

    def driving(self, operation: str) -> Drive | None:
        """Find the living thread of this process that drives an operation."""
        found = self._drives.get(operation)
        return found if found is not None and not found.done else None

    def let_go(self, drive: Drive) -> None:
        """Forget a thread that has ended."""
        with self._lock:
            if self._drives.get(drive.operation) is drive:
                del self._drives[drive.operation]

    async def adrive(self, operation: str) -> None:
        """Drive an operation on the running event loop."""
        import asyncio

        wake = Wake()
        world = await asyncio.to_thread(self._world, operation, wake)
        self._wakes[operation] = wake
        try:
            await arun(self._flow(world.record), world)
        finally:
            self._wakes.pop(operation, None)
            await asyncio.shield(asyncio.to_thread(world.finish))

    def wake(self, operation: str) -> None:
        """End the sleep of whatever drives an operation in this process, so that a command is heeded at once."""
        drive, wake = self.driving(operation), self._wakes.get(operation)
        if drive is not None:
            drive.wake()
        if wake is not None:
            wake.set()

    def _world(self, operation: str, wake: Wake, taken: tuple[Record, str] | None = None) -> World:
        record, owner = taken or self._take(operation)
        world = World(record, self.journal, owner=owner, sink=self.sinks, clock=RealClock(wake))
        try:
            world.keep_alive()
        except BaseException:
            # No thread to be had; nobody else is to wait for this one's lease.
            world.finish()
            raise
        if taken is None:
            world.perform(Emit(Name.OPERATION_RESUMED))
        return world

    def _take(self, operation: str) -> tuple[Record, str]:
        owner = new_owner()
        try:
            return self.journal.acquire(operation, owner), owner
        except BaseException:
            forget(owner)
            raise

    def _flow(self, record: Record) -> Flow[Any]:
        return retrying(flows.of_record(record, self.backend), self.retry)

    @staticmethod
    def _event(name: Name, record: Record) -> Event:
        fields = {"kind": record.kind.value, "backend": record.backend, "target": record.target}
        return Event(name, time.time(), record.id, Level.INFO, fields)


class Drive:
    """One operation being driven by a daemon thread: when the process ends the journal holds it, and any process can go on."""

    def __init__(self, session: Session, operation: str, taken: tuple[Record, str] | None = None) -> None:
        self.operation = operation
        self.error: Exception | None = None
        self._session = session
        self._taken = taken
        self._pid = os.getpid()
        self._waiting: list[Callable[[], object]] = []
        self._wake = Wake()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"modeldeploy {operation}", daemon=True)

    @property
    def done(self) -> bool:
        """Whether the thread has let go of the operation, or was lost in a fork."""
        return self._done.is_set() or self._pid != os.getpid()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self, timeout: float | None) -> bool:
        """Wait until the thread let go; False when ``timeout`` seconds were over first."""
        return self._done.wait(timeout)

    def when_done(self, act: Callable[[], object]) -> None:
        """Call ``act`` once when the thread let go; at once when it has."""
        self._waiting.append(act)
        if self._done.is_set():
            self._release()

    def _release(self) -> None:
        while self._waiting:
            # Each pop is one thread's, so each is called once.
            with contextlib.suppress(IndexError):
                self._waiting.pop()()

    def wake(self) -> None:
        """End a sleep early, so that a command is heeded at once."""
        self._wake.set()

    def _run(self) -> None:
        try:
            world = self._session._world(self.operation, self._wake, self._taken)  # noqa: SLF001 - the session's own thread
            try:
                run(self._session._flow(world.record), world)  # noqa: SLF001
            finally:
                world.finish()
        except Exception as error:  # noqa: BLE001 - kept for whoever waits, and logged
            self.error = error
            self._tell(error)
        finally:
            self._session.let_go(self)
            self._done.set()
            self._release()

    def _tell(self, error: Exception) -> None:
        from modeldeploy.observe import log

        log.write(
            "drive.ended", Level.WARNING, {"operation": self.operation, "error": f"{type(error).__name__}: {error}"}
        )


def _logged(event: Event) -> None:
    """Log an event, unless nobody has imported what takes log lines: there is nobody to read them then."""
    if "logging" in sys.modules:
        from modeldeploy.observe import log

        log.sink(event)


_sessions: weakref.WeakValueDictionary[tuple[object, Path], Session] = weakref.WeakValueDictionary()
_sessions_lock = threading.Lock()


def _shared(key: tuple[object, Path], make: Callable[[], Session]) -> Session:
    """One session for one backend and home as long as a handle holds it, so that its threads are found again."""
    with _sessions_lock:
        found = _sessions.get(key)
        if found is None:
            found = _sessions[key] = make()
        return found


def _undeclared(backend: Backend, what: str) -> UnsupportedError:
    message = f"backend {backend.name!r} declares {what} and does not implement it"
    return UnsupportedError(message, capability=what)
