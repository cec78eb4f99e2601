"""XGBoost: its own binary JSON, for the Booster and for the scikit-learn classes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.packaging.dependencies import need
from modeldeploy.packaging.flavours.table import Files, Predict, Saved, has_method

_FILE = "model.ubj"
_CLASSES = ("XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor", "XGBRanker")
_BOOSTER = "Booster"


def check_method(model: Any, method: str | None) -> str:
    """Check that the model is fitted, of a class that XGBoost itself can restore, and has the method."""
    kind = type(model).__name__
    if kind not in {*_CLASSES, _BOOSTER} or not type(model).__module__.startswith("xgboost."):
        message = f"{type(model).__module__}.{kind} is not a class that XGBoost restores from its own file"
        raise ConfigurationError(message, hint=f"use one of {[_BOOSTER, *_CLASSES]}, or wrap the model in a function")
    if kind != _BOOSTER and not model.__sklearn_is_fitted__():
        message = f"{kind} is not fitted"
        raise ConfigurationError(message, hint="call fit() before you package it")
    return has_method(model, method, {"predict", "predict_proba"})


def container(model: Any, kind: str) -> str:
    """Give it frames where the example has column names, since it checks them; arrays otherwise."""
    del model
    return "pandas" if kind in {"columns", "records", "arrow", "polars"} else kind


def labels(model: Any) -> tuple[str, ...]:
    """Give no names to an array: its columns go by position."""
    del model
    return ()


def bind(model: Any, *, method: str) -> Predict:
    """Give the model's method; a Booster gets its table as the matrix it wants."""
    if type(model).__name__ != _BOOSTER:
        predict: Predict = getattr(model, method)
        return predict
    matrix = need("xgboost").DMatrix
    # An array has no names to compare with those that the Booster was trained with.
    return lambda table: model.predict(
        matrix(table, enable_categorical=True), validate_features=hasattr(table, "columns")
    )


def save(model: Any, *, method: str) -> Saved:
    """Save natively; nothing is pickled."""
    del method
    kind = type(model).__name__
    with tempfile.TemporaryDirectory(prefix="modeldeploy-") as folder:
        path = Path(folder) / _FILE
        # Only save_model to a file keeps what the scikit-learn classes know beside the trees.
        model.save_model(path)
        data = path.read_bytes()
    modules = {"xgboost"} | (set() if kind == _BOOSTER else {"sklearn"})
    return Saved({_FILE: data}, {"class": kind}, pickled=False, modules=frozenset(modules))


def load(files: Files, options: Mapping[str, str], *, method: str, trusted: bool) -> Predict:
    """Read the native file."""
    del trusted
    kind = options.get("class", _BOOSTER)
    if kind not in {*_CLASSES, _BOOSTER}:
        message = f"class {kind!r} is not one of XGBoost's"
        raise IntegrityError(message, hint="the bundle was changed; package the model again")
    return bind(read(files.read(_FILE), kind), method=method)


def read(data: bytes, kind: str) -> Any:
    """Read a model in XGBoost's own JSON or binary JSON; IntegrityError when it is something else."""
    xgboost = need("xgboost")
    model = getattr(xgboost, kind)()
    try:
        model.load_model(bytearray(data))
    except (xgboost.core.XGBoostError, UnicodeDecodeError) as error:
        # It reads the bytes as text when they begin like neither of its formats, or to say what was wrong with them.
        message = f"XGBoost cannot read the model: {str(error).splitlines()[0]}"
        raise IntegrityError(message, hint="pass a file that save_model() wrote as .ubj or .json") from error
    return model


def kind_of(data: bytes) -> str:
    """Say which class wrote a native file: the scikit-learn classes leave a note in it."""
    note = read(data, _BOOSTER).attr("scikit_learn") or ""
    if "classifier" in note:
        return "XGBClassifier"
    return "XGBRegressor" if "regressor" in note else _BOOSTER
