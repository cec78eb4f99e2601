"""The skops file format: estimators without pickle, made the same bytes in every process."""

from __future__ import annotations

import importlib
import io
import json
import sys
import types as python_types
import zipfile
from collections.abc import Sequence
from typing import Any

from modeldeploy.errors import IntegrityError
from modeldeploy.packaging.dependencies import need
from modeldeploy.packaging.flavours import lean, pickles

_SAFE_PACKAGES = ("sklearn.", "scipy.")
_HAVE_UFUNCS = ("numpy", "scipy.special")
_EPOCH = (1980, 1, 1, 0, 0, 0)
# skops imports every module of scikit-learn to list its estimators, and these in turn import whole frameworks: 1.9 s with torch
# installed, 0.3 s without (skops 0.16, scikit-learn 1.9). They hold no estimators.
_HEAVY = tuple(f"sklearn.externals.array_api_compat.{name}" for name in ("cupy", "dask", "torch"))


def preload(*, lean: bool = False) -> Any:
    """Import skops, without the frameworks that it does not need, and give its module; a server does so before its first model.

    ``lean`` leaves out skops's lists of what it trusts, scikit-learn's estimators and the ufuncs of numpy and SciPy, which take 0.7 s to make,
    and what scikit-learn imports and does not need to predict. All of these are then among the types that skops asks about, and ``is_safe``
    answers. For processes that load models and nothing else: skops itself trusts less in them.
    """
    if "skops.io" in sys.modules:
        return sys.modules["skops.io"]
    stubs = {name: _stub(name) for name in _HEAVY if name not in sys.modules}
    sys.modules.update(stubs)
    try:
        return _lean() if lean else need("skops.io")
    finally:
        for name in stubs:
            sys.modules.pop(name, None)


def _lean() -> Any:
    try:
        with lean.imports():
            return lean.skops()
    except Exception:  # noqa: BLE001 - other versions, which want more than they are given; whatever else is wrong shows again
        for name in [name for name in sys.modules if name.partition(".")[0] == "skops"]:
            del sys.modules[name]
        return need("skops.io")


def _stub(name: str) -> python_types.ModuleType:
    module = python_types.ModuleType(name)
    module.__path__ = []
    return module


def loads(data: bytes, types: Sequence[str]) -> Any:
    """Build the estimator; ``types`` are the names beyond skops's own that may be built."""
    return preload().loads(data, trusted=list(types))


def untrusted(data: bytes) -> list[str]:
    """Name the types in the file that skops itself does not hold safe; IntegrityError when it is no such file."""
    try:
        return list(preload().get_untrusted_types(data=data))
    except (ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        message = f"the estimator's file cannot be read: {type(error).__name__}: {error}"
        raise IntegrityError(message, hint="it is damaged or was changed; package the model again") from error


def is_safe(name: str) -> bool:
    """Whether a type may be built without trust: a class of scikit-learn or SciPy, or a ufunc that skops itself holds safe.

    Any other function could be called later with anything.
    """
    module, _dot, attribute = name.rpartition(".")
    if _is_public_ufunc(module, attribute):
        return True
    if not name.startswith(_SAFE_PACKAGES):
        return False
    try:
        return isinstance(getattr(importlib.import_module(module), attribute, None), type)
    except ImportError:
        return False


def _is_public_ufunc(module: str, name: str) -> bool:
    if not module.startswith(_HAVE_UFUNCS):
        return False
    import numpy as np

    places = (np, need("scipy.special"))
    # Only where it is now: what a file names is not imported to be looked at.
    found = getattr(sys.modules.get(module), name, None)
    return isinstance(found, np.ufunc) and any(getattr(place, name, None) is found for place in places)


def dumps(model: Any) -> bytes | None:
    """Save without pickle, or None when that is not possible or would leave code of the notebook behind."""
    skops = preload()
    try:
        data = _normalised(skops.dumps(model))
        types = skops.get_untrusted_types(data=data)
        if any(pickles.is_local(name.rpartition(".")[0]) for name in types):
            return None
        skops.loads(data, trusted=types)
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
        # The text vectorizers keep the address of their list of stop words, only to warn about it once.
        if isinstance(node.get("_stop_words_id"), dict):
            node["_stop_words_id"]["content"] = "0"
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
