"""The instances of a batch prediction job: read from files, and made what the model is sent."""

from __future__ import annotations

import csv
import fnmatch
import io
from collections.abc import Iterator
from typing import Any

import attrs
import orjson

from modeldeploy.simulate.vertex.errors import ServiceError, invalid
from modeldeploy.simulate.vertex.objects import Object, Objects, place_of

_WILD = frozenset("*?[")


@attrs.frozen
class Row:
    """One instance: what the output calls it, and what the model is sent; or why it cannot be sent."""

    told: dict[str, Any]
    instance: Any = None
    error: str = ""


def files(objects: Objects, uri: str) -> list[Object]:
    """Find the files that a URI means, which may have wildcards; an error when there are none."""
    bucket, name = place_of(uri)
    if _WILD.isdisjoint(name):
        there = objects.find(bucket, name)
        found = [] if there is None else [there]
    else:
        prefix = name[: min(name.index(each) for each in _WILD if each in name)]
        found = [each for each in objects.under(bucket, prefix) if fnmatch.fnmatchcase(each.name, name)]
    if not found:
        raise ServiceError("NOT_FOUND", f"No files found for: {uri}")
    return found


def rows(file: Object, form: str, config: Any) -> Iterator[Row]:
    """Read the rows of a file; an error when it is not what its format says."""
    data = file.file.read_bytes()
    if form == "csv":
        yield from _table(data, file, config)
        return
    for line in data.split(b"\n"):
        if line.strip():
            yield _line(line, config)


def _line(line: bytes, config: Any) -> Row:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        text = line.decode("utf-8", "replace")
        return Row({"instance": text}, error=f"The line is not valid JSON: {error}")
    return _object(value, config) if isinstance(value, dict) else _plain(value, config)


def _plain(value: Any, config: Any) -> Row:
    """Take a line that is no object, which is sent as it is."""
    told = {"instance": value}
    if config.key_field or config.included_fields or config.excluded_fields or config.instance_type == "object":
        return Row(told, error="The line must be a JSON object.")
    return Row(told, value)


def _object(value: dict[str, Any], config: Any) -> Row:
    key = config.key_field
    if key and key not in value:
        return Row({"instance": value}, error=f"The instance has no key field {key!r}.")
    told = {"key": value[key]} if key else {"instance": value}
    included = list(config.included_fields) or [each for each in value if each not in {key, *config.excluded_fields}]
    missing = [each for each in included if each not in value]
    if missing:
        return Row(told, error=f"The instance has no field {missing[0]!r}.")
    if config.instance_type == "array":
        return _array(value, told, included, config)
    return Row(told, {each: value[each] for each in included})


def _array(value: dict[str, Any], told: dict[str, Any], included: list[str], config: Any) -> Row:
    if not config.included_fields:
        return Row(told, error="included_fields must be set where objects are sent as arrays.")
    return Row(told, [value[each] for each in included])


def _table(data: bytes, file: Object, config: Any) -> Iterator[Row]:
    """Read a table with a header, each row of which is sent as an array."""
    try:
        lines = csv.reader(io.StringIO(data.decode("utf-8-sig")), strict=True)
        header = next(lines, [])
        found = [each for each in lines if each]
    except (csv.Error, UnicodeDecodeError) as error:
        raise invalid(f"gs://{file.bucket}/{file.name} is not csv: {error}") from error
    key = config.key_field
    if key and key not in header:
        raise invalid(f"gs://{file.bucket}/{file.name} has no column {key!r}, which is the key field.")
    for each in found:
        yield _cells(header, each, key)


def _cells(header: list[str], cells: list[str], key: str) -> Row:
    values = [_value(each) for each in cells]
    if len(cells) != len(header):
        return Row({"instance": values}, error=f"The row has {len(cells)} columns, and the header {len(header)}.")
    if not key:
        return Row({"instance": values}, values)
    place = header.index(key)
    return Row({"key": values[place]}, values[:place] + values[place + 1 :])


def _value(cell: str) -> int | float | str:
    """Read a cell: a number where it is one, and text otherwise."""
    for kind in (int, float):
        try:
            number = kind(cell)
        except ValueError:
            continue
        # JSON has neither infinities nor the spellings with underscores that Python reads.
        return number if "_" not in cell and cell.strip().lower().lstrip("+-")[:1] not in {"i", "n"} else cell
    return cell
