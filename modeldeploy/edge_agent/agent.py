"""The agent of one device: asks what is wanted, brings it about, keeps it served, and says how it went when somebody can hear it.

One thread does everything, so that a model server can be forked from it at any time. Nothing here depends on the network: without it the
device serves what it has, for ever.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator

import attrs

from modeldeploy.edge.desired import wanted
from modeldeploy.edge.layout import DESIRED, report_path
from modeldeploy.edge.reports import Health, Report
from modeldeploy.edge.stores import Store
from modeldeploy.edge_agent.child import Child
from modeldeploy.edge_agent.config import Config
from modeldeploy.edge_agent.installer import Installer
from modeldeploy.edge_agent.keeper import Keeper
from modeldeploy.edge_agent.memory import Memory
from modeldeploy.edge_agent.server import versions
from modeldeploy.edge_agent.slots import Slots
from modeldeploy.errors import IntegrityError, ModelDeployError

_LONGEST_S = 600.0
_TICK_S = 1.0
_DOUBLINGS = 10
_log = logging.getLogger("modeldeploy.edge_agent")
_random = secrets.SystemRandom()


class _StoppedError(Exception):
    """The agent was told to end."""


class Agent:
    """One device of a fleet."""

    def __init__(self, config: Config, store: Store, listener: socket.socket) -> None:
        self._config = config
        self._store = store
        self._slots = Slots(config.home, config.keys, fleet=config.fleet)
        self._memory = Memory(config.home, config.keys, fleet=config.fleet)
        self.keeper = Keeper(config, listener, check=self._check)
        self._installer = Installer(config, self._slots, self._memory, self.keeper)
        self._answered = 0
        self._failure = self._refusal = self._offline = ""
        self._misses = 0
        self._deferred = False
        """Whether what is wanted waits for a trial to end."""
        self._next = 0.0
        self._sent: Report | None = None
        self._tell_at = self._heartbeat_at = 0.0
        self._stopping = False
        self._wake, self._bell = socket.socketpair()

    def run(self, announce: Callable[[], None], *, once: bool = False) -> int:
        """Serve and follow until SIGTERM, or with ``once`` until what is wanted now has settled; 1 when the device is not well then."""
        with self._signals(), contextlib.suppress(_StoppedError):
            try:
                self._installer.recover()
                announce()
                while not (once and self._is_done()):
                    self._turn()
                    self._check()
                    self._wait()
                return int(self.report().health is Health.FAILED)
            finally:
                self.keeper.stop()
        return 0

    def _is_done(self) -> bool:
        tried = bool(self._next)
        return tried and not self._slots.pointer.trial and (bool(self._offline) or self._is_answered())

    def _is_answered(self) -> bool:
        return self._memory.desired is None or self._answered >= self._memory.desired.sequence

    # One turn

    def _turn(self) -> None:
        self.keeper.mind()
        try:
            self._failure = self._installer.watch() or self._failure
        except OSError as error:
            self._miss(error)
        if time.monotonic() >= self._next:
            self._sync()
        elif self._deferred:
            self._follow()
        self._tell()

    def _sync(self) -> None:
        """Ask the store, and do what is wanted."""
        self.keeper.ask()
        before = self._misses
        try:
            self._pull()
        except (ModelDeployError, OSError) as error:
            self._miss(error)
        if not self._is_answered():
            self._follow()
        if self._misses == before:
            self._offline, self._misses = "", 0
        spread = _random.uniform(0.8, 1.2)
        pause = max(self._config.poll, min(self._config.poll * 2 ** min(self._misses, _DOUBLINGS), _LONGEST_S))
        self._next = time.monotonic() + pause * spread

    def _pull(self) -> None:
        document = self._store.get(DESIRED)
        try:
            if document is not None and self._memory.take(document):
                self._failure = ""
            self._refusal = ""
        except IntegrityError as error:
            if error.message != self._refusal:
                _log.warning("refused: %s", error)
            self._refusal = error.message

    def _follow(self) -> None:
        desired = self._memory.desired
        if desired is None:
            return
        try:
            failed = self._installer.follow(desired, self._store, tick=self._tick)
        except (ModelDeployError, OSError) as error:
            self._deferred = False
            self._miss(error)
            return
        self._deferred = failed is None
        if failed is not None:
            self._failure, self._answered = failed, desired.sequence

    def _miss(self, error: Exception) -> None:
        """Take note of what could not be done now, be it for the network or for this device's own disk; it is tried again."""
        reason = error.message if isinstance(error, ModelDeployError) else f"the disk of this device: {error}"
        if reason != self._offline:
            _log.warning("%s", error)
        self._offline = reason
        self._misses += 1

    # Reporting

    def report(self) -> Report:
        """Say how the device is."""
        keeper, desired = self.keeper, self._memory.desired
        revision = wanted(desired, self._config.device) if desired is not None else None
        well = not self._failure and not keeper.failing and (keeper.up or (keeper.slot is None and revision is None))
        child = keeper.child
        outcomes = child.outcomes if child is not None else {}
        return Report(
            device=self._config.device,
            fleet=self._config.fleet,
            running=keeper.slot.release.revision if keeper.slot is not None else None,
            sequence=self._answered,
            health=Health.OK if well else Health.FAILED,
            failed_revision=revision if self._failure else None,
            note=self._failure or self._refusal or self._offline or ("" if well else keeper.reason),
            settled=not self._slots.pointer.trial,
            answers=outcomes.get("ok", 0) + outcomes.get("error", 0),
            errors=outcomes.get("error", 0),
            at=time.time(),
            versions=child.versions if child is not None else versions(),
        )

    def _tell(self) -> None:
        """Send the report when it says something new, or when it is time; it is tried again at the next poll when nobody hears it."""
        report = self.report()
        now = time.monotonic()
        known = self._sent is not None and _news(report) == _news(self._sent)
        if now < (self._heartbeat_at if known else self._tell_at):
            return
        try:
            self._store.put(report_path(self._config.device), report.to_bytes())
            self._sent, self._heartbeat_at = report, now + self._config.heartbeat
        except (ModelDeployError, OSError) as error:
            self._tell_at = self._heartbeat_at = now + max(self._config.poll, _TICK_S)
            self._miss(error)

    # Waiting

    def _wait(self) -> None:
        left = self._next - time.monotonic()
        child = self.keeper.child
        readable: list[socket.socket | Child] = [self._wake, *([child] if child is not None else [])]
        found, _writable, _errors = select.select(readable, [], [], max(0.0, min(left, _TICK_S)))
        if self._wake in found:
            self._wake.recv(4096)

    def _tick(self) -> None:
        """Stay awake during a long download."""
        self._check()
        self.keeper.mind()

    def _check(self) -> None:
        if self._stopping:
            raise _StoppedError

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(_number: int, _frame: object) -> None:
            self._stopping = True

        def look(_number: int, _frame: object) -> None:
            self._next = 0.0

        for end in (self._wake, self._bell):
            end.settimeout(0)
        handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: look, signal.SIGCHLD: lambda *_: None}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        wakeup = signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._wake.close()
            self._bell.close()


def _news(report: Report) -> Report:
    """Leave out what changes all the time."""
    return attrs.evolve(report, at=0.0, answers=0, errors=0)
