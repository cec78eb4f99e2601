"""Rows that are answered one by one: JSON Lines in, a line for each out, and a line that says why where a row cannot be answered.

A batch service sends many rows in one request and gives up the whole file when one of them fails. Where a job asks for it (by
``MODELDEPLOY_ROW_BY_ROW`` in the container's environment) a row that fails gets ``{"modeldeploy_error": "reason"}`` as its line, and the
rows beside it their answers. The rows to blame are found by halving, so a request without any costs one prediction. Infinities, which JSON
does not have, are the texts ``"Infinity"`` and ``"-Infinity"`` both ways; NaN is null.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from modeldeploy.errors import ModelDeployError
from modeldeploy.packaging.signature import check
from modeldeploy.serving import matrix, payloads
from modeldeploy.serving.batching import Columns, Predictor
from modeldeploy.serving.messages import JSON_TYPE, Response
from modeldeploy.serving.saying import Log
from modeldeploy.values.model import Signature

ERROR = "modeldeploy_error"
ROW = "modeldeploy_row"
"""Field of an instance that holds a row as a line would."""
SWITCH = "MODELDEPLOY_ROW_BY_ROW"
"""Variable of the environment that turns this on."""
_INFINITIES = {"Infinity": np.inf, "-Infinity": -np.inf}
_SPELLED = b'Infinity"'
_TABLE = 2
_LEAST_FLOAT = 4
_log = Log(__name__)


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether a container is asked to answer row by row."""
    return environ.get(SWITCH, "").lower() in {"1", "true"}


def answer(body: bytes, model: Predictor) -> Response:
    """Answer every line of a body by itself; the answer has exactly as many lines."""
    return Response(200, _attempt(load(body), model, spelled=_SPELLED in body), {"content-type": payloads.LINES_TYPE})


def answer_instances(body: bytes, model: Predictor) -> Response | None:
    """Answer every instance of a body by itself: ``{"instances": [{"modeldeploy_row": ROW}]}``; None for a body of any other form.

    So Vertex AI sends rows that have a key, which it takes out: what is left of a row must be an object.
    """
    try:
        rows = [each[ROW] for each in orjson.loads(body)["instances"]]
    except (orjson.JSONDecodeError, TypeError, KeyError):
        return None
    answers = _attempt(rows, model, spelled=_SPELLED in body).split(b"\n")
    document = b'{"predictions":[' + b",".join(each for each in answers if each) + b"]}"
    return Response(200, document, {"content-type": JSON_TYPE})


class UnreadError(ModelDeployError):
    """A line that is no JSON."""


def load(data: bytes) -> list[Any]:
    """Read the values of lines; an UnreadError stands where one is no JSON. Empty lines do not count."""
    texts = [line for line in data.split(b"\n") if line.strip()]
    try:
        # Read in one piece, which takes a fraction of the time; JSON holds no bare newline.
        found: list[Any] = orjson.loads(b"[" + b",".join(texts) + b"]")
    except orjson.JSONDecodeError:
        found = []
    return found if len(found) == len(texts) else [_load_line(text) for text in texts]


def _load_line(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return UnreadError(f"the line is not JSON: {str(error)[:200]}")


def _attempt(rows: Sequence[Any], model: Predictor, *, spelled: bool) -> bytes:
    """Answer rows together; when that fails, their halves, down to the row that is to blame."""
    if not rows:
        return b""
    try:
        outputs = model.predict(_inputs(rows, model.signature, spelled=spelled))
        return dump(_of_rows(outputs, model.signature, len(rows)), objects=True)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the user's model raises, the row is named
        if len(rows) == 1:
            _log.info("a row has no answer: %s", type(error).__name__)
            return orjson.dumps({ERROR: _reason(error)}, option=orjson.OPT_APPEND_NEWLINE)
    middle = len(rows) // 2
    return _attempt(rows[:middle], model, spelled=spelled) + _attempt(rows[middle:], model, spelled=spelled)


def _inputs(rows: Sequence[Any], signature: Signature, *, spelled: bool) -> Columns:
    unread = next((row for row in rows if isinstance(row, UnreadError)), None)
    if unread is not None:
        raise unread
    raw = payloads.read_rows(rows, signature)
    if spelled:
        floats = {field.name for field in signature.inputs if field.dtype.value.startswith("float")}
        raw = {name: numbers(values) if name in floats else values for name, values in raw.items()}
    block = matrix.of_rows(raw.rows, signature) if isinstance(raw, matrix.Rows) else None
    return check(signature, raw) if block is None else block


def numbers(values: Iterable[Any]) -> list[Any]:
    """Read infinities that are spelled as texts, at any depth."""
    return [
        numbers(value)
        if isinstance(value, list)
        else _INFINITIES.get(value, value)
        if isinstance(value, str)
        else value
        for value in values
    ]


def _of_rows(outputs: Columns, signature: Signature, rows: int) -> dict[str, NDArray[Any]]:
    found = {field.name: outputs[field.name] for field in signature.outputs}
    if any(len(array) != rows for array in found.values()):
        message = f"the model gave {[len(array) for array in found.values()]} values for {rows} rows"
        raise ValueError(message)
    return found


def dump(columns: Mapping[str, NDArray[Any]], *, objects: bool) -> bytes:
    """Write a line for each row: the value of the only column, else an object of all, or a list of them in their order."""
    arrays = list(columns.values())
    table = _table(arrays) if len(arrays) == 1 or not objects else None
    if table is not None:
        return _dump_table(table)
    values = [plain(array) for array in arrays]
    rows: Iterable[Any] = values[0] if len(values) == 1 else zip(*values, strict=True)
    if objects and len(values) > 1:
        rows = (dict(zip(columns, row, strict=True)) for row in rows)
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


def _table(arrays: Sequence[NDArray[Any]]) -> NDArray[Any] | None:
    """Put columns of one plain type side by side, which is written in one piece; None for what must be written value by value."""
    first = arrays[0]
    alike = all(array.dtype == first.dtype and array.ndim == 1 for array in arrays)
    small = first.dtype.kind == "f" and first.dtype.itemsize < _LEAST_FLOAT
    if first.dtype.kind not in "biuf" or small or not (alike or (len(arrays) == 1 and first.ndim == _TABLE)):
        return None
    if first.dtype.kind == "f" and any(np.isinf(array).any() for array in arrays):
        return None
    return np.ascontiguousarray(first if len(arrays) == 1 else np.column_stack(arrays))


def _dump_table(table: NDArray[Any]) -> bytes:
    if not len(table):
        return b""
    text = orjson.dumps(table, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
    between, broken = (b",", b"\n") if table.ndim == 1 else (b"],[", b"]\n[")
    return text.replace(between, broken) + b"\n"


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
