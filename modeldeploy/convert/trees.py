"""What is particular about trees: rounding before them, and thresholds that no converter survives."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np

from modeldeploy.convert.layout import parts

_NAMES = re.compile("Tree|Forest|Boosting|XGB|LGBM")


def are_in(estimator: Any) -> bool:
    """Whether a part of an estimator compares numbers with thresholds."""
    return any(_NAMES.search(type(part).__name__) for part in parts(estimator))


def finite(estimator: Any) -> Any:
    """Give the estimator with finite thresholds, a copy where it has others.

    A split of the rows that have a value from those that have none has the threshold infinity, on which skl2onnx 1.20 never comes to an end.
    The largest float32 splits the same rows.
    """
    if not any(_endless(part) for part in parts(estimator)):
        return estimator
    found = copy.deepcopy(estimator)
    largest = float(np.finfo(np.float32).max)
    for part in filter(_endless, parts(found)):
        threshold = part.tree_.threshold
        threshold[np.isposinf(threshold)] = largest
    return found


def _endless(part: Any) -> bool:
    tree = getattr(part, "tree_", None)
    return tree is not None and not np.isfinite(tree.threshold).all()
