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
from modeldeploy.values.tolerance import Tolerance

ROWS = 32
"""At most so many rows of the example are kept."""

OPTION = "golden"
"""The key of a manifest's options that holds what may differ, as ``{"float32": [rtol, atol]}``."""

_USUAL = Tolerance()
_NUMBERS = "biuf"
_SHOWN = 60


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

    @property
    def rows(self) -> int:
        """How many rows there are outputs for; 0 when it can vouch for nothing."""
        return min((len(array) for array in self.outputs.values()), default=0)

    def differences(self, outputs: Mapping[str, NDArray[Any]], tolerance: Tolerance = _USUAL) -> tuple[str, ...]:
        """Say how ``outputs`` differ from the recorded ones beyond the tolerance; empty when they are the same."""
        found = [f"output {name!r} is missing" for name in self.outputs if name not in outputs]
        found += [f"output {name!r} was not there" for name in outputs if name not in self.outputs]
        both = [name for name in self.outputs if name in outputs]
        texts = (_difference(name, self.outputs[name], outputs[name], tolerance) for name in both)
        return (*found, *(text for text in texts if text))


def allowed(options: Mapping[str, str], asked: Tolerance = _USUAL) -> Tolerance:
    """Say what the answers of a model may differ: what was asked for, and what the options of its manifest say of 8 bits.

    In 8 bits a number that lies between two of 256 steps may be rounded to the other one, on another processor, where floats differ in their last digit.
    """
    if OPTION not in options:
        return asked
    try:
        return asked.widened(Tolerance.of(orjson.loads(options[OPTION])))
    except ValueError as error:
        message = f"what the golden outputs may differ cannot be read: {options[OPTION]!r:.100}"
        raise IntegrityError(message, hint="the bundle is damaged; package the model again") from error


def same(expected: NDArray[Any], got: NDArray[Any], tolerance: Tolerance = _USUAL) -> NDArray[np.bool_]:
    """Compare two arrays value by value: floats within the tolerance, all else exactly; NaN is the same as NaN.

    Gives truth values in the shape of both; a single False where the shapes differ.
    """
    if expected.shape != got.shape:
        return np.zeros(1, dtype=bool)
    if not _numbers(expected, got):
        return _equal(expected.astype(object), got.astype(object))
    if not _inexact(expected, got):
        return np.asarray(expected == got, dtype=bool)
    rtol, atol = tolerance.at(_width(expected, got))
    return np.asarray(np.isclose(got, expected, rtol=rtol, atol=atol, equal_nan=True))


def _numbers(*arrays: NDArray[Any]) -> bool:
    return all(array.dtype.kind in _NUMBERS for array in arrays)


def _inexact(expected: NDArray[Any], got: NDArray[Any]) -> bool:
    """Whether rounding is allowed: the model gives floats, and a truth value is never the rounding of one."""
    return expected.dtype.kind == "f" and got.dtype.kind != "b"


def _width(expected: NDArray[Any], got: NDArray[Any]) -> int:
    """Bytes of the narrower of the floats."""
    return min(array.dtype.itemsize for array in (expected, got) if array.dtype.kind == "f")


def _equal(expected: NDArray[Any], got: NDArray[Any]) -> NDArray[np.bool_]:
    """Compare Python values; a NaN among texts is a missing one, and so is the other side's."""
    both_nan = (expected != expected) & (got != got)  # noqa: PLR0124 - only NaN differs from itself
    return np.asarray((expected == got) | both_nan, dtype=bool)


def _difference(name: str, expected: NDArray[Any], got: NDArray[Any], tolerance: Tolerance) -> str | None:
    if expected.shape != got.shape:
        return f"output {name!r} has shape {got.shape}, expected {expected.shape}"
    good = same(expected, got, tolerance)
    if good.all():
        return None
    at = tuple(int(place) for place in np.argwhere(~good)[0])
    count = f"output {name!r} differs in {int((~good).sum())} of {good.size} values"
    first = f"first in {_place(at)}: expected {_shown(expected[at])}, got {_shown(got[at])}"
    return f"{count}, {first}{_distance(expected, got, tolerance)}"


def _place(at: tuple[int, ...]) -> str:
    row, *inner = at
    if not inner:
        return f"row {row}"
    return f"row {row}, column {inner[0] if len(inner) == 1 else tuple(inner)}"


def _shown(value: Any) -> str:
    """Write a value as people read it: a float as short as its type allows, a text in quotes."""
    text = repr(str(value)) if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _distance(expected: NDArray[Any], got: NDArray[Any], tolerance: Tolerance) -> str:
    """Say how far the furthest pair is apart, and what would have been allowed; nothing for texts."""
    if not _numbers(expected, got):
        return ""
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(got.astype(np.float64) - expected.astype(np.float64))
    finite = apart[np.isfinite(apart)]
    furthest = f"; largest difference {finite.max():.6g}" if finite.size else ""
    if not _inexact(expected, got):
        return f"{furthest}; no difference is allowed"
    width = _width(expected, got)
    rtol, atol = tolerance.at(width)
    return f"{furthest}; allowed for float{8 * width} are rtol {rtol:g} and atol {atol:g}"


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
