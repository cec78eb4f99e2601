"""Plain Python: a function of a table, or an object or class with ``predict``. Its code goes into the bundle."""

from __future__ import annotations

import inspect
import io
from collections.abc import Mapping
from typing import Any

from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.packaging.dependencies import need
from modeldeploy.packaging.flavours import pickles
from modeldeploy.packaging.flavours.table import Files, Predict, Saved

_PICKLE = "model.pkl"
_CALL = "__call__"


def check_method(model: Any, method: str | None) -> str:
    """Call ``predict`` where there is one, else the function itself."""
    if method is not None and not callable(getattr(model, method, None)):
        message = f"{_name(model)} has no {method}()"
        raise ConfigurationError(message, hint="leave method= out, or add the method")
    _refuse_odd(model)
    if method is not None:
        return method
    return "predict" if callable(getattr(model, "predict", None)) else _CALL


def container(model: Any, kind: str) -> str:
    """Give it what its example was."""
    del model
    return kind


def labels(model: Any) -> tuple[str, ...]:
    """Give no names to an array."""
    del model
    return ()


def bind(model: Any, *, method: str) -> Predict:
    """Give the function, or the method of the object; a class is made into an object without arguments first."""
    if inspect.isclass(model):
        model = model()
    # A pickle of unknown content is packaged for predict() and may turn out to be a function.
    called = callable(model) and not hasattr(model, method)
    predict: Predict = model if called or method == _CALL else getattr(model, method)
    return predict


def save(model: Any, *, method: str) -> Saved:
    """Pickle it by value; modules that are installed are imported again by name."""
    del method
    data = pickles.dumps(model)
    modules = pickles.modules_in(data) | {"cloudpickle"}
    return Saved({_PICKLE: data}, {"format": "pickle"}, pickled=True, modules=modules)


def load(files: Files, options: Mapping[str, str], *, method: str, trusted: bool) -> Predict:
    """Unpickle; refused unless the bundle's digest is trusted."""
    if not trusted:
        message = "pickled code is loaded only when its digest is trusted"
        raise IntegrityError(message, hint="pass trust= with the bundle's digest")
    data = files.read(_PICKLE)
    model = need("joblib").load(io.BytesIO(data)) if options.get("format") == "joblib" else pickles.loads(data)
    return bind(model, method=method)


def _refuse_odd(model: Any) -> None:
    if inspect.iscoroutinefunction(model) or inspect.iscoroutinefunction(getattr(model, "predict", None)):
        message = f"{_name(model)} is asynchronous"
        raise ConfigurationError(message, hint="give a plain function; the server runs many requests at once by itself")
    if inspect.isclass(model) and not callable(getattr(model, "predict", None)):
        message = f"class {_name(model)} has no predict()"
        raise ConfigurationError(message, hint="add predict(self, table), or pass a fitted object")


def _name(model: Any) -> str:
    return repr(getattr(model, "__qualname__", type(model).__qualname__))
