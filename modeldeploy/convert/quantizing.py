"""From an ONNX model to one that computes in 8 bits, by what its layers are, held against the model that it was made of."""

from __future__ import annotations

import enum
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeldeploy.errors import ConfigurationError, ConversionError, UnsupportedError
from modeldeploy.packaging import containers
from modeldeploy.packaging.dependencies import need
from modeldeploy.packaging.flavours import onnx as flavour
from modeldeploy.packaging.manifest import Manifest


class Method(enum.StrEnum):
    """How the ranges of the numbers between layers are found."""

    DYNAMIC = "dynamic"
    """While it runs; for dense layers."""
    STATIC = "static"
    """Beforehand, from rows for calibration; for convolutions."""


_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_DENSE = frozenset({"MatMul", "Gemm", "Attention", "LSTM", "GRU"})
_CALIBRATION_ROWS = 512
_BATCH = 32


def choose(data: bytes, manifest: Manifest, method: str, *, sampled: bool) -> Method:
    """Say how a model is quantised; UnsupportedError with the reason when 8 bits do nothing for it.

    ``auto`` is static where there is a convolution: quantised dynamically it becomes three to five times slower than it was, and a trained
    range costs nothing when it runs.
    """
    kinds = operators(data)
    wanted = {"auto": Method.STATIC if kinds & _CONVOLUTIONS else Method.DYNAMIC}.get(method) or _method(method)
    if not kinds & (_CONVOLUTIONS | _DENSE):
        message = f"{manifest.name} {manifest.version} has no dense layer and no convolution, and 8 bits do nothing for {_what(kinds)}"
        raise UnsupportedError(message, capability="quantize", hint="deploy the ONNX model as it is")
    if wanted is Method.DYNAMIC and not kinds & _DENSE:
        message = f"{manifest.name} {manifest.version} has convolutions only, which become slower when they are quantised dynamically"
        raise UnsupportedError(message, capability="quantize", hint="use method='static' with sample=")
    if wanted is Method.STATIC and not sampled:
        message = f"{manifest.name} {manifest.version} is quantised statically, which needs rows to find its ranges"
        raise ConfigurationError(message, hint="pass some hundred real rows as sample=")
    return wanted


def operators(data: bytes) -> frozenset[str]:
    """Name the kinds of operators in a graph."""
    return frozenset(node.op_type for node in need("onnx").load_from_string(data).graph.node)


def has_convolutions(data: bytes) -> bool:
    """Whether a graph has a convolution."""
    return bool(operators(data) & _CONVOLUTIONS)


def quantize(data: bytes, method: Method, feeds: Iterator[Mapping[str, NDArray[Any]]], *, reduce_range: bool) -> bytes:
    """Quantise by onnxruntime's own tool: unsigned 8 bits for weights as for what flows between layers, one range for each tensor.

    Signed weights are the common recipe, but x86 without VNNI cuts their products off at 16 bits.
    """
    tool = need("onnxruntime.quantization")
    with tempfile.TemporaryDirectory(prefix="modeldeploy-") as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        (folder / "model.onnx").write_bytes(data)
        given = {
            "weight_type": tool.QuantType.QUInt8,
            "per_channel": False,
            "reduce_range": reduce_range,
            # What scikit-learn's scalers give has no type that the tool's search for types could find.
            "extra_options": {"DefaultTensorType": int(need("onnx").TensorProto.FLOAT)},
        }
        source, target = folder / "ready.onnx", folder / "quantized.onnx"
        try:
            _prepare(folder)
            if method is Method.DYNAMIC:
                tool.quantize_dynamic(source, target, op_types_to_quantize=sorted(_DENSE), **given)
            else:
                options = {"quant_format": tool.QuantFormat.QDQ, "activation_type": tool.QuantType.QUInt8, **given}
                tool.quantize_static(source, target, _reader(tool, feeds), **options)
        except Exception as error:  # the tool raises whatever comes to it
            message = f"onnxruntime cannot quantise the model: {type(error).__name__}: {str(error)[:300]}"
            raise ConversionError(message, hint="deploy the ONNX model as it is") from error
        return _canonical(target)


def _prepare(folder: Path) -> None:
    """Fold and name what the tool needs folded and named.

    Its search for symbolic shapes is left out: it imports torch where that is installed, and exported graphs say their shapes.
    """
    prepare = need("onnxruntime.quantization.shape_inference").quant_pre_process
    prepare(str(folder / "model.onnx"), str(folder / "ready.onnx"), skip_symbolic_shape=True)


def _canonical(path: Path) -> bytes:
    return bytes(need("onnx").load(str(path)).SerializeToString(deterministic=True))


def _reader(tool: Any, feeds: Iterator[Mapping[str, NDArray[Any]]]) -> Any:
    class Reader(tool.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Any:
            return next(feeds, None)

    return Reader()


def calibration(
    data: bytes, manifest: Manifest, columns: Mapping[str, NDArray[Any]]
) -> Iterator[dict[str, NDArray[Any]]]:
    """Give rows spread over the sample as the graph is fed with them, a few at a time."""
    rows = len(next(iter(columns.values())))
    chosen = np.unique(np.linspace(0, rows - 1, min(rows, _CALIBRATION_ROWS)).round().astype(int))
    build = containers.builder(manifest.container, (), [field.name for field in manifest.signature.inputs])
    feed = flavour.feeder(data)
    for start in range(0, len(chosen), _BATCH):
        part = chosen[start : start + _BATCH]
        yield feed(build({name: array[part] for name, array in columns.items()}))


def _method(given: str) -> Method:
    try:
        return Method(given)
    except ValueError as error:
        message = f"method is {given!r}"
        raise ConfigurationError(
            message, hint=f"use 'auto', {', '.join(repr(str(each)) for each in Method)}"
        ) from error


def _what(kinds: frozenset[str]) -> str:
    if any(kind.startswith("TreeEnsemble") for kind in kinds):
        return "trees, which compare and do not multiply"
    return f"what it is made of ({', '.join(sorted(kinds)[:5])})"
