"""scikit-learn estimators and pipelines, and the classes of XGBoost and LightGBM inside of them or alone, by skl2onnx."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

from modeldeploy.convert import doubles, trees
from modeldeploy.convert.graphs import Raw
from modeldeploy.convert.layout import Feed, Layout, parts
from modeldeploy.errors import ConversionError
from modeldeploy.packaging.dependencies import need
from modeldeploy.packaging.outputs import NAMES

OPSETS = {"": 18, "ai.onnx.ml": 3}
"""What onnxruntime 1.20 and later read; the default of a converter may be older or newer."""
_XGBOOST = "onnxmltools.convert.xgboost.operator_converters.XGBoost"
_LIGHTGBM = "onnxmltools.convert.lightgbm.operator_converters.LightGbm"
_SHAPES = "skl2onnx.common.shape_calculator"
_TEXTS = ("CountVectorizer", "TfidfVectorizer")
_PREDICTION, _PROBABILITY = NAMES["predict"], NAMES["predict_proba"]


def chooses_by_name(estimator: Any) -> bool:
    """Whether a part of it chooses its columns by name."""
    return any(type(part).__name__ == "ColumnTransformer" for part in parts(estimator))


def convert(estimator: Any, layout: Layout, method: str, *, double: bool = False) -> Raw:
    """Convert, to compute in float64 if that is asked for; ConversionError says what the converter said."""
    skl2onnx = need("skl2onnx")
    estimator = trees.finite(estimator)
    _register(estimator)
    types = [(feed.name, _type(feed, double=double)) for feed in layout.feeds]
    settings: dict[str, Any] = {
        "name": "model",
        "initial_types": types,
        "target_opset": OPSETS,
        "options": _options(estimator, method),
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = skl2onnx.convert_sklearn(estimator, **settings)
    except Exception as error:  # converters raise whatever comes to them
        message = f"skl2onnx cannot convert {type(estimator).__name__}: {short(error)}"
        hint = (
            "the table in docs/convert.md says what converts; a part that it does not know must be replaced or left out"
        )
        raise ConversionError(message, hint=hint) from error
    if double:
        doubles.mend(model)
    names = [value.name for value in model.graph.output]
    inputs = dict(zip([value.name for value in model.graph.input], [feed.name for feed in layout.feeds], strict=True))
    return Raw(
        model.SerializeToString(deterministic=True), layout.container, _sources(estimator, names, method), inputs
    )


def is_classifier(estimator: Any) -> bool:
    """Whether it gives labels with probabilities or scores."""
    return bool(need("sklearn.base").is_classifier(estimator))


def _sources(estimator: Any, names: list[str], method: str) -> dict[str, str]:
    if not is_classifier(estimator):
        # An outlier detector gives its decision beside its label, a clustering the distances.
        wanted = names[-1] if method == "decision_function" else names[0]
        return {NAMES[method]: wanted}
    scores = NAMES["decision_function"] if method == "decision_function" else _PROBABILITY
    return {_PREDICTION: names[0], scores: names[-1]}


def _options(estimator: Any, method: str) -> dict[int, dict[str, Any]]:
    """Give the options of each part by its id, so that they are for no other of its class."""
    # Words are made lower-case by the rules of a locale, which a container rarely has; "C" is everywhere, and knows ASCII letters only.
    texts = {id(part): {"locale": "C"} for part in parts(estimator) if type(part).__name__ in _TEXTS}
    if not is_classifier(estimator):
        return texts
    options: dict[str, Any] = {}
    if hasattr(estimator, "predict_proba"):
        options["zipmap"] = False
    if method == "decision_function":
        options["raw_scores"] = True
    return {**texts, id(estimator): options}


def _type(feed: Feed, *, double: bool) -> Any:
    types = need("skl2onnx.common.data_types")
    number = types.DoubleTensorType if double else types.FloatTensorType
    kind = types.StringTensorType if feed.text else number
    return kind([None, feed.width or 1])


def _register(estimator: Any) -> None:
    """Tell skl2onnx who converts boosters; telling it again changes nothing."""
    for part in parts(estimator):
        family = type(part).__module__.partition(".")[0]
        if family in {"xgboost", "lightgbm"}:
            _register_class(type(part))


def _register_class(cls: type) -> None:
    family, kind = cls.__module__.partition(".")[0], cls.__name__
    classifies = "Classifier" in kind
    shapes = need(_SHAPES)
    need("skl2onnx").update_registered_converter(
        cls,
        f"{family}{kind}",
        shapes.calculate_linear_classifier_output_shapes
        if classifies
        else shapes.calculate_linear_regressor_output_shapes,
        _booster_converter(is_xgboost=family == "xgboost"),
        options=_CLASSIFIER if classifies else {},
    )


_CLASSIFIER = {"nocl": [True, False], "zipmap": [True, False, "columns"], "raw_scores": [True, False]}


def _booster_converter(*, is_xgboost: bool) -> Callable[..., Any]:
    if not is_xgboost:
        converter: Callable[..., Any] = need(_LIGHTGBM).convert_lightgbm
        return converter
    convert_xgboost = need(_XGBOOST).convert_xgboost

    def convert(scope: Any, operator: Any, container: Any) -> None:
        operator.raw_operator = nameless(operator.raw_operator)
        convert_xgboost(scope, operator, container)

    return convert


def nameless(model: Any) -> Any:
    """Copy a model of XGBoost without the names of its columns: its converter knows them by number only (onnxmltools 1.16)."""
    inside = hasattr(model, "get_booster")
    booster = (model.get_booster() if inside else model).copy()
    booster.feature_names = booster.feature_types = None
    if not inside:
        return booster
    found = copy.copy(model)
    found._Booster = booster  # noqa: SLF001 - the copy's own
    return found


_SHOWN = 300


def short(error: Exception) -> str:
    """Say what was raised, in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= _SHOWN else f'{text[:_SHOWN]}...'}"
