"""The datatypes of the Open Inference Protocol V2, numpy's and ours; BYTES is text here."""

from __future__ import annotations

from typing import Any

import numpy as np

from modeldeploy.serving.messages import RefusedError
from modeldeploy.values.model import DType, Field

BYTES = "BYTES"
_NUMPY = {
    "BOOL": "bool",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
_NAMES = {name: datatype for datatype, name in _NUMPY.items()}
# The wire is little-endian whatever the machine is.
_WIRE = {datatype: np.dtype(name).newbyteorder("<") for datatype, name in _NUMPY.items()}


def of_field(field: Field) -> str:
    """Name the datatype of a field."""
    return BYTES if field.dtype is DType.STRING else _NAMES[field.dtype.value]


def of_dtype(dtype: np.dtype[Any]) -> str:
    """Name the datatype of arrays of ours."""
    return _NAMES.get(dtype.name, BYTES)


def wire_dtype(datatype: str, tensor: str) -> np.dtype[Any]:
    """Give numpy's dtype on the wire; a datatype that is not served is refused by name."""
    found = _WIRE.get(datatype)
    if found is None:
        message = f"tensor {tensor!r} has datatype {datatype!r}, which is not served here"
        raise RefusedError(400, message, field=tensor, hint=f"use one of {[*_WIRE, BYTES]}")
    return found
