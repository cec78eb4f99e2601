"""The model that is converted, and what it answers: labels with their probabilities, whichever of them it was packaged for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from modeldeploy.convert import boosters, environment, layout, remote, sklearn, torch, trees
from modeldeploy.convert.graphs import Raw
from modeldeploy.errors import ConfigurationError, ConversionError
from modeldeploy.packaging import containers, outputs
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.dependencies import need
from modeldeploy.packaging.flavours.table import find
from modeldeploy.packaging.manifest import Manifest
from modeldeploy.packaging.outputs import NAMES

_PREDICTION, _PROBABILITY = NAMES["predict"], NAMES["predict_proba"]
_FAMILIES = ("lightgbm", "sklearn", "torch", "xgboost")


@attrs.frozen(eq=False)
class Original:
    """A model in memory and the bundle that it was packaged into."""

    estimator: Any
    bundle: Bundle

    @classmethod
    def of(cls, estimator: object, bundle: Bundle) -> Original:
        """Check that it is of a family that converts; ConfigurationError or ConversionError says what to do."""
        manifest = bundle.manifest
        if estimator is None:
            message = f"{manifest.name} {manifest.version} was read from its files, and its estimator is not in memory"
            raise ConfigurationError(message, hint="convert it where it was fitted: Model(clf, ...).to_onnx(sample=X)")
        if manifest.flavour == "onnx":
            message = f"{manifest.name} {manifest.version} is an ONNX model already"
            raise ConfigurationError(message, hint="deploy it as it is, or make it smaller with quantize()")
        if manifest.flavour not in _FAMILIES:
            message = (
                f"{manifest.name} {manifest.version} is Python code ({manifest.flavour}), which has no form in ONNX"
            )
            raise ConversionError(
                message, hint=f"models of {', '.join(_FAMILIES)} convert; put the code into a pipeline"
            )
        return cls(estimator, bundle)

    @property
    def manifest(self) -> Manifest:
        """What is known of the bundle."""
        return self.bundle.manifest

    @property
    def labels(self) -> frozenset[str]:
        """Name the outputs that are labels, though they may be numbers."""
        return frozenset({_PREDICTION}) if self._classifies else frozenset()

    @property
    def _classifies(self) -> bool:
        return self._is_estimator and sklearn.is_classifier(self.estimator)

    @property
    def _is_estimator(self) -> bool:
        return hasattr(self.estimator, "get_params")

    def answer(self, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Answer in full; what the model raises goes out as it is."""
        return {name: array for method in self._methods() for name, array in self._ask(method, columns).items()}

    def alone(self, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Answer as it was packaged."""
        return self._ask(self.manifest.method, columns)

    def _ask(self, method: str, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        # Each call has a table of its own, for a function of the user's in a pipeline may change it in place.
        native = self._build({name: array.copy() for name, array in columns.items()})
        return outputs.read(find(self.manifest.flavour).bind(self.estimator, method=method)(native), method)

    @property
    def precisions(self) -> tuple[bool, ...]:
        """Say in which order float64 (True) and float32 are tried, where there is a choice."""
        if self.manifest.flavour == "torch" or not self._is_estimator:
            return (False,)
        # A forest or booster alone reads float32; what is computed before it must not be rounded too early.
        before_trees = isinstance(self.estimator, need("sklearn.pipeline").Pipeline) and trees.are_in(self.estimator)
        return (True, False) if before_trees else (False, True)

    def convert(self, columns: Mapping[str, NDArray[Any]], home: Path, *, double: bool) -> Raw:
        """Convert; where the installed protobuf is too new, in a process with the pinned one."""
        manifest = self.manifest
        if manifest.flavour == "torch":
            return torch.convert(self.estimator, self._build(columns), manifest, list(self.answer(columns)))
        if manifest.flavour != "sklearn":
            layout.refuse_text(manifest, manifest.flavour)
        by_name = self._is_estimator and sklearn.chooses_by_name(self.estimator)
        inputs = layout.of(manifest, by_name=by_name)
        if not self._is_estimator:
            return boosters.convert(self.estimator, inputs)
        if environment.needs_pin(self.estimator):
            place = environment.pinned(home)
            return remote.convert(self.estimator, inputs, manifest.method, double=double, place=place)
        return sklearn.convert(self.estimator, inputs, manifest.method, double=double)

    def _methods(self) -> tuple[str, ...]:
        method = self.manifest.method
        if not self._classifies or method not in {"predict", "predict_proba", "decision_function"}:
            return (method,)
        other = "predict_proba" if method == "predict" else "predict"
        return (method, other) if callable(getattr(self.estimator, other, None)) else (method,)

    def _build(self, columns: Mapping[str, NDArray[Any]]) -> Any:
        manifest = self.manifest
        names = [field.name for field in manifest.signature.inputs]
        return containers.builder(manifest.container, manifest.columns, names)(columns)


def packaged(answers: Mapping[str, NDArray[Any]], manifest: Manifest) -> dict[str, NDArray[Any]]:
    """Keep the answers that the model was packaged for."""
    return {field.name: np.asarray(answers[field.name]) for field in manifest.signature.outputs}
