"""The ``model.tar.gz`` of a bundle, as a stream that can be read from any place on, and packed slice by slice.

The same members give the same bytes on the same zlib. Nothing is written to this machine's disk, and an upload that was interrupted is
taken up where it stood: the tar stream is computed from the members, and the slices of the one gzip member (RFC 1952) are deflated each by
itself, as pigz does, so that only the check sum has to be carried from one to the next.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
import tarfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

_BLOCK = 512
_END = 2 * _BLOCK
_LEVEL = 6
_RAW_DEFLATE = -15
_STEP = 1 << 20
# No name, no time, an unknown system (RFC 1952, section 2.3): nothing that differs from one machine to the next.
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_TRAILER = struct.Struct("<II")
_MODULUS = 1 << 32


@attrs.frozen
class Member:
    """A file in the archive: bytes in memory, or a file on this machine."""

    name: str
    size: int
    sha256: str
    path: Path | None = None
    data: bytes = attrs.field(default=b"", repr=False)

    @classmethod
    def of(cls, name: str, data: bytes) -> Member:
        """Make one of bytes."""
        return cls(name, len(data), hashlib.sha256(data).hexdigest(), data=data)

    def read(self, offset: int, size: int) -> bytes:
        """Read a part of it; EOFError when the file is shorter than it was."""
        if self.path is None:
            return self.data[offset : offset + size]
        with self.path.open("rb") as file:
            file.seek(offset)
            found = file.read(size)
        if len(found) != size:
            message = f"file {str(self.path)!r} is shorter than its recorded {self.size} bytes"
            raise EOFError(message)
        return found


@attrs.frozen
class _Piece:
    """Some consecutive bytes of the stream: a header or padding, or the content of a member."""

    size: int
    data: bytes = b""
    member: Member | None = None

    def read(self, offset: int, size: int) -> bytes:
        return self.data[offset : offset + size] if self.member is None else self.member.read(offset, size)


class TarStream:
    """An uncompressed tar archive that exists only as far as it is read."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = tuple(sorted(members, key=lambda member: member.name))
        self._pieces = [*(piece for member in self.members for piece in _pieces(member)), _Piece(_END, bytes(_END))]
        self._starts = [0, *itertools.accumulate(piece.size for piece in self._pieces)]

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self._starts[-1]

    @property
    def digest(self) -> str:
        """Name the content: 64 hexadecimal digits that depend on each member's name and bytes, and on nothing else."""
        lines = [f"{member.name}\n{member.size}\n{member.sha256}\n" for member in self.members]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def read(self, offset: int, size: int) -> bytes:
        """Read ``size`` bytes from ``offset`` on, fewer at the end."""
        return b"".join(self._read(offset, min(size, self.size - offset)))

    def _read(self, offset: int, left: int) -> Iterator[bytes]:
        at = bisect_right(self._starts, offset) - 1
        while left > 0:
            piece, inside = self._pieces[at], offset - self._starts[at]
            count = min(piece.size - inside, left)
            yield piece.read(inside, count)
            at, offset, left = at + 1, offset + count, left - count


def _pieces(member: Member) -> Iterator[_Piece]:
    info = tarfile.TarInfo(member.name)
    info.size, info.mode = member.size, 0o444
    header = info.tobuf(tarfile.PAX_FORMAT)
    yield _Piece(len(header), header)
    if member.size:
        yield _Piece(member.size, member=member)
    padding = -member.size % _BLOCK
    if padding:
        yield _Piece(padding, bytes(padding))


@attrs.frozen
class Slice:
    """Some of the compressed bytes, and what the next slice must know."""

    data: bytes = attrs.field(repr=False)
    offset: int
    """How far the tar stream is packed."""
    crc: int
    """The check sum of the tar stream up to there."""
    last: bool


def pack(stream: TarStream, offset: int, crc: int, least: int) -> Slice:
    """Pack the stream from ``offset`` on until at least ``least`` compressed bytes are there, or the stream ends."""
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW_DEFLATE)
    packed = [_HEADER] if offset == 0 else []
    held = 0
    while offset < stream.size and held < least:
        step = stream.read(offset, _STEP)
        offset, crc = offset + len(step), zlib.crc32(step, crc)
        packed.append(deflate.compress(step))
        held += len(packed[-1])
    last = offset == stream.size
    packed.append(deflate.flush(zlib.Z_FINISH if last else zlib.Z_FULL_FLUSH))
    if last:
        packed.append(_TRAILER.pack(crc, stream.size % _MODULUS))
    return Slice(b"".join(packed), offset, crc, last)
