"""Parquet files put one after another into one, as they are: nothing is decoded, only what says where things lie is told anew.

A footer is Thrift's compact protocol (parquet.thrift and its description in apache/parquet-format; thrift-compact-protocol.md in apache/thrift).
Of all that stands in it four numbers of a row group are changed; the rest is copied, whatever it means.
"""

from __future__ import annotations

import os
from typing import IO

from modeldeploy.errors import IntegrityError

MAGIC = b"PAR1"
_BLOCK = 1 << 20
_TAIL = 8
"""The last bytes of a file: the footer's length, and the magic number."""
_BOOLS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _MAP, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 11, 12
_LONG_LIST = 15
_ROWS, _GROUPS = 3, 4
"""Fields of a footer."""
_PLACES = frozenset({(5,), (1, 2), (1, 4), (1, 6), (1, 3, 9), (1, 3, 10), (1, 3, 11), (1, 3, 14)})
"""Fields of a row group, and of what is in it, that count bytes from the beginning of the file; 0 stands for none."""
_ORDINAL = (7,)
"""The row group's place among all."""


class Joining:
    """A parquet file under construction in ``out``, which holds a whole one without rows: the columns are its."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._empty = _Footer(out)
        self._rows = self._count = 0
        self._groups = bytearray()
        out.seek(len(MAGIC))
        out.truncate()

    def add(self, source: IO[bytes]) -> None:
        """Add the rows of a whole file with the same columns."""
        footer, shift = _Footer(source), self._out.tell() - len(MAGIC)
        for group in footer.groups():
            _Copy(footer.data, self._groups, shift=shift, ordinal=self._count).struct(group)
            self._count += 1
        self._rows += footer.rows()
        source.seek(len(MAGIC))
        left = footer.start - len(MAGIC)
        while left:
            block = source.read(min(left, _BLOCK))
            self._out.write(block)
            left -= len(block)

    def finish(self) -> None:
        """Write the footer."""
        data, (rows, after_rows), (groups, after_groups) = (
            self._empty.data,
            self._empty.at(_ROWS),
            self._empty.at(_GROUPS),
        )
        footer = b"".join(
            (
                data[:rows],
                _varint(self._rows << 1),
                data[after_rows:groups],
                bytes([_LONG_LIST << 4 | _STRUCT]),
                _varint(self._count),
                self._groups,
                data[after_groups:],
            )
        )
        self._out.write(footer + len(footer).to_bytes(4, "little") + MAGIC)


class _Footer:
    """The footer of a file, and where its fields lie in it."""

    def __init__(self, file: IO[bytes]) -> None:
        end = file.seek(-_TAIL, os.SEEK_END)
        tail = file.read(_TAIL)
        self.start = end - int.from_bytes(tail[:4], "little")
        if tail[4:] != MAGIC or self.start < len(MAGIC):
            message = f"{file.name!r} is no whole parquet file"
            raise IntegrityError(message, hint="run the job again; it goes on from there")
        file.seek(self.start)
        self.data = file.read(end - self.start)
        self._fields: dict[int, tuple[int, int]] = {}
        _Copy(self.data, bytearray(), fields=self._fields).struct(0)

    def at(self, field: int) -> tuple[int, int]:
        """Give where a field's value begins and ends."""
        return self._fields[field]

    def rows(self) -> int:
        """Give the number of rows."""
        return _read_varint(self.data, self.at(_ROWS)[0])[0] >> 1

    def groups(self) -> list[int]:
        """Give where each row group begins."""
        skip = _Copy(self.data, bytearray())
        count, _kind, at = _read_list(self.data, self.at(_GROUPS)[0])
        found = []
        for _group in range(count):
            found.append(at)
            at = skip.struct(at)
        return found


class _Copy:
    """Copies values from a footer to ``out``; places in the file are moved by ``shift``, and row groups get this ordinal."""

    def __init__(
        self,
        data: bytes,
        out: bytearray,
        *,
        shift: int = 0,
        ordinal: int = 0,
        fields: dict[int, tuple[int, int]] | None = None,
    ) -> None:
        self._data = data
        self._out = out
        self._shift = shift
        self._ordinal = ordinal
        self._fields = fields

    def struct(self, at: int, path: tuple[int, ...] = ()) -> int:
        """Copy the struct that begins there and give where it ends."""
        data, out, field = self._data, self._out, 0
        while (head := data[at]) != 0:
            start, at = at, at + 1
            if head >> 4:
                field += head >> 4
            else:
                number, at = _read_varint(data, at)
                field = number >> 1
            out += data[start:at]
            begins = at
            if head & 15 not in _BOOLS:  # whose value is the kind
                at = self._value(at, head & 15, (*path, field))
            if self._fields is not None and not path:
                self._fields[field] = begins, at
        out.append(0)
        return at + 1

    def _value(self, at: int, kind: int, path: tuple[int, ...]) -> int:
        if kind in _INTEGERS:
            return self._integer(at, path)
        if kind == _STRUCT:
            return self.struct(at, path)
        if kind in _LISTS:
            count, kind, end = _read_list(self._data, at)
            self._out += self._data[at:end]
            for _item in range(count):
                end = self._value(end, _BYTE if kind in _BOOLS else kind, path)
            return end
        if kind == _MAP:
            message = "a parquet footer with a map, which no version of the format has"
            raise NotImplementedError(message)
        size, end = _read_varint(self._data, at) if kind == _BINARY else ({_BYTE: 1, _DOUBLE: 8}[kind], at)
        self._out += self._data[at : end + size]
        return end + size

    def _integer(self, at: int, path: tuple[int, ...]) -> int:
        number, end = _read_varint(self._data, at)
        if path in _PLACES and number:
            self._out += _varint(number + (self._shift << 1))
        elif path == _ORDINAL:
            self._out += _varint(self._ordinal << 1)
        else:
            self._out += self._data[at:end]
        return end


def _read_list(data: bytes, at: int) -> tuple[int, int, int]:
    """Give how many items, of which kind, and where they begin."""
    head, at = data[at], at + 1
    count = head >> 4
    if count == _LONG_LIST:
        count, at = _read_varint(data, at)
    return count, head & 15, at


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Give an integer as it is written, doubled where it has a sign (zigzag), and where it ends."""
    number = shift = 0
    while data[at] & 0x80:
        number |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return number | data[at] << shift, at + 1


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
