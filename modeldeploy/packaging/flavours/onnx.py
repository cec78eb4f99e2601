"""ONNX models, run by onnxruntime on the processor with one thread for each worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.packaging.dependencies import need
from modeldeploy.packaging.flavours.table import Files, Predict, Saved

_FILE = "model.onnx"
_TYPES = {
    "tensor(bool)": np.bool_,
    "tensor(double)": np.float64,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(int8)": np.int8,
    "tensor(string)": np.object_,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(uint8)": np.uint8,
}
_ERRORS_ONLY = 3


def check_method(model: Any, method: str | None) -> str:
    """Check that it loads; there is one thing to call."""
    if method not in {None, "run"}:
        message = f"an ONNX model has no {method}()"
        raise ConfigurationError(message, hint="leave method= out; its own outputs are all given by name")
    _session(as_bytes(model))
    return "run"


def container(model: Any, kind: str) -> str:
    """Give one array to a model with one input, columns by name to one with several."""
    single = len(_session(as_bytes(model)).get_inputs()) == 1
    if kind == "array":
        return kind
    return "matrix" if single and kind in {"pandas", "polars", "arrow", "records"} else "columns"


def labels(model: Any) -> tuple[str, ...]:
    """Name an array as the model names its input."""
    return tuple(each.name for each in _session(as_bytes(model)).get_inputs())


def bind(model: Any, *, method: str) -> Predict:
    """Run the model in memory."""
    del method
    return _runner(as_bytes(model))


def save(model: Any, *, method: str) -> Saved:
    """Keep the bytes as they are."""
    del method
    return Saved({_FILE: as_bytes(model)}, {}, pickled=False, modules=frozenset({"onnxruntime"}))


def load(files: Files, options: Mapping[str, str], *, method: str, trusted: bool) -> Predict:
    """Make a session; an ONNX file holds no code to run."""
    del options, method, trusted
    return _runner(files.read(_FILE))


def as_bytes(model: Any) -> bytes:
    """Give the model's bytes; it is bytes already, or a ModelProto."""
    if isinstance(model, bytes | bytearray):
        return bytes(model)
    if type(model).__name__ != "ModelProto":
        message = f"{type(model).__name__} is not an ONNX model"
        raise ConfigurationError(
            message, hint="pass the ModelProto or its bytes, or use Model.from_path('model.onnx', ...)"
        )
    return bytes(model.SerializeToString(deterministic=True))


def _session(data: bytes) -> Any:
    ort = need("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class
        message = f"onnxruntime cannot read the model: {str(error).splitlines()[0][:300]}"
        hint = "pass a complete .onnx file; one with external data must be saved with its data inside"
        raise IntegrityError(message, hint=hint) from error


def _runner(data: bytes) -> Predict:
    session = _session(data)
    feed = _feeder(session)
    names = [output.name for output in session.get_outputs()]

    def run(table: Any) -> dict[str, Any]:
        return {name: _tensor(answer) for name, answer in zip(names, session.run(names, feed(table)), strict=True)}

    return run


def feeder(data: bytes) -> Callable[[Any], dict[str, NDArray[Any]]]:
    """Give the function from a table to what the inputs of this graph are fed with."""
    return _feeder(_session(data))


def _feeder(session: Any) -> Callable[[Any], dict[str, NDArray[Any]]]:
    inputs = {each.name: (_TYPES.get(each.type), len(each.shape)) for each in session.get_inputs()}
    first = next(iter(inputs))
    alone, (dtype, rank) = len(inputs) == 1, inputs[first]

    def feed(table: Any) -> dict[str, NDArray[Any]]:
        if alone and type(table) is np.ndarray:  # as nearly always; the questions below take longer
            return {first: _feed(table, dtype, rank)}
        columns = table if isinstance(table, Mapping) else {first: table}
        if columns.keys() != inputs.keys():
            message = f"the ONNX model takes {list(inputs)}, the example has {list(columns)}"
            raise ConfigurationError(message, hint="name the columns of the example as the model names its inputs")
        return {name: _feed(columns[name], *kind) for name, kind in inputs.items()}

    return feed


def _feed(array: NDArray[Any], dtype: Any, rank: int) -> NDArray[Any]:
    """Give an input its own type, and a column of scalars its second axis where the model has one."""
    if dtype is not None:
        array = array.astype(dtype, copy=False)
    return array[:, None] if array.ndim == 1 and rank == 2 else array  # noqa: PLR2004 - rows and columns


def _tensor(answer: Any) -> Any:
    """Turn the list of dicts that converted classifiers give for probabilities into one array."""
    if isinstance(answer, list) and answer and isinstance(answer[0], Mapping):
        return np.asarray([list(row.values()) for row in answer])
    return answer
