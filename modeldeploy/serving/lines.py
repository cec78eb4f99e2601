"""Rows that are answered one by one: JSON Lines in, a line for each out, and a line that says why where a row cannot be answered.

A batch service sends many rows in one request and gives up the whole file when one of them fails. Where a job asks for it (by
``MODELDEPLOY_ROW_BY_ROW`` in the container's environment) a row that fails gets ``{"modeldeploy_error": "reason"}`` as its line, and the
rows beside it their answers. The rows to blame are found by halving, so a request without any costs one prediction. Infinities, which JSON
does not have, are the texts ``"Infinity"`` and ``"-Infinity"`` both ways; NaN is null.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from modeldeploy.errors import ModelDeployError
from modeldeploy.packaging.signature import check
from modeldeploy.serving.batching import Predictor
from modeldeploy.serving.messages import Response
from modeldeploy.serving.payloads import LINES_TYPE
from modeldeploy.values.model import Signature

ERROR = "modeldeploy_error"
SWITCH = "MODELDEPLOY_ROW_BY_ROW"
"""Variable of the environment that turns this on."""
_INFINITIES = {"Infinity": np.inf, "-Infinity": -np.inf}
_log = logging.getLogger(__name__)

Row: TypeAlias = "dict[str, Any]"


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether a container is asked to answer row by row."""
    return environ.get(SWITCH, "").lower() in {"1", "true"}


def answer(body: bytes, model: Predictor) -> Response:
    """Answer every line of a body by itself; the answer has exactly as many lines."""
    texts = [line for line in body.split(b"\n") if line.strip()]
    rows = [_read(text) for text in texts]
    found: list[Any] = [row if isinstance(row, str) else None for row in rows]
    good = [at for at, row in enumerate(rows) if not isinstance(row, str)]
    answers = _attempt([rows[at] for at in good], model)  # type: ignore[misc]  # what is good is no text
    for at, each in zip(good, answers, strict=True):
        found[at] = each
    lines = (orjson.dumps(_line(each), option=orjson.OPT_APPEND_NEWLINE) for each in found)
    return Response(200, b"".join(lines), {"content-type": LINES_TYPE})


class _Refusal(str):
    """Why a row has no answer."""

    __slots__ = ()


def _line(each: Any) -> Any:
    return {ERROR: str(each)} if isinstance(each, _Refusal) else each


def _read(text: bytes) -> Row | _Refusal:
    try:
        row = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return _Refusal(f"the line is not JSON: {error}")
    if not isinstance(row, dict):
        return _Refusal(f"the line holds {type(row).__name__}, expected an object")
    return row


def _attempt(rows: Sequence[Row], model: Predictor) -> list[Any]:
    """Answer rows together; when that fails, their halves, down to the row that is to blame."""
    if not rows:
        return []
    try:
        outputs = model.predict(check(model.signature, _columns(rows, model.signature)))
        return _answers(outputs, model.signature, len(rows))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the user's model raises, the row is named
        if len(rows) == 1:
            _log.info("a row has no answer: %s", type(error).__name__)
            return [_Refusal(_reason(error))]
    middle = len(rows) // 2
    return _attempt(rows[:middle], model) + _attempt(rows[middle:], model)


def _columns(rows: Sequence[Row], signature: Signature) -> dict[str, list[Any]]:
    names = rows[0].keys()
    odd = next((row for row in rows if row.keys() != names), None)
    if odd is not None:
        message = f"rows differ in their columns: {sorted(names ^ odd.keys())[:5]}"
        raise ValueError(message)
    floats = {field.name for field in signature.inputs if field.dtype.value.startswith("float")}
    columns = {name: [row[name] for row in rows] for name in names}
    return {name: numbers(values) if name in floats else values for name, values in columns.items()}


def numbers(values: list[Any]) -> list[Any]:
    """Read infinities that are spelled as texts, at any depth."""
    kinds = set(map(type, values))
    if list in kinds:
        return [numbers(value) if isinstance(value, list) else value for value in values]
    return (
        [_INFINITIES.get(value, value) if isinstance(value, str) else value for value in values]
        if str in kinds
        else values
    )


def _answers(outputs: Mapping[str, NDArray[Any]], signature: Signature, rows: int) -> list[Any]:
    columns = [plain(outputs[field.name]) for field in signature.outputs]
    if any(len(column) != rows for column in columns):
        message = f"the model gave {[len(column) for column in columns]} values for {rows} rows"
        raise ValueError(message)
    if len(columns) == 1:
        return columns[0]
    names = [field.name for field in signature.outputs]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def plain(array: NDArray[Any]) -> list[Any]:
    """Give an array as JSON holds it, exactly; infinities as texts."""
    values: list[Any] = array.tolist()
    if array.dtype.kind == "f" and np.isinf(array).any():
        return _spelled(values)
    return values


def _spelled(values: Iterable[Any]) -> list[Any]:
    return [_spelled(value) if isinstance(value, list) else _spell(value) for value in values]


def _spell(value: float) -> float | str:
    return next((text for text, number in _INFINITIES.items() if number == value), value)


def _reason(error: BaseException) -> str:
    # In the words of a job on this machine (modeldeploy.scoring.predict): the row was asked about alone.
    if isinstance(error, ModelDeployError):
        return error.message.replace(" in row 0", "")
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
