"""The audit log: who asked what and what became of it, without payloads; lines of JSON, each chained to the one before by a hash.

A request costs one append to a queue in memory. A thread writes the queue out twice a second; when the file cannot be written, lines are
dropped and counted, and serving goes on.
"""

from __future__ import annotations

import collections
import contextlib
import datetime as dt
import logging
import threading
from pathlib import Path

import attrs
import orjson

from modeldeploy.serving.audit_file import MAX_BYTES, AuditFile

QUEUE = 20_000
"""Lines that may wait to be written; further ones are dropped."""
_FLUSH_S = 0.5
_CLOSE_S = 2.0
_BATCH = 1_000
_MAX_TEXT = 200
_REPLACED = "\N{REPLACEMENT CHARACTER}"
_log = logging.getLogger(__name__)


@attrs.define(slots=True)  # not frozen, which would take as long again to make
class Note:
    """One request; texts are as the caller sent them, and are cleaned before they are written."""

    at: float
    endpoint: str
    key: str
    """The id of the key; empty without one."""
    client: str
    """The address of whoever is connected, which may be a proxy."""
    method: str
    path: str
    status: int
    revision: str
    rows: str
    received: int
    """Bytes of the request's body."""
    sent: int
    ms: float
    request: str
    """The id that the caller gave its request."""

    def line(self) -> bytes:
        """Write it as a JSON object."""
        fields = {
            "at": dt.datetime.fromtimestamp(self.at, dt.UTC).isoformat(timespec="milliseconds"),
            "endpoint": self.endpoint,
            "key": self.key,
            "client": self.client,
            "method": self.method,
            "path": clean(self.path),
            "status": self.status,
            "revision": clean(self.revision),
            "rows": int(self.rows) if self.rows.isdecimal() else None,
            "received": self.received,
            "sent": self.sent,
            "ms": round(self.ms, 3),
            "request": clean(self.request),
        }
        return orjson.dumps(fields)


def clean(text: str) -> str:
    """Cap a text and replace what a terminal or a log viewer would act on: control characters, line ends, marks of direction."""
    text = text[:_MAX_TEXT]
    return text if text.isprintable() else "".join(each if each.isprintable() else _REPLACED for each in text)


class AuditLog:
    """Takes notes without waiting, and writes them from a thread of its own."""

    def __init__(
        self, path: Path, *, max_bytes: int = MAX_BYTES, flush_s: float = _FLUSH_S, queue: int = QUEUE
    ) -> None:
        self.written = 0
        self.dropped = 0
        self._file = AuditFile(path, max_bytes=max_bytes)
        self._queue: collections.deque[Note] = collections.deque()
        self._most = queue
        self._flush_s = flush_s
        self._missed = 0
        """Lines dropped since the last one that was written; the next one says so."""
        self._well = True
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="audit")
        self._thread.start()

    def add(self, note: Note) -> None:
        """Take a note; never waits and never fails."""
        if len(self._queue) >= self._most:
            self._drop(1)
        else:
            self._queue.append(note)

    def close(self, timeout: float = _CLOSE_S) -> None:
        """Write what waits; give up after ``timeout`` seconds, for a file that blocks must not hold up the end."""
        self._closing.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._closing.wait(self._flush_s):
            self._flush()
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        while self._queue:
            if not self._write([self._queue.popleft() for _each in range(min(_BATCH, len(self._queue)))]):
                return

    def _write(self, notes: list[Note]) -> bool:
        lines = [note.line() for note in notes]
        missed = self._missed
        if missed:
            lines.insert(0, orjson.dumps({"dropped": missed}))
        try:
            self._file.append(lines)
        except OSError as error:
            self._drop(len(notes))
            self._tell(error)
            return False
        self.written += len(notes)
        self._missed -= missed
        self._well = True
        return True

    def _drop(self, count: int) -> None:
        self.dropped += count
        self._missed += count

    def _tell(self, error: OSError) -> None:
        """Say once that lines are lost; not again until one was written."""
        if self._well:
            with contextlib.suppress(Exception):  # the log may be what is full
                _log.warning("lines of the audit log are dropped: %s", error)
        self._well = False
