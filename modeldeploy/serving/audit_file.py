"""The file of an audit log: appended, rotated by size, chained by SHA-256 across its files, and checked.

Each line ends with ``"chain"``: the hash of the chain before it and of the line itself. The first line of a file says where the chain stood,
so that the oldest files may go.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import attrs
import orjson

from modeldeploy.errors import IntegrityError, NotFoundError
from modeldeploy.serving.files import numbered, rotate

MAX_BYTES = 20_000_000
KEPT = 9
"""Older files beside the current one."""
_MARK = b',"chain":"'
_TAIL = 1 << 16
_OVERHEAD = 120
"""What number and chain add to a line, and a little more."""


class AuditFile:
    """Appends lines whole or not at all; after an ``OSError`` the next attempt begins anew with what is on the disk.

    Something that is no file, such as ``/dev/stdout``, is written to and neither locked nor rotated.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> None:
        self._path = path.resolve() if path.is_file() else path
        self._max_bytes = max_bytes
        self._kept = kept
        self._fd = self._lock = -1
        self._size: int | None = None
        """None where there is no size: a pipe or a terminal."""
        self._head = _Head()

    def append(self, lines: Sequence[bytes]) -> None:
        """Write these JSON objects as the next lines."""
        try:
            if self._fd < 0:
                self._open()
            if self._size and self._size + sum(map(len, lines)) + _OVERHEAD * len(lines) > self._max_bytes:
                self._turn_over()
            self._write(lines)
        except OSError:
            self.close()
            raise

    def _open(self) -> None:
        if _is_regular(self._path):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _locked(self._path)
        self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            self._begin()
            return
        self._size = _cut_torn_end(self._fd)
        if self._size:
            self._head = _last(self._fd, self._size)
        else:
            self._begin()

    def _turn_over(self) -> None:
        os.close(self._fd)
        rotate(self._path, self._kept)
        self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        self._size = 0
        self._begin()

    def _begin(self) -> None:
        self._write([orjson.dumps({"before": self._head.chain})])

    def _write(self, lines: Sequence[bytes]) -> None:
        head, data = self._head, bytearray()
        for line in lines:
            head, written = head.link(line)
            data += written
        try:
            while data:
                del data[: os.write(self._fd, data)]
        except OSError:
            if self._size is not None:  # a line that is there in part would break the chain
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, self._size)
            raise
        self._head = head
        if self._size is not None:
            self._size = os.fstat(self._fd).st_size

    def close(self) -> None:
        """Close it; the next line opens it again."""
        for fd in (self._fd, self._lock):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._fd = self._lock = -1
        self._size = None


@attrs.frozen
class _Head:
    """Where a chain stands: the number of lines, and the hash of the last."""

    count: int = 0
    chain: str = ""

    def link(self, line: bytes) -> tuple[_Head, bytes]:
        """Give the head after a line, and the line as it is written."""
        body = b'{"n":%d,%b' % (self.count + 1, line[1:-1])
        head = self.after(body)
        return head, b'%b%b%b"}\n' % (body, _MARK, head.chain.encode())

    def after(self, body: bytes) -> _Head:
        return _Head(self.count + 1, hashlib.sha256(self.chain.encode() + b"\n" + body).hexdigest())


@attrs.frozen
class Verified:
    """What was found to be whole."""

    lines: int
    chain: str
    """Of the last line. Kept elsewhere, it also shows a log whose end was cut off or that was made anew as a whole."""
    dropped: int
    """Lines that the log says it could not write."""


def verify(path: Path, *, anchor: str = "") -> Verified:
    """Check every file of the log; IntegrityError names the first line that was changed or is missing.

    ``anchor`` is the chain of a line that must still be there.
    """
    head: _Head | None = None
    count = dropped = 0
    anchored = not anchor
    for file, raw in _lines(path):
        body, document = _parse(file, raw)
        if head is None:
            head = _Head(document["n"] - 1, str(document.get("before", "")))
        head = head.after(body)
        if (head.count, head.chain) != (document["n"], document["chain"]):
            _refuse(file, f"line {head.count} is not the one that was written, or is missing")
        count += 1
        dropped += int(document.get("dropped", 0))
        anchored = anchored or head.chain == anchor
    if head is None:
        raise _missing(path)
    if not anchored:
        _refuse(path, f"no line has the chain {anchor!r}")
    return Verified(count, head.chain, dropped)


def lines(path: Path) -> Iterator[str]:
    """Give the lines as they are, oldest first, unchecked."""
    for _file, raw in _lines(path):
        yield raw.decode(errors="replace").rstrip("\n")


def _lines(path: Path) -> Iterator[tuple[Path, bytes]]:
    if not path.exists():
        raise _missing(path)
    for number in range(KEPT, -1, -1):
        file = numbered(path, number)
        with contextlib.suppress(FileNotFoundError), file.open("rb") as stream:
            # The last line may be about to be written.
            yield from ((file, raw) for raw in stream if number or raw.endswith(b"\n"))


def _missing(path: Path) -> NotFoundError:
    message = f"there is no audit log at {str(path)!r}"
    return NotFoundError(message, hint="it is off unless it was asked for: endpoint option audit, or --audit FILE")


def _parse(file: Path, raw: bytes) -> tuple[bytes, dict[str, Any]]:
    body, _mark, _chain = raw.rpartition(_MARK)
    try:
        document: dict[str, Any] = orjson.loads(raw)
        _ = int(document["n"]), str(document["chain"]), int(document.get("dropped", 0))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        _refuse(file, f"this is no line of it: {raw[:80]!r}")
    return body, document


def _refuse(file: Path, what: str) -> NoReturn:
    message = f"audit log {str(file)!r} is not whole: {what}"
    raise IntegrityError(message, hint="somebody changed it, or a disk lost a part; compare it with a copy")


def _is_regular(path: Path) -> bool:
    """Whether it is a file or may become one."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True


def _locked(path: Path) -> int:
    """Keep the log for ourselves: two writers would break the chain; nothing to hold on Windows."""
    fd = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        pass
    except OSError:
        os.close(fd)
        raise
    return fd


def _cut_torn_end(fd: int) -> int:
    """Take away what a process that was killed left of a last line; gives the size."""
    size = os.fstat(fd).st_size
    tail = _read_tail(fd, size)
    whole = size - (len(tail) - (tail.rfind(b"\n") + 1))
    if whole != size:
        os.ftruncate(fd, whole)
    return whole


def _last(fd: int, size: int) -> _Head:
    """Read where the chain stands; at the beginning, where the last line is none of ours, so that the check will name it."""
    raw = _read_tail(fd, size).rstrip(b"\n").rpartition(b"\n")[2]
    try:
        document = orjson.loads(raw)
        return _Head(int(document["n"]), str(document["chain"]))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return _Head()


def _read_tail(fd: int, size: int) -> bytes:
    return os.pread(fd, _TAIL, max(0, size - _TAIL))
