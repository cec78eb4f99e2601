"""Load a bundle and predict: what a worker does, and nobody else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from modeldeploy.errors import IntegrityError, InvalidRequestError, PredictionError
from modeldeploy.packaging import containers, outputs
from modeldeploy.packaging.blocks import count_rows
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.casting import empty
from modeldeploy.packaging.flavours.table import Files, find
from modeldeploy.packaging.golden import Golden
from modeldeploy.packaging.manifest import ARTIFACTS, GOLDEN, Manifest
from modeldeploy.values.model import DType, Field, Signature


def load(bundle: Bundle, *, trust: Collection[str] = ()) -> LoadedModel:
    """Verify a bundle and load its model; pickled content only when the bundle's digest is in ``trust``, else IntegrityError."""
    bundle.verify()
    trusted = bundle.digest in trust
    if bundle.manifest.pickled and not trusted:
        message = f"{bundle.manifest.name} {bundle.manifest.version} holds pickled code and nobody here vouched for {bundle.digest}"
        raise IntegrityError(message, hint=f"if you know where it comes from, pass trust={bundle.digest!r}")
    files = {name.removeprefix(ARTIFACTS): name for name in bundle.manifest.files if name.startswith(ARTIFACTS)}
    answer = answerer(bundle.manifest, Files(files, bundle.read), trusted=trusted)
    return LoadedModel(bundle.manifest.signature, Golden.from_bytes(bundle.read(GOLDEN)), answer)


def answerer(
    manifest: Manifest, files: Files, *, trusted: bool
) -> Callable[[Mapping[str, NDArray[Any]]], outputs.Outputs]:
    """Load the model that ``files`` hold; give the function from checked columns to raw outputs."""
    predict = find(manifest.flavour).load(files, manifest.options, method=manifest.method, trusted=trusted)
    names = [field.name for field in manifest.signature.inputs]
    build = containers.builder(manifest.container, manifest.columns, names)
    return lambda columns: outputs.read(predict(build(columns)), manifest.method)


class LoadedModel:
    """A model in memory, ready to answer; outputs have exactly the types of the signature."""

    def __init__(
        self, signature: Signature, golden: Golden, answer: Callable[[Mapping[str, NDArray[Any]]], outputs.Outputs]
    ) -> None:
        self.signature = signature
        self.golden = golden
        self.answer = answer
        """From columns to raw outputs, unchecked."""

    def predict(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Answer for columns that ``check`` accepted; PredictionError when the model fails or breaks its signature."""
        rows = count_rows(inputs)
        if rows == 0:
            return {field.name: empty(field) for field in self.signature.outputs}
        try:
            answers = self.answer(inputs)
        except (InvalidRequestError, PredictionError):
            raise
        except Exception as error:
            message = f"the model failed: {type(error).__name__}: {error}"
            raise PredictionError(message, hint="see the cause; the request fits the signature") from error
        return {field.name: _conform(field, answers, rows) for field in self.signature.outputs}


def _conform(field: Field, answers: Mapping[str, NDArray[Any]], rows: int) -> NDArray[Any]:
    array = answers.get(field.name)
    if array is None:
        _refuse(f"output {field.name!r} is missing from the model's answer")
    if len(array) != rows:
        _refuse(f"output {field.name!r} has {len(array)} rows for {rows} rows of input")
    if len(array.shape) != len(field.shape) + 1 or any(
        want not in {None, have} for want, have in zip(field.shape, array.shape[1:], strict=True)
    ):
        _refuse(f"output {field.name!r} has shape {array.shape[1:]} in each row, expected {field.shape}")
    return _typed(field, array)


def _typed(field: Field, array: NDArray[Any]) -> NDArray[Any]:
    if field.dtype is DType.STRING:
        if array.dtype != object:
            _refuse(f"output {field.name!r} holds {array.dtype.name}, expected string")
        return array
    if array.dtype == field.dtype.value:
        return array
    if array.dtype == object or not np.can_cast(array.dtype, field.dtype.value, casting="same_kind"):
        _refuse(f"output {field.name!r} holds {array.dtype.name}, expected {field.dtype.value}")
    return array.astype(field.dtype.value, copy=False)


def _refuse(message: str) -> NoReturn:
    raise PredictionError(
        message,
        hint="the model answers differently than when it was packaged; package it with an example that shows this",
    )
