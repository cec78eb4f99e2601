"""What is measured of both models: size, time, and how right they are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeldeploy.convert.report import Side
from modeldeploy.convert.timing import Ask, Times, batch_rows, first_rows
from modeldeploy.errors import ConfigurationError

SLOWER = 2.0
"""A converted model that takes more than so many times as long is told of."""
_MATRIX = 2

Answers = Mapping[str, NDArray[Any]]


def sides(
    before: tuple[str, int, Ask],
    after: tuple[str, int, Ask],
    columns: Answers,
    scores: tuple[float | None, float | None],
) -> tuple[Side, Side, tuple[str, ...]]:
    """Measure both, with a note for each kind of call that became slower.

    ``before`` and ``after`` are what each is called, its bytes, and how it is asked.
    """
    rows = batch_rows(columns)
    one, many = first_rows(columns, 1), first_rows(columns, rows)
    measured = [(Times.of(ask, one), Times.of(ask, many)) for _what, _size, ask in (before, after)]
    made = [
        Side(what, size, one_row_ms=single.median, batch_ms=batch.median, score=score)
        for (what, size, _ask), (single, batch), score in zip((before, after), measured, scores, strict=True)
    ]
    (one_before, many_before), (one_after, many_after) = measured
    notes = (_slower("one row", one_before, one_after), _slower(f"a batch of {rows:,} rows", many_before, many_after))
    return made[0], made[1], tuple(note for note in notes if note)


def _slower(what: str, before: Times, after: Times) -> str:
    # The quickest calls are compared: a busy machine makes some calls slow, and none quicker.
    ratio = after.least / before.least
    if ratio < SLOWER:
        return ""
    return f"slower: {what} takes {after.median:.3g} ms, {ratio:.3g} times as long as before ({before.median:.3g} ms)"


def score(answers: Answers, truth: NDArray[Any], labels: Collection[str]) -> tuple[str, float | None]:
    """Say how right the answers are: ``accuracy``, or ``rmse`` (root of the mean squared error) for numbers; none where nothing fits."""
    name = next(iter(labels), next(iter(answers)))
    given = answers[name]
    if given.ndim == _MATRIX and given.dtype.kind == "f" and truth.dtype.kind in "biu":
        given = given.argmax(axis=1)
    elif name not in labels and given.dtype.kind == "f" and given.shape == truth.shape and truth.dtype.kind in "biuf":
        return "rmse", float(np.sqrt(np.mean((given.astype(np.float64) - truth.astype(np.float64)) ** 2)))
    if given.shape != truth.shape:
        return "", None
    return "accuracy", float(np.mean(given.astype(object) == truth.astype(object)))


def read_labels(labels: object, rows: int) -> NDArray[Any] | None:
    """Read the true answers, one for each row of the sample; ConfigurationError when their number differs."""
    if labels is None:
        return None
    array = np.asarray(labels)
    if array.shape != (rows,):
        message = f"labels has shape {array.shape} for {rows} rows of the sample"
        raise ConfigurationError(message, hint="pass the true answer of each row of sample=, or leave labels= out")
    return array
