"""One log file for each revision: what its workers wrote, line by line with the time, rotated by size."""

from __future__ import annotations

import collections
import contextlib
import datetime as dt
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path

from modeldeploy.serving.files import numbered, rotate
from modeldeploy.values.serving import LogLine

MAX_BYTES = 5_000_000
KEPT = 2
"""Older files beside the current one."""
_MAX_LINE = 16_384


class LogFile:
    """Appends lines; a full disk costs lines, never the service."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self.dropped = 0
        self.path = path
        self._max_bytes = max_bytes
        self._stream: FileIO | None = None

    def write(self, text: str) -> None:
        """Add one line with the time of now."""
        stamp = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        data = f"{stamp} {text[:_MAX_LINE]}\n".encode(errors="replace")
        try:
            self._rotate_for(len(data))
            stream = self._open()
            stream.write(data)
            stream.flush()
        except OSError:
            self.dropped += 1

    def _open(self) -> FileIO:
        if self._stream is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._stream = self.path.open("ab", buffering=0)
        return self._stream

    def _rotate_for(self, size: int) -> None:
        if self._open().tell() + size <= self._max_bytes:
            return
        self.close()
        rotate(self.path, KEPT)

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def read(path: Path, revision: str, *, since: float, limit: int) -> Iterable[LogLine]:
    """Give the last ``limit`` lines at or after ``since``, oldest first."""
    return list(collections.deque((line for line in _lines(path, revision) if line.at >= since), maxlen=limit))


def _lines(path: Path, revision: str) -> Iterator[LogLine]:
    for number in range(KEPT, -1, -1):
        with (
            contextlib.suppress(FileNotFoundError),
            numbered(path, number).open(encoding="utf-8", errors="replace") as stream,
        ):
            for raw in stream:
                line = _parse(raw, revision)
                if line is not None:
                    yield line


def _parse(raw: str, revision: str) -> LogLine | None:
    stamp, _space, text = raw.rstrip("\n").partition(" ")
    try:
        at = dt.datetime.fromisoformat(stamp)
    except ValueError:  # torn by a full disk
        return None
    return LogLine(at.timestamp(), revision, text)
