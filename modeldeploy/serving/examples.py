"""A right request for one model, shown to whoever sent a wrong one."""

from __future__ import annotations

from typing import Any

import orjson

from modeldeploy.values.model import DType, Field, Signature

_SHOWN = 400


def instances(signature: Signature) -> str:
    """Show the JSON of one row, cut to what fits an error message."""
    fields = signature.inputs
    row = _value(fields[0]) if len(fields) == 1 else {field.name: _value(field) for field in fields}
    text = orjson.dumps({"instances": [row]}).decode()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def csv_row(signature: Signature) -> str:
    """Show one line of CSV."""
    cells = [cell for field in signature.inputs for cell in _flat(_value(field))]
    text = ",".join(str(cell) for cell in cells)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _value(field: Field) -> Any:
    value: Any = _SAMPLES.get(field.dtype, 1 if "int" in field.dtype.value else 0.5)
    for size in reversed(field.shape):
        value = [value] * (size or 1)
    return value


_SAMPLES = {DType.STRING: "text", DType.BOOL: True}


def _flat(value: Any) -> list[Any]:
    return [cell for part in value for cell in _flat(part)] if isinstance(value, list) else [value]
