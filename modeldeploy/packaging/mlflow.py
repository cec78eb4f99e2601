"""MLflow model directories, read without importing mlflow: their files are the libraries' own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import attrs

from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.packaging import foreign
from modeldeploy.packaging.dependencies import need
from modeldeploy.packaging.flavours.table import Saved
from modeldeploy.packaging.foreign import Foreign

_MAX_MLMODEL = 1 << 20


@attrs.frozen
class _Source:
    """One flavour of an MLflow model, with what the caller asked for."""

    root: Path
    entry: Mapping[str, Any]
    method: str | None
    trust: Collection[str]

    def file(self, key: str, default: str) -> Path:
        """Find a file that the entry names; IntegrityError when it lies outside of the model."""
        name = str(self.entry.get(key, default))
        path = self.root / name
        if "\\" in name or not path.resolve().is_relative_to(self.root.resolve()):
            message = f"the MLflow model in {str(self.root)!r} names {name!r}, which lies outside of it"
            raise IntegrityError(message, hint="the model is damaged or hostile; log it again")
        return path


def read(root: Path, *, method: str | None, trust: Collection[str]) -> Foreign:
    """Read the first flavour that we know; ConfigurationError says why there is none."""
    flavours = _flavours(root)
    for name, reader in _READERS.items():
        entry = flavours.get(name)
        if isinstance(entry, Mapping):
            return reader(_Source(root, entry, method, trust))
    generic = flavours.get("python_function")
    loader = generic.get("loader_module") if isinstance(generic, Mapping) else None
    message = f"the MLflow model in {str(root)!r} has the flavours {sorted(map(str, flavours))} (loader {loader!r}), none of which is read here"
    raise ConfigurationError(message, hint="load it with mlflow and pass it to Model(...) inside a function")


def _flavours(root: Path) -> Mapping[str, Any]:
    path = root / "MLmodel"
    text = path.read_bytes()[: _MAX_MLMODEL + 1]
    yaml = need("yaml")
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        message = f"{str(path)!r} is not YAML: {error}"
        raise IntegrityError(message, hint="the model is damaged; log it again") from error
    flavours = document.get("flavors") if isinstance(document, Mapping) else None
    if not isinstance(flavours, Mapping):
        message = f"{str(path)!r} has no table 'flavors'"
        raise IntegrityError(message, hint="the model is damaged; log it again")
    return flavours


def _sklearn(source: _Source) -> Foreign:
    path = source.file("pickled_model", "model.pkl")
    if source.entry.get("serialization_format") == "skops" or path.suffix == ".skops":
        return foreign.skops(path, source.method, source.trust)
    return attrs.evolve(foreign.pickle(path, source.method, source.trust), flavour="sklearn")


def _xgboost(source: _Source) -> Foreign:
    path = source.file("data", "model.ubj")
    if path.suffix == ".xgb":
        message = f"{str(path)!r} is in XGBoost's old binary format"
        raise ConfigurationError(message, hint="log the model again with model_format='ubj'")
    return foreign.xgboost(path, source.method, source.trust)


def _lightgbm(source: _Source) -> Foreign:
    path = source.file("data", "model.lgb")
    if path.suffix == ".pkl":
        return foreign.pickle(path, source.method, source.trust)
    return foreign.lightgbm(path, source.method, source.trust)


def _onnx(source: _Source) -> Foreign:
    return foreign.onnx(source.file("data", "model.onnx"), source.method, source.trust)


def _torch(source: _Source) -> Foreign:
    path = source.file("model_data", "data") / "model.pth"
    data = foreign.vouched(foreign.read_bytes(path), path, source.trust, "is a pickled torch module")
    saved = Saved({"model.pth": data}, {"format": "whole"}, pickled=True, modules=frozenset({"torch"}))
    return Foreign("torch", source.method or "__call__", saved)


# The native formats first: a model often has python_function beside its own flavour.
_READERS: dict[str, Callable[[_Source], Foreign]] = {
    "onnx": _onnx,
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
    "sklearn": _sklearn,
    "pytorch": _torch,
}
