"""What a packaged model is: its signature, its runtime, its identity."""

from __future__ import annotations

import enum
import functools
import re

import attrs

from modeldeploy.errors import ConfigurationError
from modeldeploy.values.names import check_name, check_version

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class DType(enum.StrEnum):
    """Element types that every wire format of ours can carry; the values are numpy's names."""

    BOOL = "bool"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    FLOAT16 = "float16"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    STRING = "string"


@attrs.frozen
class Field:
    """One column or tensor: ``shape`` is that of one row (``()`` a scalar, ``(30,)`` a vector; ``None`` = any length)."""

    name: str
    dtype: DType
    shape: tuple[int | None, ...] = ()
    nullable: bool = False
    """Whether NaN (floats) or null (strings) may be given."""


@attrs.frozen
class Signature:
    """What goes in and what comes out of one prediction call; the row axis is implied and comes first."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]

    def __attrs_post_init__(self) -> None:
        for side, fields in (("input", self.inputs), ("output", self.outputs)):
            names = [field.name for field in fields]
            if len(set(names)) < len(names):
                twice = sorted({name for name in names if names.count(name) > 1})
                message = f"{side} names {twice} occur more than once in the signature"
                raise ConfigurationError(message, hint="give every column its own name")

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Name the inputs, in their order."""
        return tuple(field.name for field in self.inputs)

    @functools.cached_property
    def width(self) -> int:
        """Count the numbers of a row whose inputs are all floats of one type, of 32 or 64 bits; 0 where anything else goes in."""
        first = self.inputs[0]
        if first.dtype not in {DType.FLOAT32, DType.FLOAT64}:
            return 0
        if first.shape:
            return (first.shape[0] or 0) if len(self.inputs) == len(first.shape) == 1 else 0
        alike = all(field.dtype is first.dtype and not field.shape for field in self.inputs)
        return len(self.inputs) if alike else 0

    def input(self, name: str) -> Field | None:
        """Find one input field, or None."""
        return next((field for field in self.inputs if field.name == name), None)


def _check_digest(_instance: object, _attribute: attrs.Attribute[str], value: str) -> None:
    if _DIGEST.fullmatch(value) is None:
        message = f"digest {value!r} is not 'sha256:' and 64 hexadecimal digits"
        raise ConfigurationError(message)


@attrs.frozen
class ModelVersion:
    """The immutable identity of a packaged model: content under ``digest``, found at ``uri``."""

    name: str = attrs.field(validator=lambda _i, _a, value: _named(value))
    version: str = attrs.field(validator=lambda _i, _a, value: _versioned(value))
    digest: str = attrs.field(validator=_check_digest)
    uri: str
    """Where the bundle lies: a directory on this machine, or the address that a backend uploaded it to."""
    flavour: str
    signature: Signature

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def _named(value: str) -> None:
    check_name(value, "model name")


def _versioned(value: str) -> None:
    check_version(value)
