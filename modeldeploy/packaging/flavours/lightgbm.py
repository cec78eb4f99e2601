"""LightGBM: its own text format, for the Booster and for the scikit-learn classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.packaging.dependencies import need
from modeldeploy.packaging.flavours.table import Files, Predict, Saved, has_method

_FILE = "model.txt"
_CLASSES = ("Booster", "LGBMClassifier", "LGBMRanker", "LGBMRegressor")


def check_method(model: Any, method: str | None) -> str:
    """Check that the model is fitted, of a class whose answers its text file holds, and has the method."""
    kind = type(model).__name__
    if kind not in _CLASSES or not type(model).__module__.startswith("lightgbm."):
        message = f"{type(model).__module__}.{kind} is not a class that LightGBM restores from its own file"
        raise ConfigurationError(message, hint=f"use one of {list(_CLASSES)}, or wrap the model in a function")
    if kind != "Booster":
        _check_estimator(model)
    return has_method(model, method, {"predict", "predict_proba"})


def _check_estimator(model: Any) -> None:
    if not model.__sklearn_is_fitted__():
        message = f"{type(model).__name__} is not fitted"
        raise ConfigurationError(message, hint="call fit() before you package it")
    if callable(model.get_params().get("objective")):
        message = "a LightGBM model with an objective of its own does not keep it in its file"
        raise ConfigurationError(message, hint="wrap the model in a function that calls predict()")


def container(model: Any, kind: str) -> str:
    """Give it frames or arrays, as its example was."""
    del model
    return "pandas" if kind in {"columns", "records", "arrow", "polars"} else kind


def labels(model: Any) -> tuple[str, ...]:
    """Give no names to an array: its columns go by position."""
    del model
    return ()


def bind(model: Any, *, method: str) -> Predict:
    """Give the model's method."""
    predict: Predict = getattr(model, method)
    return predict


def save(model: Any, *, method: str) -> Saved:
    """Save natively; a classifier's classes, which the text does not hold, go beside it."""
    del method
    booster = model if type(model).__name__ == "Booster" else model.booster_
    text = booster.model_to_string()
    options = {"class": type(model).__name__}
    if options["class"] == "LGBMClassifier":
        options["classes"] = json.dumps(np.asarray(model.classes_).tolist())
    return Saved({_FILE: text.encode()}, options, pickled=False, modules=frozenset({"lightgbm"}))


def load(files: Files, options: Mapping[str, str], *, method: str, trusted: bool) -> Predict:
    """Read the native text; a classifier's answers are put together from the booster's scores."""
    del trusted
    booster = read(files.read(_FILE))
    if options.get("class") != "LGBMClassifier":
        return bind(booster, method="predict")
    classes = np.asarray(json.loads(options["classes"]))
    if method == "predict_proba":
        return lambda table: _probabilities(booster.predict(table))
    return lambda table: classes[_probabilities(booster.predict(table)).argmax(axis=1)]


def _probabilities(scores: NDArray[Any]) -> NDArray[Any]:
    """Give two columns for two classes, as scikit-learn does; the booster gives only the second."""
    return np.stack([1.0 - scores, scores], axis=1) if scores.ndim == 1 else scores


def read(data: bytes) -> Any:
    """Read a model in LightGBM's own text; IntegrityError when it is something else."""
    lightgbm = need("lightgbm")
    try:
        return lightgbm.Booster(model_str=data.decode())
    except (lightgbm.basic.LightGBMError, UnicodeDecodeError) as error:
        message = f"LightGBM cannot read the model: {error}"
        raise IntegrityError(message, hint="pass a file that save_model() wrote") from error
