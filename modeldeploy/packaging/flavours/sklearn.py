"""scikit-learn estimators and pipelines: skops where it can, a pickle of our own where it cannot."""

from __future__ import annotations

import importlib
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.packaging.dependencies import need
from modeldeploy.packaging.flavours import pickles
from modeldeploy.packaging.flavours.table import Files, Predict, Saved, has_method
from modeldeploy.packaging.outputs import NAMES

_SKOPS = "model.skops"
_PICKLE = "model.pkl"
_SAFE_PACKAGES = ("sklearn.", "scipy.")
_EPOCH = (1980, 1, 1, 0, 0, 0)


def check_method(model: Any, method: str | None) -> str:
    """Check that the estimator is fitted and has the method."""
    wanted = has_method(model, method, NAMES)
    validation = need("sklearn.utils.validation")
    try:
        validation.check_is_fitted(model)
    except need("sklearn.exceptions").NotFittedError as error:
        message = f"{type(model).__name__} is not fitted"
        raise ConfigurationError(message, hint="call fit() before you package it") from error
    except TypeError as error:
        message = f"{type(model).__name__} is not a scikit-learn estimator: {error}"
        raise ConfigurationError(
            message, hint="pass the fitted estimator itself, not its class or its module"
        ) from error
    return wanted


def container(model: Any, kind: str) -> str:
    """Keep frames for an estimator fitted with column names, and arrays for one that was not."""
    named = getattr(model, "feature_names_in_", None) is not None
    if named and kind in {"array", "columns", "records", "arrow"}:
        return "pandas"
    if (
        not named
        and kind in {"pandas", "polars", "columns", "arrow"}
        and getattr(model, "n_features_in_", None) is not None
    ):
        return "matrix"
    return kind


def bind(model: Any, *, method: str) -> Predict:
    """Give the estimator's own method."""
    predict: Predict = getattr(model, method)
    return predict


def save(model: Any, *, method: str) -> Saved:
    """Save with skops; an estimator with code of the notebook, or that skops does not know, is pickled."""
    del method
    data = _skops(model)
    if data is None:
        data = pickles.dumps(model)
        modules = pickles.modules_in(data) | {"sklearn", "cloudpickle"}
        return Saved({_PICKLE: data}, {"format": "pickle"}, pickled=True, modules=modules)
    untrusted = _untrusted(data)
    odd = [name for name in untrusted if not _is_safe(name)]
    options = {"format": "skops", "types": ",".join(untrusted)}
    modules = {"sklearn", "skops", "numpy"} | {name.partition(".")[0] for name in untrusted}
    return Saved({_SKOPS: data}, options, pickled=False, modules=frozenset(modules), trusted=bool(odd))


def load(files: Files, options: Mapping[str, str], *, method: str, trusted: bool) -> Predict:
    """Load; without trust skops builds only classes of scikit-learn and SciPy, beside what skops itself holds safe."""
    need("sklearn")
    if options.get("format") == "pickle":
        if not trusted:
            message = "a pickled estimator is loaded only when its digest is trusted"
            raise IntegrityError(message, hint="pass trust= with the bundle's digest")
        return bind(pickles.loads(files.read(_PICKLE)), method=method)
    data = files.read(_SKOPS)
    # Read from the bytes themselves: what the manifest says about them proves nothing.
    untrusted = _untrusted(data)
    odd = [name for name in untrusted if not trusted and not _is_safe(name)]
    if odd:
        message = f"the estimator holds types that only a trusted bundle may load: {odd[:5]}"
        raise IntegrityError(message, hint="if you know where it comes from, pass trust= with the bundle's digest")
    return bind(need("skops.io").loads(data, trusted=untrusted), method=method)


def _untrusted(data: bytes) -> list[str]:
    try:
        return list(need("skops.io").get_untrusted_types(data=data))
    except (ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        message = f"the estimator's file cannot be read: {type(error).__name__}: {error}"
        raise IntegrityError(message, hint="it is damaged or was changed; package the model again") from error


def _is_safe(name: str) -> bool:
    """Whether a type may be built without trust: a class of scikit-learn or SciPy. A function could be called later with anything."""
    if not name.startswith(_SAFE_PACKAGES):
        return False
    module, _dot, attribute = name.rpartition(".")
    try:
        return isinstance(getattr(importlib.import_module(module), attribute, None), type)
    except ImportError:
        return False


def _skops(model: Any) -> bytes | None:
    """Save without pickle, or None when that is not possible or would leave code of the notebook behind."""
    skops = need("skops.io")
    try:
        data = _normalised(skops.dumps(model))
        untrusted = skops.get_untrusted_types(data=data)
        if any(pickles.is_local(name.rpartition(".")[0]) for name in untrusted):
            return None
        skops.loads(data, trusted=untrusted)
    except Exception:  # noqa: BLE001 - skops raises whatever the estimator's own state does; the pickle is checked instead
        return None
    return data


def _normalised(data: bytes) -> bytes:
    """Give the same bytes in every process: skops names objects by their address and stamps the time."""
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    schema = json.loads(parts.pop("schema.json"))
    names = _Names()
    names.visit(schema)
    files = {names.files[name]: parts[name] for name in names.files}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name in sorted(files):
            target.writestr(zipfile.ZipInfo(name, _EPOCH), files[name], zipfile.ZIP_DEFLATED, 6)
        target.writestr(zipfile.ZipInfo("schema.json", _EPOCH), json.dumps(schema), zipfile.ZIP_DEFLATED, 6)
    return buffer.getvalue()


class _Names:
    """New names in the order of the schema for the object ids and file names in it."""

    def __init__(self) -> None:
        self.ids: dict[int, int] = {}
        self.files: dict[str, str] = {}
        self._next = 0

    def visit(self, node: Any) -> None:
        if isinstance(node, list):
            for item in node:
                self.visit(item)
        elif isinstance(node, dict):
            self._visit_node(node)

    def _visit_node(self, node: dict[str, Any]) -> None:
        if node.get("__loader__") == "SetNode":
            node["content"].sort(key=lambda item: str(item.get("content")))
        if isinstance(node.get("__id__"), int):
            node["__id__"] = self._id(node)
        if isinstance(node.get("file"), str):
            old = node["file"]
            _stem, _dot, suffix = old.rpartition(".")
            node["file"] = self.files.setdefault(old, f"{len(self.files)}.{suffix}")
        for key, value in node.items():
            if key not in {"__id__", "file"}:
                self.visit(value)

    def _id(self, node: dict[str, Any]) -> int:
        # Equal small values share an address by the interpreter's choice; only real objects are shared by the model's.
        if node.get("__loader__") == "JsonNode":
            self._next += 1
            return self._next
        if node["__id__"] not in self.ids:
            self._next += 1
            self.ids[node["__id__"]] = self._next
        return self.ids[node["__id__"]]
