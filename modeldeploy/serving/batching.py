"""Many calls, one prediction: what waits together is predicted together, and each caller gets its own rows back.

No timer and no added latency: a batch is what queued up while the one before was predicted. One bad call fails alone, because a batch
that raises is predicted again call by call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from modeldeploy.errors import InvalidRequestError
from modeldeploy.packaging import blocks
from modeldeploy.packaging.casting import empty
from modeldeploy.serving.messages import RefusedError, Response, failure
from modeldeploy.serving.saying import Log
from modeldeploy.values.model import Signature

MAX_ROWS = 8192
_log = Log(__name__)

Columns: TypeAlias = Mapping[str, NDArray[Any]]


class Predictor(Protocol):
    """What is served: a loaded model, or anything like one."""

    signature: Signature

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Answer checked columns with as many rows."""
        ...


class OutputError(Exception):
    """The model's answer cannot be passed on: wrong rows, or NaN where none was declared."""


Writer: TypeAlias = Callable[[Columns], Response]
"""Writes the outputs of one caller's rows as its answer; one that has ``many`` writes those of several callers at once."""


@attrs.define(slots=True, eq=False)
class Call:
    """One caller's checked rows, and how its answer is written."""

    inputs: Columns
    rows: int
    write: Writer


@attrs.frozen(eq=False)
class Batcher:
    """Answers calls with a model, together where they fit together."""

    model: Predictor
    max_rows: int = MAX_ROWS
    batchable: bool = True

    def answer(self, calls: Sequence[Call]) -> list[Response]:
        """Answer every call, in order."""
        answers: dict[int, Response] = {}
        for batch in self._batches(calls):
            answers.update(zip(batch, self._answer_batch([calls[at] for at in batch]), strict=True))
        return [answers[at] for at in range(len(calls))]

    def _batches(self, calls: Sequence[Call]) -> Iterator[list[int]]:
        """Group the calls by the kind of their inputs, each group up to the cap of rows."""
        if len(calls) <= 1 or not self.batchable:
            yield from ([at] for at in range(len(calls)))
            return
        if sum(call.rows for call in calls) <= self.max_rows and blocks.are_alike([call.inputs for call in calls]):
            yield list(range(len(calls)))
            return
        groups: dict[object, tuple[list[int], int]] = {}
        for at, call in enumerate(calls):
            kind = blocks.kind(call.inputs)
            members, rows = groups.get(kind, ([], 0))
            if members and rows + call.rows > self.max_rows:
                yield members
                members, rows = [], 0
            members.append(at)
            groups[kind] = (members, rows + call.rows)
        yield from (members for members, _rows in groups.values())

    def _answer_batch(self, calls: Sequence[Call]) -> list[Response]:
        if len(calls) == 1:
            return [self.answer_one(calls[0])]
        try:
            outputs = self._predict(blocks.join([call.inputs for call in calls]), sum(call.rows for call in calls))
        except Exception as error:  # noqa: BLE001 - a model may raise anything; each member then answers for itself
            _log.info("a batch of %d requests failed (%s); each is tried alone", len(calls), type(error).__name__)
            return [self.answer_one(call) for call in calls]
        return _write_together(calls, outputs) or [
            _write(call, part) for call, part in zip(calls, _parts(outputs, calls), strict=True)
        ]

    def answer_one(self, call: Call) -> Response:
        """Answer a call by itself."""
        try:
            outputs = self._predict(call.inputs, call.rows)
        except (InvalidRequestError, RefusedError) as error:
            return failure(422, str(error), field=error.field)
        except OutputError as error:
            _log.error("invalid prediction: %s", error)
            return failure(500, f"invalid prediction: {error}")
        except Exception as error:  # noqa: BLE001 - a model may raise anything
            _log.exception("the model failed on %d rows", call.rows)
            # The type only: a model's message may hold data or paths. PredictionError is our wrapping; its cause is the model's own.
            return failure(500, f"the model failed: {type(error.__cause__ or error).__name__}")
        return _write(call, outputs)

    def _predict(self, inputs: Columns, rows: int) -> Columns:
        if not rows:
            return {field.name: empty(field) for field in self.model.signature.outputs}
        outputs = self.model.predict(inputs)
        for field in self.model.signature.outputs:
            _check_output(field.name, outputs.get(field.name), rows, nullable=field.nullable)
        return outputs


def _check_output(name: str, array: NDArray[Any] | None, rows: int, *, nullable: bool) -> None:
    if array is None:
        message = f"output {name!r} is missing"
        raise OutputError(message)
    if len(array) != rows:
        message = f"output {name!r} has {len(array)} rows for {rows}"
        raise OutputError(message)
    if array.dtype.kind != "f":
        return
    bad = np.isinf(array) if nullable else ~np.isfinite(array)
    if bad.any():
        message = f"output {name!r} holds NaN or an infinity in row {int(np.argwhere(bad)[0][0])}"
        raise OutputError(message)


def _parts(outputs: Columns, calls: Sequence[Call]) -> Iterator[Columns]:
    start = 0
    for call in calls:
        end = start + call.rows
        yield {name: array[start:end] for name, array in outputs.items()}
        start = end


def _write_together(calls: Sequence[Call], outputs: Columns) -> list[Response] | None:
    """Write the answers of calls that are written alike; None when they must be written one by one."""
    write = calls[0].write
    many = getattr(write, "many", None)
    if many is None or any(call.write is not write for call in calls):
        return None
    found: list[Response] | None = many(outputs, [call.rows for call in calls])
    return found


def _write(call: Call, outputs: Columns) -> Response:
    try:
        return call.write(outputs)
    except Exception:  # noqa: BLE001 - the other calls of the batch still get their answers
        _log.exception("the answer could not be written")
        return failure(500, "the answer could not be written")
