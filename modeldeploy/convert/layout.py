"""How a table goes into the graph: as one array of floats, or each column by itself."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np

from modeldeploy.errors import ConversionError
from modeldeploy.packaging.manifest import Manifest
from modeldeploy.packaging.signature import INPUT
from modeldeploy.values.model import DType, Field

_TABLES = frozenset({"pandas", "polars", "columns", "arrow"})


@attrs.frozen
class Feed:
    """One input of a graph: ``width`` values of a row, 0 for a single one."""

    name: str
    text: bool
    width: int = 0


@attrs.frozen
class Layout:
    """The inputs of a graph, and the container that the ONNX model is given."""

    container: str
    feeds: tuple[Feed, ...]


def of(manifest: Manifest, *, by_name: bool) -> Layout:
    """Lay out the inputs for a model that was packaged; ``by_name`` when parts of it choose their columns by name.

    Numbers are one array of float32 wherever that is possible: one input is far quicker to fill than thirty.
    """
    fields = manifest.signature.inputs
    if manifest.container == "array":
        return Layout("array", (_array(fields[0]),))
    if manifest.container not in {*_TABLES, "matrix"}:
        message = f"the model takes {manifest.container}, which ONNX does not know"
        raise ConversionError(message, hint="fit it with an array or a data frame")
    text = [field.dtype is DType.STRING for field in fields]
    if not any(text) and not (by_name and manifest.container in _TABLES):
        return Layout("matrix", (Feed(INPUT, text=False, width=len(fields)),))
    if manifest.container == "matrix" and all(text):
        return Layout("matrix", (Feed(INPUT, text=True, width=len(fields)),))
    return Layout("columns", tuple(Feed(each.name, text=is_text) for each, is_text in zip(fields, text, strict=True)))


def _array(field: Field) -> Feed:
    if len(field.shape) > 1 or None in field.shape:
        message = f"the model takes arrays of shape {field.shape} in each row"
        raise ConversionError(message, hint="flatten them to one axis before the model")
    width = (field.shape[0] or 0) if field.shape else 0
    return Feed(field.name, text=field.dtype is DType.STRING, width=width)


def refuse_text(manifest: Manifest, family: str) -> None:
    """Refuse a booster with columns of text: its categories are not in what the converter reads."""
    named = [field.name for field in manifest.signature.inputs if field.dtype is DType.STRING]
    if named:
        message = f"{family} holds the categories of {named[:5]} by itself, and its converter does not read them"
        raise ConversionError(
            message, hint="encode them in a scikit-learn pipeline before the model, such as OneHotEncoder"
        )


def parts(estimator: Any) -> list[Any]:
    """List an estimator and what it is made of, however deep, fitted parts included."""
    found, waiting, seen = [], [estimator], set[int]()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, list | tuple) or (isinstance(each, np.ndarray) and each.dtype == object):
            waiting += list(each)
        elif hasattr(each, "get_params"):
            found.append(each)
            waiting += list(vars(each).values())
    return found
