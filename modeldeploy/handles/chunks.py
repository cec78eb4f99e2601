"""A large table in several requests: cut, sent a few at a time, and put together again as if it had been one."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from threading import Event
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from modeldeploy.errors import ModelDeployError, NotFoundError, PredictionError, UnavailableError
from modeldeploy.packaging.blocks import Columns, count_rows
from modeldeploy.serving.inputs import part, row_bytes

Outputs: TypeAlias = "dict[str, NDArray[Any]]"
Answer: TypeAlias = "tuple[Outputs, str | None]"
"""The outputs of some rows, and the revision that gave them where the provider tells it."""

Ask: TypeAlias = Callable[[Columns, "str | None", float], Answer]
"""Sends rows to a revision (None: by the table of traffic), to be answered within so many seconds."""

ROWS = 1 << 16
SIZE = 8 << 20
"""Most bytes of a request: its fixed cost counts for nothing then, and every server takes it."""

_ROOM = 0.75
"""How much of a provider's limit the rows may take: the head comes on top, and the length of texts is an estimate."""

_LANES = 3
"""Requests under way at one time: one is predicted, one waits for its turn, one is being written or read."""


def answer(
    ask: Ask, columns: Columns, *, revision: str | None, pinnable: bool, timeout: float, limit: int = 0
) -> Outputs:
    """Have all rows answered within ``timeout`` seconds, in as few requests as their size and the provider's ``limit`` (bytes; 0: none) allow.

    The revision that answers the first rows answers them all where a request can name it (``pinnable``). If it goes meanwhile, the call
    begins anew with another one. An error says which rows it is about.
    """
    cuts = cut(count_rows(columns), row_bytes(columns), limit)
    if len(cuts) == 1:
        return ask(columns, revision, timeout)[0]
    until = time.monotonic() + timeout

    def one(rows: range, revision: str | None) -> Answer:
        return _ask_part(ask, columns, rows, revision, until)

    try:
        return _all(one, cuts, revision, pinnable=pinnable)
    except NotFoundError:
        if revision is not None or not pinnable:
            raise
    return _all(one, cuts, None, pinnable=pinnable)


def cut(rows: int, size: int, limit: int = 0) -> list[range]:
    """Cut rows of ``size`` bytes each into ranges of nearly equal length, as few as the limits of a request allow."""
    largest = min(SIZE, int(limit * _ROOM)) if limit else SIZE
    most = max(1, min(ROWS, largest // size))
    parts = max(1, -(-rows // most))
    return [range(rows * at // parts, rows * (at + 1) // parts) for at in range(parts)]


def _ask_part(ask: Ask, columns: Columns, rows: range, revision: str | None, until: float) -> Answer:
    try:
        left = until - time.monotonic()
        if left <= 0:
            message = "the time of the call was over before all rows were answered"
            raise UnavailableError(message, hint="give it more with timeout=")
        return ask(part(columns, rows), revision, left)
    except ModelDeployError as error:
        error.context["rows"] = f"{rows.start}-{rows.stop - 1}"
        raise


def _all(
    one: Callable[[range, str | None], Answer], cuts: Sequence[range], revision: str | None, *, pinnable: bool
) -> Outputs:
    first, answered = one(cuts[0], revision)
    chosen = (answered or revision) if pinnable else revision
    answers = [(first, answered), *_rest(lambda rows: one(rows, chosen), cuts[1:])]
    _tell_mixture({name for _outputs, name in answers if name is not None})
    return joined([outputs for outputs, _name in answers])


def _rest(one: Callable[[range], Answer], cuts: Sequence[range]) -> list[Answer]:
    from concurrent.futures import ThreadPoolExecutor

    failed = Event()

    def unless_failed(rows: range) -> Answer | None:
        # Asked in the lane itself: it would send its next part before the waiting caller woke and could stop it.
        if failed.is_set():
            return None
        try:
            return one(rows)
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(min(_LANES, len(cuts)), thread_name_prefix="modeldeploy predict") as lanes:
        asked = [lanes.submit(unless_failed, rows) for rows in cuts]
        try:
            answers = [each.result() for each in asked]
        finally:
            # Those under way end by themselves; nothing more is sent.
            failed.set()
    return [each for each in answers if each is not None]


def _tell_mixture(revisions: set[str]) -> None:
    if len(revisions) > 1:
        message = (
            f"revisions {sorted(revisions)} answered parts of one table: this backend splits the traffic between them"
            " and lets no request name one"
        )
        warnings.warn(message, stacklevel=2)


def joined(parts: Sequence[Outputs]) -> Outputs:
    """Put the answers to consecutive rows together; PredictionError when they are not of one kind."""
    try:
        return {name: np.concatenate([each[name] for each in parts]) for name in parts[0]}
    except (KeyError, ValueError) as error:
        message = f"the answers to the parts of a large table do not fit together: {error}"
        raise PredictionError(
            message, hint="a model must answer each row in the same way, however many there are"
        ) from error
