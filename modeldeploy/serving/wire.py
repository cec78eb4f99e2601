"""Open Inference Protocol V2 tensors, as JSON and as the binary tensor extension, to columns and back.

The binary form: the header ``Inference-Header-Content-Length`` says how long the JSON at the start of the body is; the tensors whose
``binary_data_size`` it names follow in their order, little-endian; a BYTES element is its length (u32) and its bytes.
"""

from __future__ import annotations

import functools
import itertools
import math
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import orjson
from numpy.typing import NDArray

from modeldeploy.serving import matrix
from modeldeploy.serving.binary_type import HEADER
from modeldeploy.serving.datatypes import BYTES, of_dtype, wire_dtype
from modeldeploy.serving.duplicates import check_keys
from modeldeploy.serving.messages import JSON_TYPE, RefusedError, Request, Response
from modeldeploy.values.model import Signature

_MAX_RANK = 32
_MAX_SIZE = 1 << 40
_EXACT = 1 << 53
_SHORT = 1_024
_LITTLE = sys.byteorder == "little"
_LENGTH = struct.Struct("<I")
_NONE = type(None)
_JSON_KINDS: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float, _NONE}, "O": {str, _NONE}}


@attrs.frozen
class Wanted:
    """One output that the caller asked for, and in which form."""

    name: str
    binary: bool


@attrs.frozen(eq=False)
class Infer:
    """What an infer request holds: the tensors as columns, and what it wants back."""

    columns: Mapping[str, NDArray[Any]]
    wanted: tuple[Wanted, ...]
    id: str | None = None


@attrs.frozen(eq=False)
class _Entry:
    """A tensor as its request describes it; ``size`` bytes of the tail, or ``data``."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    size: int | None
    data: Any

    @functools.cached_property
    def count(self) -> int:
        return math.prod(self.shape)


@attrs.frozen(eq=False)
class _Asked:
    """What the JSON of an infer request says."""

    entries: list[_Entry]
    wanted: tuple[Wanted, ...]
    id: str | None


class Reader:
    """Reads infer requests for models of one signature."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        # What stands before binary tensors says little more than their shape, and callers send the same shapes again and again.
        self._remembered = functools.lru_cache(maxsize=64)(self._read)

    def decode(self, request: Request) -> Infer:
        """Read one; RefusedError names the tensor that is wrong. What the columns hold is still to be checked."""
        text, tail = _cut(request)
        asked = self._remembered(text) if tail and len(text) <= _SHORT else self._read(text)
        return Infer(_columns(_arrays(asked.entries, tail), self._signature), asked.wanted, asked.id)

    def _read(self, text: bytes) -> _Asked:
        document = _document(text)
        if not isinstance(document.get("inputs"), list) or not document["inputs"]:
            hint = f"send {example(self._signature)}"
            raise RefusedError(400, "'inputs' must be a list of tensors", hint=hint)
        number = document.get("id")
        if number is not None and not isinstance(number, str):
            raise RefusedError(400, "'id' must be a string")
        return _Asked(_entries(document["inputs"]), _wanted(document, self._signature), number)


def read_tensors(message: Request, key: str) -> dict[str, NDArray[Any]]:
    """Read the tensors under ``key`` ("inputs" or "outputs") of a body with its headers; RefusedError when they cannot be read."""
    text, tail = _cut(message)
    entries = _document(text).get(key)
    if not isinstance(entries, list):
        raise RefusedError(400, f"{key!r} must be a list of tensors")
    return _arrays(_entries(entries), tail)


def example(signature: Signature) -> str:
    """Show a right request for this model."""
    from modeldeploy.serving.datatypes import of_field

    tensors = [
        {
            "name": field.name,
            "shape": [1, *(size or 1 for size in field.shape)],
            "datatype": of_field(field),
            "data": ["..."],
        }
        for field in signature.inputs[:3]
    ]
    return orjson.dumps({"inputs": tensors}).decode()


# Reading.


def _entries(described: list[Any]) -> list[_Entry]:
    entries = [_entry(each) for each in described]
    names: set[str] = set()
    for entry in entries:
        if entry.name in names:
            raise RefusedError(400, f"tensor {entry.name!r} is given twice", field=entry.name)
        names.add(entry.name)
    return entries


def _arrays(entries: list[_Entry], tail: memoryview) -> dict[str, NDArray[Any]]:
    blobs = _Blobs(tail)
    arrays = {entry.name: _array(entry, blobs) for entry in entries}
    blobs.check_end()
    return arrays


class _Blobs:
    """The binary tail of a body, taken from the front."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int, name: str) -> memoryview:
        end = self._at + size
        if end > len(self._data):
            message = f"tensor {name!r} says {size} bytes, {len(self._data) - self._at} are left in the body"
            raise RefusedError(400, message, field=name)
        part = self._data[self._at : end]
        self._at = end
        return part

    def check_end(self) -> None:
        left = len(self._data) - self._at
        if left:
            raise RefusedError(
                400, f"{left} bytes follow the last tensor", hint="'binary_data_size' must add up to the body"
            )


def _cut(request: Request) -> tuple[bytes, memoryview]:
    """Give the JSON of a body, and the binary tensors that follow it."""
    length, body = request.headers.get(HEADER), request.body
    if length is None:
        return body, memoryview(b"")
    if not length.isdecimal() or len(length) > 19 or int(length) > len(body):  # noqa: PLR2004 - digits of 64 bits
        raise RefusedError(400, f"header {HEADER!r} is {length[:20]!r}, the body has {len(body)} bytes")
    end = int(length)
    return body[:end], memoryview(body)[end:]


def _document(text: bytes) -> dict[str, Any]:
    document = load_json(text)
    if not isinstance(document, dict):
        raise RefusedError(400, "the body must be a JSON object with 'inputs'")
    return document


def load_json(data: bytes) -> Any:
    """Read JSON; RefusedError says where it is wrong. Infinity and NaN are not JSON, and no key may be given twice."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        # From None: the error quotes the whole body.
        raise RefusedError(400, f"the body is not JSON: {str(error)[:200]}") from None
    check_keys(document, data)
    return document


def _entry(described: Any) -> _Entry:
    if not isinstance(described, dict):
        raise RefusedError(400, "each of 'inputs' must be an object with name, shape, datatype and data")
    name, datatype = described.get("name"), described.get("datatype")
    if not isinstance(name, str):
        raise RefusedError(400, "a tensor has no 'name'")
    if not isinstance(datatype, str):
        raise RefusedError(400, f"tensor {name!r} has no 'datatype'", field=name)
    shape = _shape(name, described.get("shape"))
    size = _parameters(described, name).get("binary_data_size")
    if size is not None and (type(size) is not int or size < 0):
        raise RefusedError(400, f"tensor {name!r} has 'binary_data_size' {size!r}", field=name)
    return _Entry(name, datatype, shape, size, described.get("data"))


def _array(entry: _Entry, blobs: _Blobs) -> NDArray[Any]:
    name, datatype, count = entry.name, entry.datatype, entry.count
    if entry.size is None:
        array = _from_json(name, datatype, entry.data, count, len(entry.shape))
    else:
        array = _from_binary(name, datatype, blobs.take(entry.size, name), count)
    return array.reshape(entry.shape)


def _shape(name: str, shape: Any) -> tuple[int, ...]:
    good = (
        isinstance(shape, list)
        and 0 < len(shape) <= _MAX_RANK
        and all(type(size) is int and size >= 0 for size in shape)
    )
    if not good or math.prod(max(size, 1) for size in shape) > _MAX_SIZE:
        raise RefusedError(400, f"tensor {name!r} has no usable 'shape'", field=name, hint="the first axis is the rows")
    return tuple(shape)


def _parameters(entry: dict[str, Any], name: str) -> dict[str, Any]:
    parameters = entry.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise RefusedError(400, f"'parameters' of {name!r} must be an object", field=name)
    if "shared_memory_region" in parameters:
        raise RefusedError(400, f"{name!r} names a shared memory region, which is not served here", field=name)
    return parameters


def _from_json(name: str, datatype: str, data: Any, count: int, rank: int) -> NDArray[Any]:
    dtype = np.dtype(object) if datatype == BYTES else wire_dtype(datatype, name)
    flat = _flatten(name, data, rank)
    if len(flat) != count:
        raise RefusedError(400, f"tensor {name!r} holds {len(flat)} values, its shape says {count}", field=name)
    kinds = set(map(type, flat))
    if not kinds <= _JSON_KINDS[dtype.kind]:
        _refuse_kind(name, datatype, flat, _JSON_KINDS[dtype.kind])
    if dtype.kind == "O":
        return _objects(flat)
    if dtype.kind == "f":
        # Rounded once, by the check against the signature, and not twice.
        return _floats(name, flat, mixed=int in kinds)
    return _integers(name, flat, dtype) if dtype.kind in "iu" else np.array(flat, dtype=bool)


def _flatten(name: str, data: Any, rank: int) -> list[Any]:
    if not isinstance(data, list):
        raise RefusedError(400, f"tensor {name!r} has no 'data' list", field=name)
    for _axis in range(rank - 1):
        if not data or not isinstance(data[0], list):
            break
        if set(map(type, data)) != {list}:
            raise RefusedError(400, f"tensor {name!r} is ragged", field=name)
        data = list(itertools.chain.from_iterable(data))
    return list(data)


def _refuse_kind(name: str, datatype: str, flat: Sequence[Any], allowed: set[type]) -> None:
    at, value = next((at, value) for at, value in enumerate(flat) if type(value) not in allowed)
    message = f"tensor {name!r} holds {type(value).__name__} {str(value)[:40]!r} at position {at}, not {datatype}"
    raise RefusedError(422, message, field=name)


def _floats(name: str, flat: list[Any], *, mixed: bool) -> NDArray[Any]:
    if mixed and any(type(value) is int and not -_EXACT <= value <= _EXACT for value in flat):
        raise RefusedError(422, f"tensor {name!r} holds a whole number above 2**53, which no float holds", field=name)
    return np.array(flat, dtype=np.float64)


def _integers(name: str, flat: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    info = np.iinfo(dtype)
    if flat and not info.min <= min(flat) <= max(flat) <= info.max:
        raise RefusedError(422, f"tensor {name!r} holds a number outside {dtype.name}", field=name)
    return np.array(flat, dtype=dtype.newbyteorder("="))


def _objects(flat: Sequence[Any]) -> NDArray[Any]:
    array = np.empty(len(flat), dtype=object)
    array[:] = flat
    return array


def _from_binary(name: str, datatype: str, data: memoryview, count: int) -> NDArray[Any]:
    if datatype == BYTES:
        return _objects(_texts(name, data, count))
    dtype = wire_dtype(datatype, name)
    if len(data) != count * dtype.itemsize:
        message = f"tensor {name!r} has {len(data)} bytes, its shape and datatype say {count * dtype.itemsize}"
        raise RefusedError(400, message, field=name)
    if dtype.kind == "b":
        return _flags(name, data)
    # A copy: models want aligned memory that they may write to.
    return np.frombuffer(data, dtype=dtype).astype(dtype.newbyteorder("="))


def _flags(name: str, data: memoryview) -> NDArray[Any]:
    raw = np.frombuffer(data, dtype=np.uint8)
    if raw.size and raw.max() > 1:
        raise RefusedError(422, f"tensor {name!r} holds a BOOL that is neither 0 nor 1", field=name)
    return raw.astype(bool)


def _texts(name: str, data: memoryview, count: int) -> list[str]:
    texts, at = [], 0
    try:
        for _each in range(count):
            (size,) = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size
            if at + size > len(data):
                raise _broken_bytes(name)
            texts.append(str(data[at : at + size], "utf-8"))
            at += size
    except struct.error:
        raise _broken_bytes(name) from None
    except UnicodeDecodeError as error:
        raise RefusedError(422, f"tensor {name!r} holds bytes that are not UTF-8 text", field=name) from error
    if at != len(data):
        raise _broken_bytes(name)
    return texts


def _broken_bytes(name: str) -> RefusedError:
    return RefusedError(400, f"tensor {name!r}: the lengths of its elements do not add up to its size", field=name)


def _columns(tensors: dict[str, NDArray[Any]], signature: Signature) -> Mapping[str, NDArray[Any]]:
    """Fit the shapes that clients usually send: one 2-D tensor for all columns, or (rows, 1) for a scalar."""
    fields = signature.inputs
    if len(tensors) == 1 and fields[0].name in tensors and fields[0].shape:
        return matrix.of_array(tensors[fields[0].name], signature) or tensors
    scalars = all(not field.shape for field in fields)
    if len(tensors) == 1 and scalars:
        (name, array) = next(iter(tensors.items()))
        alike = len({field.dtype for field in fields}) == 1
        packed = array.ndim == 2 and array.shape[1] == len(fields) and alike  # noqa: PLR2004 - rows and columns
        if packed and (len(fields) > 1 or name == fields[0].name):
            return matrix.of_array(array, signature) or {field.name: array[:, at] for at, field in enumerate(fields)}
    flat = {field.name for field in fields if not field.shape}
    return {
        name: array[:, 0] if name in flat and array.ndim == 2 and array.shape[1] == 1 else array  # noqa: PLR2004
        for name, array in tensors.items()
    }


def _wanted(document: dict[str, Any], signature: Signature) -> tuple[Wanted, ...]:
    binary = _flag(_parameters(document, "the request"), "binary_data_output", default=False)
    outputs = document.get("outputs")
    if outputs is None or outputs == []:
        return tuple(Wanted(field.name, binary) for field in signature.outputs)
    if not isinstance(outputs, list):
        raise RefusedError(400, "'outputs' must be a list of objects with a name")
    known = [field.name for field in signature.outputs]
    return tuple(_one_wanted(entry, known, binary=binary) for entry in outputs)


def _one_wanted(entry: Any, known: list[str], *, binary: bool) -> Wanted:
    name = entry.get("name") if isinstance(entry, dict) else None
    if not isinstance(name, str):
        raise RefusedError(400, "each of 'outputs' must be an object with a name")
    if name not in known:
        raise RefusedError(422, f"the model has no output {name[:80]!r}", field=name, hint=f"it has {known}")
    parameters = _parameters(entry, name)
    if parameters.get("classification"):
        raise RefusedError(400, f"output {name!r}: 'classification' is not served here", field=name)
    return Wanted(name, _flag(parameters, "binary_data", default=binary))


def _flag(parameters: dict[str, Any], key: str, *, default: bool) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise RefusedError(400, f"{key!r} must be true or false")
    return value


# Writing.


def encode(infer: Infer, outputs: Mapping[str, NDArray[Any]], *, model: str, version: str) -> Response:
    """Write the outputs that were asked for, each in the form that was asked for."""
    arrays = [(wanted, outputs[wanted.name]) for wanted in infer.wanted]
    blobs = [to_binary(array) for wanted, array in arrays if wanted.binary]
    if len(blobs) == len(arrays) and infer.id is None:
        looks = [
            (wanted.name, array.dtype, array.shape, len(blob))
            for (wanted, array), blob in zip(arrays, blobs, strict=True)
        ]
        text = _binary_head(model, version, tuple(looks))
    else:
        sizes = iter(map(len, blobs))
        entries = [_told(*pair, size=next(sizes) if pair[0].binary else None) for pair in arrays]
        text = _head(model, version, entries, infer.id)
    if not blobs:
        return Response(200, text, {"content-type": JSON_TYPE})
    headers = {"content-type": "application/octet-stream", HEADER: str(len(text))}
    return Response(200, b"".join((text, *blobs)), headers)


# As with requests: answers of one shape are headed alike.
@functools.lru_cache(maxsize=64)
def _binary_head(model: str, version: str, looks: tuple[tuple[str, np.dtype[Any], tuple[int, ...], int], ...]) -> bytes:
    entries = [
        {**_look(name, dtype, shape), "parameters": {"binary_data_size": size}} for name, dtype, shape, size in looks
    ]
    return _head(model, version, entries, None)


def _head(model: str, version: str, entries: list[dict[str, Any]], number: str | None) -> bytes:
    head: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": entries}
    if number is not None:
        head["id"] = number
    return orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)


def _told(wanted: Wanted, array: NDArray[Any], *, size: int | None) -> dict[str, Any]:
    look = _look(wanted.name, array.dtype, array.shape)
    if size is not None:
        return {**look, "parameters": {"binary_data_size": size}}
    # NaN becomes null, which JSON has.
    return {
        **look,
        "data": np.ascontiguousarray(array).ravel() if array.dtype.kind in "biuf" else array.ravel().tolist(),
    }


def _look(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> dict[str, Any]:
    return {"name": name, "datatype": of_dtype(dtype), "shape": shape}


def to_binary(array: NDArray[Any]) -> bytes:
    """Write one tensor as the binary extension does; a null text becomes an empty one, for BYTES has no null."""
    if array.dtype.kind in "biuf":
        ordered = array if array.dtype.isnative and _LITTLE else array.astype(array.dtype.newbyteorder("<"))
        return ordered.tobytes()
    parts = [("" if text is None else str(text)).encode() for text in array.ravel().tolist()]
    return b"".join(piece for part in parts for piece in (_LENGTH.pack(len(part)), part))
