"""XGBoost's and LightGBM's own boosters, which answer with numbers only."""

from __future__ import annotations

import warnings
from typing import Any

from modeldeploy.convert.graphs import Raw
from modeldeploy.convert.layout import Layout
from modeldeploy.convert.sklearn import nameless, short
from modeldeploy.errors import ConversionError
from modeldeploy.packaging.dependencies import need
from modeldeploy.packaging.outputs import NAMES

_BOTH = 2
_OPSET = 15  # the newest that onnxmltools 1.16 writes


def convert(booster: Any, layout: Layout) -> Raw:
    """Convert by onnxmltools; ConversionError says what the converter said."""
    tools = need("onnxmltools")
    types = need("onnxmltools.convert.common.data_types")
    (feed,) = layout.feeds
    given = [(feed.name, types.FloatTensorType([None, feed.width or 1]))]
    family = type(booster).__module__.partition(".")[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if family == "xgboost":
                model = tools.convert_xgboost(nameless(booster), initial_types=given, target_opset=_OPSET, name="model")
            else:
                model = tools.convert_lightgbm(
                    booster, initial_types=given, target_opset=_OPSET, name="model", zipmap=False
                )
    except Exception as error:  # converters raise whatever comes to them
        message = f"onnxmltools cannot convert the {family} Booster: {short(error)}"
        raise ConversionError(message, hint="fit the scikit-learn class of the library instead") from error
    names = [value.name for value in model.graph.output]
    # A classifier's graph gives the label first; the booster itself gives the probabilities.
    source = names[1] if len(names) == _BOTH else names[0]
    inputs = {model.graph.input[0].name: feed.name}
    return Raw(model.SerializeToString(deterministic=True), layout.container, {NAMES["predict"]: source}, inputs)
