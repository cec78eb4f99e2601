"""Golden examples: real inputs with the model's real outputs, by which every deployment of it is checked."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
import orjson
from numpy.typing import NDArray

from modeldeploy.errors import IntegrityError

ROWS = 32
"""At most so many rows of the example are kept."""

# An answer may differ by the rounding of another processor or thread count, not by more.
_RTOL = {2: 5e-3, 4: 1e-4, 8: 1e-6}
_ATOL = {2: 1e-3, 4: 1e-6, 8: 1e-9}


@attrs.frozen(eq=False)
class Golden:
    """Example inputs and the outputs that the model gave for them when it was packaged."""

    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]

    def to_bytes(self) -> bytes:
        """Write it canonically and exactly, NaN and infinities included."""
        sides = {"inputs": _encode(self.inputs), "outputs": _encode(self.outputs)}
        return orjson.dumps(sides, option=orjson.OPT_SORT_KEYS) + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Golden:
        """Read what ``to_bytes`` wrote; IntegrityError when it is something else."""
        try:
            sides = orjson.loads(data)
            return cls(inputs=_decode(sides["inputs"]), outputs=_decode(sides["outputs"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            message = f"the golden examples cannot be read: {error!r}"
            raise IntegrityError(message, hint="the bundle is damaged; package the model again") from error

    def differences(self, outputs: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
        """Say how ``outputs`` differ from the recorded ones beyond rounding; empty when they are the same."""
        found = [f"output {name!r} is missing" for name in self.outputs if name not in outputs]
        found += [f"output {name!r} was not there" for name in outputs if name not in self.outputs]
        both = [name for name in self.outputs if name in outputs]
        return tuple(found + [text for name in both if (text := _difference(name, self.outputs[name], outputs[name]))])


def _difference(name: str, expected: NDArray[Any], got: NDArray[Any]) -> str | None:
    if expected.shape != got.shape:
        return f"output {name!r} has shape {got.shape}, expected {expected.shape}"
    same = _same(expected, got)
    if same.all():
        return None
    row = int(np.argwhere(~same)[0][0])
    return f"output {name!r} differs in {int((~same).sum())} of {same.size} values, first in row {row}: {got[row]!r}, expected {expected[row]!r}"


def _same(expected: NDArray[Any], got: NDArray[Any]) -> NDArray[np.bool_]:
    if expected.dtype.kind != "f" or got.dtype.kind not in "fiu":
        return np.asarray(expected == got, dtype=bool)
    size = min(expected.dtype.itemsize, got.dtype.itemsize if got.dtype.kind == "f" else 8)
    return np.asarray(np.isclose(got, expected, rtol=_RTOL.get(size, 1e-6), atol=_ATOL.get(size, 1e-9), equal_nan=True))


def _encode(columns: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    return {name: _encode_one(array) for name, array in columns.items()}


def _encode_one(array: NDArray[Any]) -> dict[str, Any]:
    if array.dtype == object:
        return {"dtype": "string", "shape": list(array.shape), "data": array.ravel().tolist()}
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    data = base64.b64encode(little.tobytes()).decode()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "base64": data}


def _decode(columns: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    return {name: _decode_one(entry) for name, entry in columns.items()}


def _decode_one(entry: Mapping[str, Any]) -> NDArray[Any]:
    shape = tuple(entry["shape"])
    if entry["dtype"] == "string":
        array = np.empty(len(entry["data"]), dtype=object)
        array[:] = entry["data"]
        return array.reshape(shape)
    dtype = np.dtype(entry["dtype"]).newbyteorder("<")
    raw = np.frombuffer(base64.b64decode(entry["base64"], validate=True), dtype=dtype)
    return raw.reshape(shape).astype(dtype.newbyteorder("="))
