"""scikit-learn estimators and pipelines: skops where it can, a pickle of our own where it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.packaging.dependencies import need
from modeldeploy.packaging.flavours import function, pickles, skops
from modeldeploy.packaging.flavours.table import Files, Predict, Saved, has_method
from modeldeploy.packaging.outputs import NAMES

_SKOPS = "model.skops"
_PICKLE = "model.pkl"
_NO_STEP = (None, "passthrough")


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


def labels(model: Any) -> tuple[str, ...]:
    """Name the columns as the table that it was fitted with did."""
    names = getattr(model, "feature_names_in_", None)
    return () if names is None else tuple(str(name) for name in names)


def bind(model: Any, *, method: str) -> Predict:
    """Give the estimator's own method."""
    predict: Predict = getattr(model, method)
    return predict


def save(model: Any, *, method: str) -> Saved:
    """Save with skops; an estimator with code of the notebook, or that skops does not know, is pickled."""
    del method
    data = skops.dumps(model)
    if data is None:
        data = pickles.dumps(model)
        modules = pickles.modules_in(data) | {"sklearn", "cloudpickle"}
        return Saved({_PICKLE: data}, {"format": "pickle"}, pickled=True, modules=modules)
    types = skops.untrusted(data)
    odd = [name for name in types if not skops.is_safe(name)]
    options = {"format": "skops", "types": ",".join(types)}
    needed = {"sklearn", "skops", "numpy"} | {name.partition(".")[0] for name in types}
    return Saved({_SKOPS: data}, options, pickled=False, modules=frozenset(needed), trusted=bool(odd))


def load(files: Files, options: Mapping[str, str], *, method: str, trusted: bool) -> Predict:
    """Load; without trust skops builds only classes of scikit-learn and SciPy, beside what skops itself holds safe."""
    need("sklearn")
    if options.get("format") != "skops":
        return function.load(files, options, method=method, trusted=trusted)
    data = files.read(_SKOPS)
    # Read from the bytes themselves: what the manifest says about them proves nothing.
    types = skops.untrusted(data)
    odd = [name for name in types if not trusted and not skops.is_safe(name)]
    if odd:
        message = f"the estimator holds types that only a trusted bundle may load: {odd[:5]}"
        raise IntegrityError(message, hint="if you know where it comes from, pass trust= with the bundle's digest")
    return _straight(skops.loads(data, types), method)


def _straight(model: Any, method: str) -> Predict:
    """Give the estimator's own method; that of a plain pipeline as its steps, one after the other.

    Before it does the same, a pipeline looks at all its steps: whether they are fitted, which was seen when it was packaged. That takes
    a seventh of what one row takes a linear model (scikit-learn 1.9). The golden outputs come from the pipeline's own method.
    """
    if type(model) is not need("sklearn.pipeline").Pipeline or model.steps[-1][1] in _NO_STEP:
        return bind(model, method=method)
    *before, (_name, last) = model.steps
    transforms = [step.transform for _name, step in before if step not in _NO_STEP]
    predict = bind(last, method=method)

    def run(X: Any) -> Any:  # noqa: N803 - as scikit-learn names it
        for transform in transforms:
            X = transform(X)  # noqa: N806
        return predict(X)

    return run
