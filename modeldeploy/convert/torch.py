"""PyTorch modules, by the exporter of torch itself."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeldeploy.convert.graphs import Raw
from modeldeploy.errors import ConversionError
from modeldeploy.packaging.dependencies import need
from modeldeploy.packaging.flavours import torch as flavour
from modeldeploy.packaging.manifest import Manifest

OPSET = 18
_CALL = "__call__"
_ROWS = 2
_SHOWN = 300


def convert(module: Any, native: Any, manifest: Manifest, outputs: list[str]) -> Raw:
    """Export with any number of rows; ``native`` is some rows as the packaged module is given them.

    ConversionError says what the exporter said, such as which line of the module depends on the data.
    """
    torch = need("torch")
    need("onnxscript")
    if manifest.method != _CALL:
        message = f"the module is packaged for {manifest.method}(), and only a call of the module itself is exported"
        raise ConversionError(message, hint="make a module whose forward() calls it")
    positional = not isinstance(native, Mapping)
    arguments = {manifest.signature.inputs[0].name: native} if positional else dict(native)
    model = _export(torch, module, arguments, outputs, positional=positional)
    names = [value.name for value in model.graph.output]
    if len(names) != len(outputs):
        message = f"the exported module answers with {len(names)} tensors where it was packaged with {outputs}"
        raise ConversionError(message, hint="answer with tensors only, as a tuple, a list or a dict")
    inputs = dict(zip([value.name for value in model.graph.input], arguments, strict=True))
    container = manifest.container if positional else "columns"
    return Raw(model.SerializeToString(deterministic=True), container, dict(zip(outputs, names, strict=True)), inputs)


def _export(
    torch: Any, module: Any, arguments: Mapping[str, NDArray[Any]], outputs: list[str], *, positional: bool
) -> Any:
    rows = torch.export.Dim("rows", min=1)
    tensors = {name: flavour.tensor(torch, _two(array), flavour.place(module)) for name, array in arguments.items()}
    try:
        with _evaluating(module), _quiet():
            program = torch.onnx.export(
                module,
                tuple(tensors.values()) if positional else (),
                kwargs=None if positional else tensors,
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=({0: rows},) if positional else {name: {0: rows} for name in tensors},
                input_names=None if positional else list(tensors),
                output_names=outputs,
                verbose=False,
            )
    except Exception as error:  # the exporter raises whatever comes to it
        message = f"torch cannot export {type(module).__name__}: {_cause(error)}"
        hint = "the exporter follows tensors only; take what depends on their values out of forward()"
        raise ConversionError(message, hint=hint) from error
    return program.model_proto


def _two(array: NDArray[Any]) -> NDArray[Any]:
    """Give two rows: the exporter takes a single one for a constant."""
    return np.ascontiguousarray(array[np.arange(_ROWS) % len(array)])


def _cause(error: BaseException) -> str:
    """Say what the exporter's long report begins with."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:_SHOWN]}"


@contextlib.contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Set the module for evaluation, and leave it as it was."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and its warnings about itself from the user's screen."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
