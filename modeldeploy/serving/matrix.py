"""A short way for the usual table: float columns of one type, read and checked as one matrix.

Checking thirty columns one by one costs more than most models. What is not plainly right is left to the signature's own check, which
finds the words for what is wrong; the two never disagree.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
import struct
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from modeldeploy.packaging.blocks import Block
from modeldeploy.values.model import DType, Signature

# Up to here every whole number is a float of that type.
_EXACT = {DType.FLOAT32: 1 << 24, DType.FLOAT64: 1 << 53}
_NUMBERS: set[type] = {int, float}
_RANK = 2
_PIECE = 1 << 16
"""Numbers that are packed at once."""


class Rows(Mapping[str, "Sequence[Any]"]):
    """Rows of one caller, all of the right length, whose values nobody has looked at; as a mapping, their columns."""

    __slots__ = ("rows", "signature")

    def __init__(self, rows: Sequence[Sequence[Any]], signature: Signature) -> None:
        self.rows = rows
        self.signature = signature

    def __getitem__(self, name: str) -> Sequence[Any]:
        at = list(self).index(name)
        return self.rows if self.signature.inputs[at].shape else [row[at] for row in self.rows]

    def __iter__(self) -> Iterator[str]:
        return (field.name for field in self.signature.inputs)

    def __len__(self) -> int:
        return len(self.signature.inputs)


def rows_in(body: bytes, keys: Container[str], width: int) -> list[list[Any]] | None:
    """Read the rows of a body like ``{"instances": [[...], ...]}`` with one of these keys; None when a closer look is needed."""
    # With one colon there is one key; what else a body may be is not read here for nothing.
    if body.count(b":") != 1:
        return None
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(document) is not dict:
        return None
    ((key, rows),) = document.items()
    if key not in keys or type(rows) is not list or not rows:
        return None
    plain = operator.countOf(map(type, rows), list) == len(rows)
    return rows if plain and operator.countOf(map(len, rows), width) == len(rows) else None


def rows_of(rows: Sequence[Sequence[Any]], signature: Signature) -> Rows | None:
    """Keep rows as they are until those of other callers are read with them; None when there is no short way for them."""
    width = signature.width
    return Rows(rows, signature) if width and set(map(len, rows)) == {width} else None


def together(tables: Sequence[Sequence[Sequence[Any]]], signature: Signature) -> list[Block | None]:
    """Read the rows of several callers, all of the right length, at once; each alone where one of them needs a closer look."""
    if len(tables) <= 1:
        return [read(rows, signature) for rows in tables]
    whole = read(list(itertools.chain.from_iterable(tables)), signature)
    if whole is None:
        return [read(rows, signature) for rows in tables]
    names, matrix, packed = whole.names, whole.matrix, whole.whole
    ends = list(itertools.accumulate(map(len, tables), initial=0))
    return [Block(names, matrix[start:end], whole=packed) for start, end in itertools.pairwise(ends)]


def of_rows(rows: Sequence[Sequence[Any]], signature: Signature) -> Block | None:
    """Take rows of JSON numbers; None when a closer look is needed."""
    width = signature.width
    return read(rows, signature) if width and set(map(len, rows)) == {width} else None


def read(rows: Sequence[Sequence[Any]], signature: Signature) -> Block | None:
    """Read the rows of one caller, all of the right length; None when a closer look is needed."""
    if len(rows) == 1 and (lone := _lone(rows[0], signature)) is not None:
        return lone
    dtype, width = signature.inputs[0].dtype, signature.width
    matrix = np.empty((len(rows), width), dtype=dtype.value)
    step = max(1, _PIECE // width)
    for at in range(0, len(rows), step):
        part = matrix[at : at + step]
        whole_numbers = _pack(rows[at : at + step], part)
        if whole_numbers is None or (whole_numbers and not (np.abs(part) < _EXACT[dtype]).all()):
            return None
    return _block(matrix, signature)


def _lone(row: Sequence[Any], signature: Signature) -> Block | None:
    """Read a row of floats that was asked alone, by the least code: it has left the processor's caches; None when there is anything else."""
    if operator.countOf(map(type, row), float) < len(row) or not math.isfinite(sum(row)):
        return None
    pack, dtype = _packer(signature.inputs[0].dtype, len(row))
    try:
        # A model may write into its input.
        data = bytearray(pack(*row))
    except OverflowError:
        return None
    return _block(np.frombuffer(data, dtype).reshape(1, -1), signature)


@functools.lru_cache(maxsize=64)
def _packer(dtype: DType, width: int) -> tuple[Callable[..., bytes], np.dtype[Any]]:
    found = np.dtype(dtype.value)
    return struct.Struct(f"={width}{found.char}").pack, found


def _pack(rows: Sequence[Sequence[Any]], into: NDArray[Any]) -> bool | None:
    """Write finite numbers into a part of a matrix; whether whole ones are among them, None when there is anything else."""
    flat = list(itertools.chain.from_iterable(rows))
    floats = operator.countOf(map(type, flat), float)
    if floats < len(flat) and not set(map(type, flat)) <= _NUMBERS:
        return None
    # What is not finite makes the sum so. A sum beyond all floats does too, and costs those rows a closer look.
    if not math.isfinite(sum(flat)):
        return None
    try:
        # A third of the time that numpy takes for a list. In the standard size ("=") what a float32 cannot hold is refused.
        struct.pack_into(f"={len(flat)}{into.dtype.char}", into.data, 0, *flat)
    except OverflowError:
        return None
    return floats < len(flat)


def of_array(matrix: NDArray[Any], signature: Signature) -> Block | None:
    """Take a matrix of exactly the type and width that the model takes; None when a closer look is needed."""
    width = signature.width
    if not width or matrix.ndim != _RANK or matrix.shape[1] != width or not matrix.size:
        return None
    fits = matrix.dtype == signature.inputs[0].dtype.value and np.isfinite(matrix).all()
    return _block(matrix, signature) if fits else None


def _block(matrix: NDArray[Any], signature: Signature) -> Block:
    return Block(signature.names, matrix, whole=bool(signature.inputs[0].shape))
