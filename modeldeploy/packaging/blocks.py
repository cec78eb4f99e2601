"""A table of one float type as one matrix: for models that take it whole, nothing is taken apart and put together again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Columns: TypeAlias = "Mapping[str, NDArray[Any]]"


class Block(Mapping[str, NDArray[Any]]):
    """Checked columns that lie side by side in ``matrix`` (rows, columns); one is copied out when it is asked for.

    Where it is ``whole`` there is one name, and the matrix is that field itself.
    """

    __slots__ = ("matrix", "names", "whole")

    def __init__(self, names: tuple[str, ...], matrix: NDArray[Any], *, whole: bool) -> None:
        self.names = names
        self.matrix = matrix
        self.whole = whole

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self.names:
            raise KeyError(name)
        # In one piece of memory, as a model would get a column that came by itself.
        return self.matrix if self.whole else np.ascontiguousarray(self.matrix[:, self.names.index(name)])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def count_rows(columns: Columns) -> int:
    """Count the rows of a table."""
    return len(columns.matrix if isinstance(columns, Block) else next(iter(columns.values())))


def kind(columns: Columns) -> object:
    """Describe a table so that those of one kind can be put together."""
    if isinstance(columns, Block):
        return ((columns.matrix.dtype.str, columns.matrix.shape[1:] if columns.whole else ()),) * len(columns)
    return tuple((array.dtype.str, array.shape[1:]) for array in columns.values())


def are_alike(tables: Sequence[Columns]) -> bool:
    """Whether all are plainly of one kind, as parts of one matrix are; at a fraction of the cost of describing each."""
    first = tables[0]
    if not isinstance(first, Block):
        return False
    names, dtype = first.names, first.matrix.dtype
    return all(type(each) is Block and each.names is names and each.matrix.dtype is dtype for each in tables)


def join(tables: Sequence[Columns]) -> Columns:
    """Put tables of one kind together, the rows of one after those of the other."""
    first = tables[0]
    if isinstance(first, Block):
        matrices = [each.matrix for each in tables if isinstance(each, Block)]
        if len(matrices) == len(tables):
            return Block(first.names, np.concatenate(matrices), whole=first.whole)
    return {name: np.concatenate([each[name] for each in tables]) for name in first}
