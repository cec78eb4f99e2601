"""Whether two answers to one request say the same.

Equal bytes are the same; so are numbers that differ by rounding alone. Texts say numbers without their type, so in JSON and CSV a number may
differ as much as a float32 may; tensors of the Open Inference Protocol know their types.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import orjson

from modeldeploy.errors import ModelDeployError
from modeldeploy.serving.messages import Request, Response
from modeldeploy.values.tolerance import Tolerance

LARGEST = 4 << 20
"""Larger answers are not compared."""

_TYPED = Tolerance()
_TEXTS = Tolerance(float64=_TYPED.float32)
_NARROW = {"FP16": "float16", "FP32": "float32"}
_TENSORS_LENGTH = "inference-header-content-length"
_NUMBERS = "biuf"
# An infer answer of ours names the model and its version first, which differ between revisions by nature.
_HEAD, _OUTPUTS, _HEAD_SIZE = b'{"model_name":', b'"outputs":', 4_096


def same_bytes(first: Response, second: Response) -> bool:
    """Whether two answers are equal as they stand, but for the names of model and version."""
    return first.body == second.body or (_tail(first.body) or b"1") == (_tail(second.body) or b"2")


def _tail(body: bytes) -> bytes:
    at = body.find(_OUTPUTS, 0, _HEAD_SIZE) if body.startswith(_HEAD) else -1
    return body[at:] if at > 0 else b""


def same_values(first: Response, second: Response) -> bool:
    """Whether two answers hold the same values; those that cannot be read, and are not equal, do not."""
    if len(second.body) > LARGEST:
        return False
    try:
        one, other = _read(first), _read(second)
        typed = isinstance(one, _Tensors) and isinstance(other, _Tensors)
        return _alike(one, other, _TYPED if typed else _TEXTS)
    except (ModelDeployError, ValueError, TypeError, csv.Error, RecursionError):
        return False


class _Tensors(dict[str, Any]):
    """Arrays by name, of the types that the model gave."""


def _read(answer: Response) -> Any:
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if _TENSORS_LENGTH in answer.headers:
        return _tensors(answer)
    if kind == "text/csv":
        return [[_cell(cell) for cell in row] for row in csv.reader(io.StringIO(answer.body.decode()))]
    if kind == "application/jsonlines":
        return [orjson.loads(line) for line in answer.body.splitlines()]
    document = orjson.loads(answer.body)
    return _tensors(answer) if isinstance(document, dict) and "outputs" in document else document


def _tensors(answer: Response) -> _Tensors:
    from modeldeploy.serving.wire import read_tensors

    arrays = read_tensors(Request("POST", "", headers=answer.headers, body=answer.body), "outputs")
    head = orjson.loads(answer.body[: int(answer.headers.get(_TENSORS_LENGTH, len(answer.body)))])
    kinds = {entry["name"]: _NARROW.get(entry["datatype"]) for entry in head["outputs"]}
    # JSON gives every float as the widest.
    return _Tensors({name: array.astype(kinds[name] or array.dtype) for name, array in arrays.items()})


def _cell(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _alike(first: Any, second: Any, tolerance: Tolerance) -> bool:
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(_alike(first[name], second[name], tolerance) for name in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and _lists_alike(first, second, tolerance)
    return _arrays_alike(first, second, tolerance)


def _lists_alike(first: list[Any], second: list[Any], tolerance: Tolerance) -> bool:
    import numpy as np

    try:
        one, other = np.asarray(first), np.asarray(second)
    except ValueError:  # rows of different lengths
        one = other = np.empty(0, dtype=object)
    if one.dtype.kind in _NUMBERS and other.dtype.kind in _NUMBERS:
        return _arrays_alike(one, other, tolerance)
    return all(_alike(*pair, tolerance) for pair in zip(first, second, strict=True))


def _arrays_alike(first: Any, second: Any, tolerance: Tolerance) -> bool:
    import numpy as np

    from modeldeploy.packaging.golden import same

    one, other = np.asarray(first), np.asarray(second)
    # What is compared with a float is held to a float's tolerance, whichever side it is on.
    pair = (one, other) if one.dtype.kind == "f" else (other, one)
    return bool(same(*pair, tolerance).all())
