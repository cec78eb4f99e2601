"""The caller's side of an infer request: columns to a body, an answer back to columns; binary tensors wherever they can say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from modeldeploy.errors import PredictionError
from modeldeploy.serving.datatypes import of_field
from modeldeploy.serving.messages import RefusedError, Request
from modeldeploy.serving.wire import HEADER, read_tensors, to_binary
from modeldeploy.values.model import DType, Signature
from modeldeploy.values.serving import Payload

_PACKED = "input"
_MATRIX = 2


def encode(columns: Mapping[str, NDArray[Any]], signature: Signature, *, path: str) -> Payload:
    """Write checked columns as an infer request that asks for binary outputs; ``path`` is where the server takes it."""
    blobs: list[bytes] = []
    inputs = _packed(columns, signature, blobs) or [_entry(name, columns, signature, blobs) for name in columns]
    head = orjson.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}})
    headers = {"content-type": "application/octet-stream", HEADER: str(len(head)), "path": path}
    return Payload(b"".join((head, *blobs)), headers)


def decode(payload: Payload) -> dict[str, NDArray[Any]]:
    """Read the outputs of an answer; PredictionError when it is not one."""
    request = Request("POST", "/", headers=dict(payload.headers), body=payload.body)
    try:
        return read_tensors(request, "outputs")
    except RefusedError as error:
        body = payload.body[:200].decode("utf-8", "replace")
        message = f"the server's answer cannot be read: {error}"
        raise PredictionError(message, status=200, body=body) from error


def _packed(
    columns: Mapping[str, NDArray[Any]], signature: Signature, blobs: list[bytes]
) -> list[dict[str, Any]] | None:
    """One matrix instead of a tensor for each column, where all are numbers of one type."""
    first = signature.inputs[0]
    alike = all(field.dtype is first.dtype and not field.shape for field in signature.inputs)
    if len(columns) < _MATRIX or not alike or first.dtype is DType.STRING:
        return None
    matrix = np.stack([columns[field.name] for field in signature.inputs], axis=1)
    return [_tensor(_PACKED, of_field(first), matrix, blobs)]


def _entry(name: str, columns: Mapping[str, NDArray[Any]], signature: Signature, blobs: list[bytes]) -> dict[str, Any]:
    field, array = signature.input(name), columns[name]
    datatype = of_field(field) if field else "BYTES"
    if array.dtype == object and any(text is None for text in array.ravel().tolist()):
        # BYTES has no null, JSON has.
        return {"name": name, "datatype": datatype, "shape": array.shape, "data": array.ravel().tolist()}
    return _tensor(name, datatype, array, blobs)


def _tensor(name: str, datatype: str, array: NDArray[Any], blobs: list[bytes]) -> dict[str, Any]:
    blob = to_binary(array)
    blobs.append(blob)
    size = {"binary_data_size": len(blob)}
    return {"name": name, "datatype": datatype, "shape": array.shape, "parameters": size}
