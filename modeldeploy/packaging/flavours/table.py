"""The flavours: what each must do, and which one an object belongs to."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol, TypeAlias, cast

import attrs

from modeldeploy.errors import ConfigurationError

Predict: TypeAlias = Callable[[Any], Any]
"""From the model's own container to its raw answer."""


@attrs.frozen
class Saved:
    """A model as files, with what is needed to read them again."""

    files: Mapping[str, bytes]
    options: Mapping[str, str]
    pickled: bool
    modules: frozenset[str]
    """The top-level modules that loading or predicting imports."""
    trusted: bool = False
    """Whether loading names types that only a trusted digest may load, though nothing is pickled."""


@attrs.frozen
class Files:
    """The files of a model; every read gives exactly the bytes that were checked."""

    paths: Mapping[str, str]
    reader: Callable[[str], bytes]

    @classmethod
    def of(cls, files: Mapping[str, bytes]) -> Files:
        """Take files from memory."""
        return cls({name: name for name in files}, lambda name: files[name])

    def read(self, name: str) -> bytes:
        """Read one file; IntegrityError when it is not what was recorded."""
        return self.reader(self.paths.get(name, name))


class Flavour(Protocol):
    """A module that saves, loads and calls one family of models."""

    def save(self, model: Any, *, method: str) -> Saved:
        """Write the model as files, without pickle where that is possible."""
        ...

    def load(self, files: Files, options: Mapping[str, str], *, method: str, trusted: bool) -> Predict:
        """Read the files again; code that they hold runs only when ``trusted``."""
        ...

    def bind(self, model: Any, *, method: str) -> Predict:
        """Give the same function for the model in memory."""
        ...

    def check_method(self, model: Any, method: str | None) -> str:
        """Say what is called for a prediction; ConfigurationError when the model does not have it."""
        ...

    def container(self, model: Any, kind: str) -> str:
        """Say what the model is given when its example came as ``kind``."""
        ...

    def labels(self, model: Any) -> tuple[str, ...]:
        """Name the columns of an array, or the array itself, as the model knows them; empty when it has no names."""
        ...


_MODULES = {
    "function": "modeldeploy.packaging.flavours.function",
    "lightgbm": "modeldeploy.packaging.flavours.lightgbm",
    "onnx": "modeldeploy.packaging.flavours.onnx",
    "sklearn": "modeldeploy.packaging.flavours.sklearn",
    "torch": "modeldeploy.packaging.flavours.torch",
    "xgboost": "modeldeploy.packaging.flavours.xgboost",
}
# Where the classes of a model come from decides; the first match wins, since XGBClassifier is a scikit-learn estimator too.
_BY_PACKAGE = (
    ("xgboost", "xgboost"),
    ("lightgbm", "lightgbm"),
    ("torch", "torch"),
    ("onnx", "onnx"),
    ("sklearn", "sklearn"),
)


def names() -> tuple[str, ...]:
    """Name every flavour."""
    return tuple(_MODULES)


def find(name: str) -> Flavour:
    """Import the flavour of this name; ConfigurationError when there is none."""
    module = _MODULES.get(name)
    if module is None:
        message = f"flavour {name!r} is not known"
        raise ConfigurationError(message, hint=f"known are {sorted(_MODULES)}; a newer modeldeploy may know it")
    return cast("Flavour", importlib.import_module(module))


def detect(model: object) -> str:
    """Say which flavour an object belongs to, without importing anything; ConfigurationError when it is not a model."""
    if isinstance(model, str | os.PathLike):
        message = f"{str(model)!r} is a path, not a model"
        raise ConfigurationError(
            message, hint=f"use Model.from_path({str(model)!r}, name=..., version=..., example=...)"
        )
    if isinstance(model, bytes | bytearray):
        return "onnx"
    packages = packages_of(type(model))
    for package, flavour in _BY_PACKAGE:
        if package in packages:
            return flavour
    if callable(model) or callable(getattr(model, "predict", None)):
        return "function"
    message = f"a {type(model).__module__}.{type(model).__qualname__} is not a model"
    raise ConfigurationError(
        message, hint="pass a fitted estimator, a torch module, an ONNX model, a function or an object with predict()"
    )


def packages_of(cls: type) -> set[str]:
    """Name the top-level packages that a class and its bases come from."""
    return {base.__module__.partition(".")[0] for base in cls.__mro__}


def has_method(model: object, method: str | None, allowed: Collection[str]) -> str:
    """Return the method to call, ``predict`` unless another is asked for; ConfigurationError when the model lacks it."""
    wanted = method or "predict"
    if wanted not in allowed:
        message = f"method {wanted!r} is not one of {sorted(allowed)}"
        raise ConfigurationError(message, hint="choose one of them, or wrap the call in a function")
    if not callable(getattr(model, wanted, None)):
        message = f"{type(model).__name__} has no {wanted}()"
        raise ConfigurationError(
            message, hint="choose another method=, or set the option of the estimator that enables it"
        )
    return wanted
