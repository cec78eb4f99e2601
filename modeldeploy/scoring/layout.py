"""Which columns are read, which go to the model as what, and which are written; every mistake is found here, before the first row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from modeldeploy.errors import ConfigurationError, InvalidRequestError
from modeldeploy.scoring.formats import Format
from modeldeploy.scoring.schemas import LIKELY
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.model import DType, Field, Signature

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN = 8


@attrs.frozen
class Output:
    """A column of predictions: an output of the model, or one place of a vector where the format holds no vectors."""

    column: str
    field: Field
    place: int | None = None


@attrs.frozen(eq=False)
class Layout:
    """The plan of the columns."""

    signature: Signature
    inputs: Mapping[str, tuple[str, ...]]
    """Model input to the columns that make it: one, or several side by side for a vector."""
    read: pa.Schema
    keep: tuple[str, ...]
    outputs: tuple[Output, ...]
    written: pa.Schema
    key: str | None

    @property
    def plain(self) -> bool:
        """Whether the model takes and gives numbers, and what is kept needs no more than Python's own types."""
        from pyarrow import types

        used = {name for names in self.inputs.values() for name in names}
        kept = (types.is_boolean, types.is_string, types.is_large_string, types.is_date)
        return all(
            types.is_integer(each.type)
            or types.is_floating(each.type)
            or (each.name not in used and any(test(each.type) for test in kept))
            for each in self.read
        ) and not any(each.field.dtype is DType.STRING or None in each.field.shape for each in self.outputs)

    @classmethod
    def of(cls, spec: BatchSpec, schema: pa.Schema, *, source: Format, target: Format) -> Layout:
        """Fit the job to the columns of its files; InvalidRequestError or ConfigurationError names the column and the remedy."""
        import pyarrow as pa

        signature = spec.model.signature
        inputs = _bind(spec, schema)
        for field in signature.inputs:
            _check_types(field, inputs[field.name], schema, text=source.kind != "parquet")
        keep = _kept(spec, schema.names)
        outputs = tuple(_outputs(signature, vectors=target.kind != "csv"))
        _check_clash(keep, outputs, spec)
        used = {name for names in inputs.values() for name in names}
        read = _reading(schema, {*keep, *used}, inputs, signature, text=source.kind != "parquet")
        kept = [pa.field(name, read.field(name).type) for name in keep]
        written = pa.schema([*kept, *(pa.field(each.column, arrow_type(each.field, each.place)) for each in outputs)])
        return cls(signature, inputs, read, keep, outputs, written, spec.key)


def _bind(spec: BatchSpec, schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    fields = spec.model.signature.inputs
    unknown = sorted(set(spec.columns) - {field.name for field in fields})
    if unknown:
        message = f"columns= maps {unknown[0]!r}, which is no input of model {str(spec.model)!r}"
        raise ConfigurationError(message, hint=f"its inputs are {_some(field.name for field in fields)}")
    bound = {field.name: _columns_of(field, spec, schema.names) for field in fields}
    for field in fields:
        _check_present(field, bound[field.name], schema.names)
    return bound


def _columns_of(field: Field, spec: BatchSpec, names: list[str]) -> tuple[str, ...]:
    mapped = spec.columns.get(field.name)
    if mapped is not None:
        return tuple(json.loads(mapped)) if mapped.startswith("[") else (mapped,)
    if field.name not in names and _takes_table(field, spec):
        return _side_by_side(field, spec, names)
    return (field.name,)


def _takes_table(field: Field, spec: BatchSpec) -> bool:
    return len(spec.model.signature.inputs) == 1 and len(field.shape) == 1


def _side_by_side(field: Field, spec: BatchSpec, names: list[str]) -> tuple[str, ...]:
    """Take all columns but the key for a model that was fitted on an array; their number must be the array's."""
    others = tuple(name for name in names if name != spec.key)
    if field.shape[0] in {None, len(others)}:
        return others
    message = f"model {str(spec.model)!r} takes an array of {field.shape[0]} columns and the input has {len(others)} besides the key"
    hint = f"say which, in order: columns={{{field.name!r}: [...]}}; there are {_some(others)}"
    raise InvalidRequestError(message, field=field.name, hint=hint)


def _check_present(field: Field, columns: tuple[str, ...], names: list[str]) -> None:
    missing = next((column for column in columns if column not in names), None)
    if missing is not None:
        what = f"column {missing!r}" + (f" (for the model's {field.name!r})" if missing != field.name else "")
        hint = f"there are {_some(names)}; map it with columns={{{field.name!r}: ...}}"
        message = f"{what} is missing from the input"
        raise InvalidRequestError(message, field=missing, hint=hint)
    if len(columns) > 1 and field.shape not in {(None,), (len(columns),)}:
        message = f"{len(columns)} columns are given for the model's {field.name!r} of shape {field.shape}"
        raise InvalidRequestError(message, field=field.name, hint="name as many columns as it has places")


def _check_types(field: Field, columns: tuple[str, ...], schema: pa.Schema, *, text: bool) -> None:
    """Refuse a column whose type can never fit; in text, one where most values do not (the others are bad rows)."""
    for column in columns:
        kind = schema.field(column).type
        likely = (schema.field(column).metadata or {}).get(LIKELY, b"").decode() if text else ""
        if likely and field.dtype is not DType.STRING and not (field.shape and len(columns) == 1):
            fits = likely in _allowed(field)
        else:
            fits = _fits(kind, field, vector=len(columns) == 1, text=text)
        if not fits:
            wanted = field.dtype.value + (f" of shape {field.shape}" if field.shape else "")
            shown = f"{kind} (mostly)" if text else str(kind)
            message = f"column {column!r} has type {shown}, which does not fit the model's {field.name!r} ({wanted})"
            raise InvalidRequestError(message, field=column, hint="give it the type that the model was packaged with")


def _allowed(field: Field) -> set[str]:
    kind = "string" if field.dtype is DType.STRING else field.dtype.value.strip("u0123456789")
    return {kind, "null", *(["int"] if kind == "float" else [])}


def _fits(kind: Any, field: Field, *, vector: bool, text: bool) -> bool:
    if field.shape and vector:
        for _dimension in field.shape:
            if _kind(kind) != "list":
                return False
            kind = kind.value_type
    # What looks like numbers or flags in a text file is text where text is wanted.
    readable = text and field.dtype is DType.STRING and not field.shape and _kind(kind) != "list"
    return readable or _kind(kind) in _allowed(field)


def _kind(kind: Any) -> str:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    tests = {
        "null": types.is_null,
        "bool": types.is_boolean,
        "int": types.is_integer,
        "float": lambda each: types.is_floating(each) or types.is_decimal(each),
        "string": lambda each: types.is_string(each) or types.is_large_string(each) or types.is_string_view(each),
        "list": lambda each: types.is_list(each) or types.is_large_list(each) or types.is_fixed_size_list(each),
    }
    return next((name for name, test in tests.items() if test(kind)), "other")


def _kept(spec: BatchSpec, names: list[str]) -> tuple[str, ...]:
    if spec.key is not None and spec.key not in names:
        message = f"key column {spec.key!r} is missing from the input"
        raise InvalidRequestError(message, field=spec.key, hint=f"there are {_some(names)}")
    if spec.keep is None:
        return tuple(names)
    unknown = next((name for name in spec.keep if name not in names), None)
    if unknown is not None:
        message = f"keep= names column {unknown!r}, which is missing from the input"
        raise ConfigurationError(message, hint=f"there are {_some(names)}")
    key = [spec.key] if spec.key is not None else []
    return tuple(dict.fromkeys([*key, *spec.keep]))


def _outputs(signature: Signature, *, vectors: bool) -> Iterable[Output]:
    for field in signature.outputs:
        size = field.shape[0] if len(field.shape) == 1 else None
        if vectors or size is None:
            yield Output(field.name, field)
        else:
            yield from (Output(f"{field.name}_{place}", field, place) for place in range(size))


def _check_clash(keep: tuple[str, ...], outputs: tuple[Output, ...], spec: BatchSpec) -> None:
    clash = next((each.column for each in outputs if each.column in keep), None)
    if clash is not None:
        message = f"input column {clash!r} and prediction column {clash!r} have the same name"
        rest = [name for name in keep if name != clash]
        hint = (
            f"leave the input column out with keep={rest!r}"
            if clash != spec.key
            else "rename the key column in the input"
        )
        raise ConfigurationError(message, hint=hint)


def _reading(
    schema: pa.Schema, names: set[str], inputs: Mapping[str, tuple[str, ...]], signature: Signature, *, text: bool
) -> pa.Schema:
    import pyarrow as pa

    # In text, and where there is no value at all, the type is what the model needs.
    wide = {
        name: _widest(field)
        for field in signature.inputs
        for name in inputs[field.name]
        if not (field.shape and len(inputs[field.name]) == 1)
    }
    return pa.schema(
        [
            pa.field(each.name, wide[each.name])
            if each.name in wide and (text or pa.types.is_null(each.type))
            else pa.field(each.name, _decoded(each.type))
            for each in schema
            if each.name in names
        ]
    )


def _decoded(kind: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return kind.value_type
    return pa.string() if pa.types.is_null(kind) else kind


def _widest(field: Field) -> Any:
    """Give the type in which text is read for a model input; the signature's check narrows it without loss."""
    import pyarrow as pa

    if field.dtype in {DType.STRING, DType.BOOL}:
        return pa.string() if field.dtype is DType.STRING else pa.bool_()
    if field.dtype is DType.UINT64:
        return pa.uint64()
    return pa.float64() if field.dtype.value.startswith("float") else pa.int64()


def arrow_type(field: Field, place: int | None = None) -> pa.DataType:
    """Give the type of a column of predictions."""
    import pyarrow as pa

    kind = pa.string() if field.dtype is DType.STRING else pa.from_numpy_dtype(field.dtype.value)
    if place is not None:
        return kind
    for size in reversed(field.shape):
        kind = pa.list_(kind) if size is None else pa.list_(kind, size)
    return kind


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return f"{listed[:_SHOWN]}{more}"
