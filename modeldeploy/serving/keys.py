"""The key of a request, to which its assignment sticks: from a header, or from a field of the body.

A field is read as well as can be done cheaply, without the model's signature: from the body of any contract that is served here, of its
first row when there are many. What cannot be read has no key and is assigned by lot; a request is never refused for that.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import orjson

from modeldeploy.serving.messages import Request
from modeldeploy.values.assignment import KEY_HEADER, from_header, key_text

LARGEST = 1 << 20
"""Larger JSON is not parsed for its key: that would hold up everybody else. Send the header instead."""

_BINARY = "inference-header-content-length"
_ROWS = ("instances", "rows", "records", "dataframe_records", "inputs", "data", "input_data", "dataframe_split")
_FORMATS = {
    "BOOL": "<?", "INT8": "<b", "INT16": "<h", "INT32": "<i", "INT64": "<q", "FP16": "<e", "FP32": "<f", "FP64": "<d",
    "UINT8": "<B", "UINT16": "<H", "UINT32": "<I", "UINT64": "<Q",
}  # fmt: skip
_LENGTH = struct.Struct("<I")


def reader(spec: str) -> Callable[[Request], str | None] | None:
    """Give what reads the key that ``spec`` describes (``"header:<name>"`` or ``"field:<name>"``); None without one."""
    source, _colon, name = spec.partition(":")
    if not spec:
        return None
    if source == "header":
        header = name.lower()
        return lambda request: _header(request, KEY_HEADER) or _header(request, header)
    return lambda request: _header(request, KEY_HEADER) or _from_body(request, name)


def _header(request: Request, name: str) -> str | None:
    value = request.headers.get(name)
    return from_header(value) if value else None


def _from_body(request: Request, name: str) -> str | None:
    try:
        body, tail = _parts(request)
        document = _document(body) if len(body) <= LARGEST else None
        return _text(_find(document, name, tail))
    except (TypeError, ValueError, LookupError, AttributeError, struct.error):
        return None  # a body of another shape; whether it is a right one is for the model server to say


def _parts(request: Request) -> tuple[bytes, bytes]:
    """Split a body into its JSON and the binary tensors behind it."""
    size = request.headers.get(_BINARY, "")
    if not size.isdecimal():
        return request.body, b""
    return request.body[: int(size)], request.body[int(size) :]


def _document(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return orjson.loads(body.partition(b"\n")[0])  # JSON Lines: the first row
    except orjson.JSONDecodeError:
        return None


def _find(document: Any, name: str, tail: bytes) -> Any:
    if isinstance(document, list):
        return _in_rows(document, name, tail)
    found = document.get(name)
    if found is None and isinstance(document.get("parameters"), dict):
        found = document["parameters"].get(name)
    rows = (document[key] for key in _ROWS if found is None and key in document)
    return next((value for each in rows if (value := _in_rows(each, name, tail)) is not None), found)


def _in_rows(rows: Any, name: str, tail: bytes) -> Any:
    """Look into rows (a list of objects), tensors (objects with a name), columns (an object), or a table with names and rows."""
    if isinstance(rows, dict):
        if isinstance(rows.get("columns"), list) and "data" in rows:
            return rows["data"][0][rows["columns"].index(name)]
        return rows.get(name)
    first = rows[0]
    if isinstance(first, dict) and "name" in first and "datatype" in first:
        return _in_tensors(rows, name, tail)
    return first.get(name)


def _in_tensors(tensors: list[dict[str, Any]], name: str, tail: bytes) -> Any:
    at = 0
    for tensor in tensors:
        size = (tensor.get("parameters") or {}).get("binary_data_size")
        if tensor["name"] == name:
            return tensor.get("data") if size is None else _first_element(tensor["datatype"], tail[at : at + size])
        at += size or 0
    return None


def _first_element(datatype: str, data: bytes) -> Any:
    if datatype == "BYTES":
        (length,) = _LENGTH.unpack_from(data)
        return str(data[_LENGTH.size : _LENGTH.size + length], "utf-8")
    return struct.unpack_from(_FORMATS[datatype], data)[0]


def _text(value: Any) -> str | None:
    """Write a key as text; of a list the first one."""
    while isinstance(value, list):
        value = value[0]
    return key_text(value)
