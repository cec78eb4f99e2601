"""Where a worker's words go: a pipe that may be full, which must cost lines and never a prediction."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys

_NOTICE = "[modeldeploy] lines dropped here: "
_STREAMS = (1, 2)


class LossyPipe(io.RawIOBase):
    """Writes what the pipe takes at once; what it does not take is dropped, counted, and told of when there is room again."""

    def __init__(self, fd: int) -> None:
        self.dropped = 0
        """Lines that were lost and not told of yet."""
        self._fd = fd
        self._torn = False

    def writable(self) -> bool:
        """Say that it can be written to."""
        return True

    def fileno(self) -> int:
        """Name the descriptor."""
        return self._fd

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]  # the base class says ReadableBuffer
        """Write as much as there is room for; it never waits and never fails."""
        with memoryview(data).cast("B") as view:
            if self._tell():
                self._write(bytes(view))
            else:
                self._lose(bytes(view))
            return len(view)

    def _tell(self) -> bool:
        """Tell of what was lost; whether there was room for that."""
        if not self.dropped:
            return True
        notice = f"{_NOTICE}{self.dropped}\n".encode()
        if not self._put(b"\n" + notice if self._torn else notice):
            return False
        self.dropped, self._torn = 0, False
        return True

    def _put(self, data: bytes) -> int:
        with contextlib.suppress(OSError):
            return os.write(self._fd, data)
        return 0

    def _write(self, data: bytes) -> None:
        sent = self._put(data)
        if sent < len(data):
            self._torn = data[sent - 1 : sent] not in {b"", b"\n"} or self._torn
            self._lose(data[sent:])

    def _lose(self, data: bytes) -> None:
        self.dropped += data.count(b"\n") or 1


def install() -> None:
    """Let standard output and standard error of this process drop lines rather than wait, where they are pipes."""
    for fd, name in zip(_STREAMS, ("stdout", "stderr"), strict=True):
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.set_blocking(fd, False)
            setattr(sys, name, io.TextIOWrapper(LossyPipe(fd), errors="backslashreplace", line_buffering=True))


def lost(line: str) -> int:
    """Read how many lines a notice tells of; 0 when the line is none."""
    count = line.removeprefix(_NOTICE)
    return int(count) if count != line and count.isdecimal() else 0
