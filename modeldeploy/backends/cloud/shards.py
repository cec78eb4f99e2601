"""Parts of a table as lines that a container reads, and the lines that it answers as predictions.

A part is read, checked and set apart exactly as on this machine (``scoring.partwork``), twice: once with a model that only writes the rows
down (``Sender``), once with one that finds each row's answer in what came back (``Receiver``). So a row is bad here for the same reason, in
the same words, and what is kept of the input never leaves this machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import IO, Any

import attrs
import numpy as np
from numpy.typing import NDArray

from modeldeploy.errors import InvalidRequestError, PredictionError
from modeldeploy.packaging.blocks import count_rows
from modeldeploy.packaging.casting import cast
from modeldeploy.serving import lines
from modeldeploy.values.model import DType, Field, Signature

_NUMBER = 32
"""More characters than a number takes, with what stands around it."""
_BLANK_SIZE = 1
"""Length of an axis of any length in the answers that nobody reads."""


class Sender:
    """Takes checked rows as a model does, and writes each as a line of JSON; a row over ``most`` bytes is refused."""

    def __init__(self, signature: Signature, out: IO[bytes], *, most: int) -> None:
        self._signature = signature
        self._out = out
        self._most = most
        self._bounded = _may_be_large(signature, most)
        self.rows = 0

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Write the rows down; gives answers that mean nothing."""
        written = lines.dump(inputs, objects=False)
        if self._bounded:
            _check_sizes(written, self._most)
        rows = count_rows(inputs)
        self._out.write(written)
        self.rows += rows
        return {field.name: _blank(field, rows) for field in self._signature.outputs}


def _check_sizes(written: bytes, most: int) -> None:
    longest = max(map(len, written.split(b"\n"))) + 1
    if longest > most:
        message = f"the row takes {longest:,} bytes as JSON, and one request may have {most:,}"
        raise InvalidRequestError(message, hint="raise max_payload_mb, up to 100")


def _may_be_large(signature: Signature, most: int) -> bool:
    """Whether a row of this signature can be over ``most`` bytes: texts and axes of any length have no bound."""
    fields = signature.inputs
    if any(field.dtype is DType.STRING or None in field.shape for field in fields):
        return True
    return sum(_NUMBER * math.prod(size or 0 for size in field.shape) for field in fields) > most


def _blank(field: Field, rows: int) -> NDArray[Any]:
    shape = (rows, *(_BLANK_SIZE if size is None else size for size in field.shape))
    if field.dtype is DType.STRING:
        return np.full(shape, "", dtype=object)
    return np.zeros(shape, dtype=field.dtype.value)


class Receiver:
    """Answers the rows that a ``Sender`` wrote down, in their order, with what came back for them."""

    def __init__(self, signature: Signature, answers: Sequence[Any], *, most: int) -> None:
        self._most = most if _may_be_large(signature, most) else 0
        self._outputs = tuple(attrs.evolve(field, nullable=True) for field in signature.outputs)
        self._answers = answers
        self.taken = 0
        self.short = False
        """Whether more rows were asked for than were sent: the input is not what it was."""

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Give the next rows' answers; PredictionError when one of them has none, which is taken only when it is asked for alone."""
        rows = count_rows(inputs)
        if self._most:
            # What was refused when the rows were sent is refused again.
            _check_sizes(lines.dump(inputs, objects=False), self._most)
        found = self._answers[self.taken : self.taken + rows]
        if len(found) < rows:
            self.short = True
            return {field.name: _blank(field, rows) for field in self._outputs}
        try:
            answers = self._read(found)
        except PredictionError:
            self.taken += rows == 1
            raise
        self.taken += rows
        return answers

    def _read(self, found: Sequence[Any]) -> dict[str, NDArray[Any]]:
        refused = next((each for each in found if isinstance(each, dict) and lines.ERROR in each), None)
        if refused is not None:
            raise PredictionError(str(refused[lines.ERROR]))
        return {field.name: self._column(field, found) for field in self._outputs}

    def _column(self, field: Field, found: Sequence[Any]) -> NDArray[Any]:
        try:
            values = list(found) if len(self._outputs) == 1 else [each[field.name] for each in found]
            return cast(field, lines.numbers(values) if field.dtype.value.startswith("float") else values)
        except (InvalidRequestError, KeyError, TypeError) as error:
            said = error.message if isinstance(error, InvalidRequestError) else f"{type(error).__name__}: {error}"
            message = f"the container's answer cannot be read: {said}".replace(" in row 0", "")
            raise PredictionError(message) from error


def read_answers(data: bytes) -> list[Any]:
    """Read the lines of an answer; a line that is no JSON is the reason why its row has none."""
    found = lines.load(data)
    return [
        refusal("the container's answer is no JSON") if isinstance(each, lines.UnreadError) else each for each in found
    ]


def refusal(reason: str) -> dict[str, str]:
    """Give the answer of a row that has none."""
    return {lines.ERROR: reason}


@attrs.frozen
class Slice:
    """Some consecutive lines of a part, in an object of their own."""

    part: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The name of its object."""
        return f"part-{self.part:05}.{self.start}-{self.stop}.jsonl"

    @property
    def size(self) -> int:
        """How many lines it has."""
        return self.stop - self.start

    def cut(self, pieces: int) -> list[Slice]:
        """Cut it into at most so many slices of about the same size."""
        step = max(1, -(-self.size // pieces))
        starts = range(self.start, self.stop, step)
        return [Slice(self.part, start, min(start + step, self.stop)) for start in starts]

    def of(self, whole: bytes, start: int) -> bytes:
        """Take its lines out of those of a longer slice, which begin with line ``start``."""
        found = whole.splitlines(keepends=True)[self.start - start : self.stop - start]
        return b"".join(found)
