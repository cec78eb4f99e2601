"""The caller's side of an infer request: columns to a body, an answer back to columns; binary tensors wherever they can say it."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from modeldeploy.errors import PredictionError
from modeldeploy.packaging.blocks import Block, Columns
from modeldeploy.serving.binary_type import HEADER
from modeldeploy.serving.datatypes import of_field
from modeldeploy.serving.inputs import alike
from modeldeploy.serving.messages import RefusedError, Request
from modeldeploy.serving.wire import read_tensors, to_binary
from modeldeploy.values.model import Signature
from modeldeploy.values.serving import Payload

_PACKED = "input"


def encode(columns: Columns, signature: Signature, *, path: str) -> Payload:
    """Write checked columns as an infer request that asks for binary outputs; ``path`` is where the server takes it."""
    blobs: list[bytes | memoryview] = []
    packed = _packed(columns, signature)
    if packed is not None:
        entries = [_tensor(_PACKED, of_field(signature.inputs[0]), packed, blobs)]
    else:
        entries = [_entry(name, array, signature, blobs) for name, array in columns.items()]
    head = orjson.dumps({"inputs": entries, "parameters": {"binary_data_output": True}})
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


def _packed(columns: Columns, signature: Signature) -> NDArray[Any] | None:
    """One matrix instead of a tensor for each column, where all are numbers of one type."""
    if not alike(signature.inputs):
        return None
    if isinstance(columns, Block):
        return columns.matrix
    return np.stack([columns[field.name] for field in signature.inputs], axis=1)


def _entry(name: str, array: NDArray[Any], signature: Signature, blobs: list[bytes | memoryview]) -> dict[str, Any]:
    field = signature.input(name)
    datatype = of_field(field) if field else "BYTES"
    if array.dtype == object and any(text is None for text in array.ravel().tolist()):
        # BYTES has no null, JSON has.
        return {"name": name, "datatype": datatype, "shape": array.shape, "data": array.ravel().tolist()}
    return _tensor(name, datatype, array, blobs)


def _tensor(name: str, datatype: str, array: NDArray[Any], blobs: list[bytes | memoryview]) -> dict[str, Any]:
    blob = _bytes(array)
    blobs.append(blob)
    return {"name": name, "datatype": datatype, "shape": array.shape, "parameters": {"binary_data_size": len(blob)}}


def _bytes(array: NDArray[Any]) -> bytes | memoryview:
    """Give what goes over the wire; numbers that lie there as they are to be sent are not copied."""
    if array.dtype.kind not in "biuf":
        return to_binary(array)
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data
