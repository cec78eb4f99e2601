"""A short way for the usual table: float columns of one type, read and checked as one matrix.

Checking thirty columns one by one costs more than most models. What is not plainly right is left to the signature's own check, which
finds the words for what is wrong; the two never disagree.
"""

from __future__ import annotations

import itertools
import math
import operator
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
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


def rows_of(rows: Sequence[Sequence[Any]], signature: Signature) -> Rows | None:
    """Keep rows as they are until those of other callers are read with them; None when there is no short way for them."""
    width = signature.width
    return Rows(rows, signature) if width and set(map(len, rows)) == {width} else None


def together(tables: Sequence[Rows]) -> list[Block | None]:
    """Read the rows of several callers at once; each alone where one of them needs a closer look."""
    if len(tables) <= 1:
        return [of_rows(table.rows, table.signature) for table in tables]
    whole = of_rows([row for table in tables for row in table.rows], tables[0].signature)
    if whole is None:
        return [of_rows(table.rows, table.signature) for table in tables]
    ends = list(itertools.accumulate(len(table.rows) for table in tables))
    cuts = zip([0, *ends], ends, strict=False)
    return [Block(whole.names, whole.matrix[start:end], whole=whole.whole) for start, end in cuts]


def of_rows(rows: Sequence[Sequence[Any]], signature: Signature) -> Block | None:
    """Take rows of JSON numbers; None when a closer look is needed."""
    width = signature.width
    if not width or set(map(len, rows)) != {width}:
        return None
    matrix = np.empty((len(rows), width))
    step = max(1, _PIECE // width)
    kinds = {_pack(rows[at : at + step], matrix[at : at + step]) for at in range(0, len(rows), step)}
    dtype = signature.inputs[0].dtype
    if None in kinds or (True in kinds and not (np.abs(matrix) < _EXACT[dtype]).all()):
        return None
    if dtype is DType.FLOAT64:
        return _block(matrix, signature)
    with np.errstate(over="ignore"):
        narrow = matrix.astype(dtype.value)
    return _block(narrow, signature) if np.isfinite(narrow).all() else None


def _pack(rows: Sequence[Sequence[Any]], into: NDArray[np.float64]) -> bool | None:
    """Write finite numbers into a part of a matrix; whether whole ones are among them, None when there is anything else."""
    flat = list(itertools.chain.from_iterable(rows))
    floats = operator.countOf(map(type, flat), float)
    if floats < len(flat) and not set(map(type, flat)) <= _NUMBERS:
        return None
    # What is not finite makes the sum so. A sum beyond all floats does too, and costs those rows a closer look.
    if not math.isfinite(sum(flat)):
        return None
    # A third of the time that numpy takes for a list.
    struct.pack_into(f"{len(flat)}d", into.data, 0, *flat)
    return floats < len(flat)


def of_array(matrix: NDArray[Any], signature: Signature) -> Block | None:
    """Take a matrix of exactly the type and width that the model takes; None when a closer look is needed."""
    width = signature.width
    if not width or matrix.ndim != _RANK or matrix.shape[1] != width or not matrix.size:
        return None
    fits = matrix.dtype.name == signature.inputs[0].dtype.value and np.isfinite(matrix).all()
    return _block(matrix, signature) if fits else None


def _block(matrix: NDArray[Any], signature: Signature) -> Block:
    return Block(signature.names, matrix, whole=bool(signature.inputs[0].shape))
