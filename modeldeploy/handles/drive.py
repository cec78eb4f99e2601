"""Driving unattended: take up what nobody drives, each operation in a thread of its own, and tell what becomes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from modeldeploy.engine.record import Record
from modeldeploy.errors import ModelDeployError
from modeldeploy.handles.operation import Operation
from modeldeploy.handles.session import Drive, Session
from modeldeploy.values.events import Event, Name
from modeldeploy.values.ticket import Phase


class Say(Protocol):
    """Whoever is told, a line at a time; ``error`` marks what went wrong."""

    def __call__(self, text: str, *, error: bool = False) -> object:
        """Tell one line."""
        ...


class Sweep:
    """Takes up the unfinished operations of a journal, looking once or again and again.

    A paused operation waits for its user, and what somebody else drives stays with them: both are only told, and only when that is news.
    The lease decides between two that sweep at once. One operation's trouble does not keep the others from being driven.
    """

    def __init__(self, session: Session, say: Say, *, home: Path | str | None = None) -> None:
        self.failed = False
        """Whether an operation failed, or could not be driven on."""
        self._home = home
        self._say = say
        self._told: dict[str, str] = {}
        self._mine: dict[str, tuple[Operation, Drive]] = {}
        self._ended = threading.Event()
        self._sessions = {session.backend.name: session}
        self._unsubscribe = [session.subscribe(self._show)]

    def once(self, records: Iterable[Record]) -> None:
        """Drive these as far as they go."""
        self.look(records)
        while self._mine:
            self._ended.wait()
            self._settle()
        self._leave()

    def watch(self, records: Callable[[], Iterable[Record]], every: float) -> None:
        """Look for work every so many seconds, until interrupted; trouble with the journal is told and outlived."""
        try:
            while True:
                self._look_safely(records)
                until = time.monotonic() + every
                while (left := until - time.monotonic()) > 0:
                    if self._ended.wait(left):
                        self._settle()
        finally:
            self._leave()

    def _look_safely(self, records: Callable[[], Iterable[Record]]) -> None:
        try:
            self.look(records())
        except ModelDeployError as error:
            self._tell("journal", str(error), error=True)

    def look(self, records: Iterable[Record]) -> None:
        """Take up what nobody drives."""
        for record in records:
            if record.id in self._mine:
                continue
            try:
                session = self._session_of(record)
                self._consider(session, Operation(session, record.id))
            except ModelDeployError as error:
                self._fail(record.id, str(error))

    def _session_of(self, record: Record) -> Session:
        """Find the session of a record's backend: a journal holds the operations of all."""
        found = self._sessions.get(record.backend)
        if found is None:
            found = self._sessions[record.backend] = Session.of(record.backend, home=self._home)
            self._unsubscribe.append(found.subscribe(self._show))
        return found

    def _consider(self, session: Session, operation: Operation) -> None:
        if operation.at_rest:
            self._tell_end(operation)
        elif driver := operation.driver:
            self._tell(operation.id, f"left to {driver}, which drives it")
        else:
            self._tell(operation.id, f"taking up the {operation.kind.value} of {operation.target!r}")
            drive = session.drive(operation.id)
            self._mine[operation.id] = (operation, drive)
            drive.when_done(self._ended.set)

    def _settle(self) -> None:
        """Tell what became of the drives that ended."""
        self._ended.clear()
        for name, (operation, drive) in list(self._mine.items()):
            if drive.done:
                del self._mine[name]
                self._tell_drive(operation, drive)

    def _tell_drive(self, operation: Operation, drive: Drive) -> None:
        if drive.error is None or operation.done:
            self._tell_end(operation)
        elif driver := operation.driver:
            self._tell(operation.id, f"left to {driver}, which took it first")
        else:
            self._fail(operation.id, f"stopped where it was: {type(drive.error).__name__}: {drive.error}")

    def _tell_end(self, operation: Operation) -> None:
        record = operation.record
        words = record.outcome if record.paused else f"{record.phase.value} {record.outcome}".rstrip()
        if record.phase is Phase.FAILED:
            self._fail(record.id, words)
        else:
            self._tell(record.id, words)

    def _fail(self, name: str, words: str) -> None:
        self.failed = True
        self._tell(name, words, error=True)

    def _tell(self, name: str, words: str, *, error: bool = False) -> None:
        if self._told.get(name) != words:
            self._told[name] = words
            self._say(f"{name}: {words}", error=error)

    def _show(self, event: Event) -> None:
        """Tell of the steps on the way, so that a long drive is not silent."""
        if event.operation not in self._mine:
            return
        if event.name is Name.ROLLOUT_STEP:
            self._say(f"{event.operation}: {event.fields['percent']} % to {event.fields['revision']}")
        elif event.name is Name.OPERATION_RETRY:
            self._say(f"{event.operation}: {event.fields['call']} again: {event.fields['error']}", error=True)

    def _leave(self) -> None:
        while self._unsubscribe:
            self._unsubscribe.pop()()
