"""A chunk of a table to a chunk of the result: good rows with their prediction, bad rows set aside with the reason."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

from modeldeploy.errors import ModelDeployError
from modeldeploy.packaging.signature import check
from modeldeploy.scoring import arrays
from modeldeploy.scoring.chunks import Bad, Chunk, no_rows, row_values
from modeldeploy.scoring.layout import Layout
from modeldeploy.values.model import Field

if TYPE_CHECKING:
    import pyarrow as pa

PIECES = 256
"""A suspect stretch is scored in so many pieces, so two dead processes lead from a chunk of 65,536 rows to the one row."""


class Predictor(Protocol):
    """What is asked of a loaded model."""

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Give one answer for each row."""
        ...


class TooManyBadError(Exception):
    """More rows are bad than this part may have; ``bad`` holds what was found."""

    def __init__(self, bad: Sequence[Bad]) -> None:
        super().__init__(len(bad))
        self.bad = tuple(bad)


@attrs.frozen
class Caution:
    """What is known about rows that killed the process that scored them; row numbers are those of the part."""

    suspects: tuple[tuple[int, int], ...] = ()
    """Stretches that one of the rows lies in, first and past last."""
    poison: Mapping[int, str] = attrs.field(factory=dict[int, str])
    """Rows found guilty, with how the process ended."""

    def edges(self, first: int, last: int) -> list[int]:
        """Cut the rows from ``first`` to before ``last`` where they must be scored apart."""
        edges = {first, last}
        for start, stop in self.suspects:
            step = max(1, -(-(stop - start) // PIECES))
            edges.update(at for at in [*range(start, stop, step), stop] if first < at < last)
        return sorted(edges)


class Scorer:
    """Scores the chunks of one part."""

    def __init__(
        self,
        model: Predictor,
        layout: Layout,
        *,
        limit: int | None,
        caution: Caution,
        starting: Callable[[int, int], None],
    ) -> None:
        self._model = model
        self._layout = layout
        self._limit = limit
        self._caution = caution
        self._starting = starting
        self.bad: list[Bad] = []

    def score(self, chunk: Chunk) -> pa.Table:
        """Give the result of the good rows, in order; TooManyBadError when the limit is passed."""
        self._set_aside(chunk.bad)
        if not len(chunk.rows):
            return no_rows(self._layout.written)
        inputs: Mapping[str, Any] | None = self._sound(chunk)
        if inputs is None:
            chunk = self._without(chunk, self._defects(chunk))
            inputs = {field.name: arrays.to_array(field, columns) for field, columns in self._bound(chunk)}
        done = []
        for start, stop in self._pieces(chunk.rows):
            self._starting(int(chunk.rows[start]), int(chunk.rows[stop - 1]) + 1)
            done += self._attempt(chunk, inputs, start, stop)
        # From here on no row is to blame.
        self._starting(0, 0)
        return self._result(chunk, done)

    def _bound(self, chunk: Chunk) -> list[tuple[Field, list[pa.ChunkedArray]]]:
        """Give each input of the model with the columns that make it."""
        return [
            (field, [chunk.table.column(name) for name in self._layout.inputs[field.name]])
            for field in self._layout.signature.inputs
        ]

    def _sound(self, chunk: Chunk) -> dict[str, NDArray[Any]] | None:
        """Give the inputs of a chunk that shows at one look that no row is bad; None for one that must be looked at closely."""
        if self._caution.poison:
            return None
        inputs: dict[str, NDArray[Any]] = {}
        for field, columns in self._bound(chunk):
            matrix = arrays.sound_matrix(field, columns)
            if matrix is None:
                return None
            inputs[field.name] = matrix
        return inputs

    def _set_aside(self, bad: Sequence[Bad]) -> None:
        self.bad += bad
        if self._limit is not None and len(self.bad) > self._limit:
            raise TooManyBadError(self.bad)

    def _defects(self, chunk: Chunk) -> dict[int, str]:
        at_row = {int(row): at for at, row in enumerate(chunk.rows)} if self._caution.poison else {}
        found = {at_row[row]: why for row, why in self._caution.poison.items() if row in at_row}
        for field in self._layout.signature.inputs:
            names = self._layout.inputs[field.name]
            for name in names:
                defects = arrays.defects(
                    field, chunk.table.column(name), name, vector=bool(field.shape) and len(names) == 1
                )
                found.update({at: why for at, why in defects.items() if at not in found})
        return found

    def _without(self, chunk: Chunk, defects: Mapping[int, str]) -> Chunk:
        if not defects:
            return chunk
        allowed = len(defects) if self._limit is None else self._limit + 1 - len(self.bad)
        ranked = sorted(defects)[:allowed]
        self._set_aside([Bad(int(chunk.rows[at]), defects[at], row_values(chunk.table, at)) for at in ranked])
        good = np.delete(np.arange(len(chunk.rows)), sorted(defects))
        return attrs.evolve(chunk, table=chunk.table.take(arrays.numbers(good)), rows=chunk.rows[good])

    def _pieces(self, rows: NDArray[np.int64]) -> list[tuple[int, int]]:
        if not len(rows):
            return []
        edges = self._caution.edges(int(rows[0]), int(rows[-1]) + 1)
        places = sorted(set(np.searchsorted(rows, edges).tolist()))
        return list(itertools.pairwise(places))

    def _attempt(
        self, chunk: Chunk, inputs: Mapping[str, Any], start: int, stop: int
    ) -> list[tuple[int, int, dict[str, Any]]]:
        """Score a stretch; when that fails, its halves, down to the row that is to blame."""
        try:
            checked = check(self._layout.signature, {name: values[start:stop] for name, values in inputs.items()})
            return [(start, stop, self._checked(self._model.predict(checked), stop - start))]
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the user's model raises, the row is named
            if stop - start == 1:
                self._set_aside([Bad(int(chunk.rows[start]), _reason(error), row_values(chunk.table, start))])
                return []
        middle = (start + stop) // 2
        return self._attempt(chunk, inputs, start, middle) + self._attempt(chunk, inputs, middle, stop)

    def _checked(self, answer: Mapping[str, NDArray[Any]], rows: int) -> dict[str, Any]:
        missing = [output.field.name for output in self._layout.outputs if output.field.name not in answer]
        if missing:
            message = f"the model gave no {missing[0]!r}"
            raise ValueError(message)
        columns = {
            output.column: arrays.to_column(output, answer[output.field.name]) for output in self._layout.outputs
        }
        odd = next((name for name, column in columns.items() if len(column) != rows), None)
        if odd is not None:
            message = f"the model gave {len(columns[odd])} values in {odd!r} for {rows} rows"
            raise ValueError(message)
        lost = [arrays.missing(answer[field.name]) for field in self._layout.signature.outputs]
        return {"columns": columns, "lost": np.logical_or.reduce(lost)}

    def _result(self, chunk: Chunk, done: list[tuple[int, int, dict[str, Any]]]) -> pa.Table:
        import pyarrow as pa

        if not done:
            return no_rows(self._layout.written)
        lost = np.concatenate([answer["lost"] for _start, _stop, answer in done])
        table = chunk.table if len(lost) == len(chunk.rows) else chunk.table.take(arrays.numbers(_rows_of(done)))
        columns = [table.column(name) for name in self._layout.keep]
        columns += [
            pa.chunked_array([answer["columns"][each.column] for _a, _b, answer in done])
            for each in self._layout.outputs
        ]
        result = pa.Table.from_arrays(columns, schema=self._layout.written)
        if lost.any():
            self._set_aside(
                [
                    Bad(int(chunk.rows[at]), "the prediction is NaN or missing", row_values(chunk.table, int(at)))
                    for at in _rows_of(done)[lost]
                ]
            )
            result = result.filter(arrays.numbers(~lost))
        return result


def _rows_of(done: list[tuple[int, int, dict[str, Any]]]) -> NDArray[np.int64]:
    return np.concatenate([np.arange(start, stop) for start, stop, _answer in done])


def _reason(error: BaseException) -> str:
    if isinstance(error, ModelDeployError):
        # The row was scored alone; its number in that call says nothing.
        return error.message.replace(" in row 0", "")
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
