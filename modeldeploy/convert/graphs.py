"""From what a converter made to the graph that is packaged: inputs and outputs by the names and shapes of the original."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from modeldeploy.errors import ConversionError
from modeldeploy.packaging.dependencies import need

_MATRIX = 2
_OWN = "_/"
_PLAIN, _PLAIN_IR = 15, 8


@attrs.frozen(eq=False)
class Raw:
    """A graph as a converter made it, and what its parts mean."""

    data: bytes
    container: str
    """What the ONNX model is given: ``array``, ``matrix`` or ``columns``."""
    sources: Mapping[str, str]
    """The original's name of an output -> the tensor that holds it."""
    inputs: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """The converter's name of an input -> the original's."""


def assemble(raw: Raw, answers: Mapping[str, NDArray[Any]]) -> bytes:
    """Give the graph with the outputs that ``answers`` holds, in their names, shapes and kinds of type; no other part is left in it.

    ``answers`` are what the original gave for some row.
    """
    onnx = need("onnx")
    model = onnx.load_from_string(raw.data)
    names = {value.name: raw.inputs.get(value.name, value.name) for value in model.graph.input}
    _refuse_same_names(names.values(), answers)
    # Whatever the converter called its own tensors stays out of the way of the original's names.
    onnx.compose.add_prefix_graph(model.graph, _OWN, inplace=True)
    unknown = sorted(set(answers) - set(raw.sources))
    if unknown:
        message = f"the model answers {unknown}, which its converter does not give"
        raise ConversionError(message, hint="convert one model for each target, or choose another method=")
    nodes, values = [], []
    for name, array in answers.items():
        made, kind = _output(onnx, model, _OWN + raw.sources[name], name, array)
        nodes += made
        values.append(onnx.helper.make_tensor_value_info(name, kind, [None, *array.shape[1:]]))
    model.graph.node.extend(nodes)
    del model.graph.output[:]
    model.graph.output.extend(values)
    _rename_inputs(onnx, model.graph, names)
    _allow_plain_operators(onnx, model)
    _prune(model.graph)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        message = f"what the converter made is not a valid graph: {str(error).splitlines()[0]}"
        raise ConversionError(message, hint="try another version of the converter: pip install -U skl2onnx") from error
    return bytes(model.SerializeToString(deterministic=True))


def _output_of(model: Any, name: str) -> Any:
    """Find an output of a graph by name."""
    return next(value for value in model.graph.output if value.name == name)


def _output(onnx: Any, model: Any, source: str, name: str, array: NDArray[Any]) -> tuple[list[Any], int]:
    """Make the nodes from a converter's tensor to an output, and say its type."""
    tensor = _output_of(model, source).type.tensor_type
    steps = [("Gather", -1)] if _holds_both(tensor, array) else []
    if not steps and array.ndim != len(tensor.shape.dim):
        steps = [("Reshape", array.ndim)]
    kind = _kind(onnx, tensor.elem_type, array)
    nodes, at = [], source
    for step, _value in steps:
        nodes += _step(onnx, step, at, f"{name}__{step}", array)
        at = f"{name}__{step}"
    last = ("Cast", {"to": kind}) if kind != tensor.elem_type else ("Identity", {})
    nodes.append(onnx.helper.make_node(last[0], [at], [name], **last[1]))
    return nodes, kind


def _holds_both(tensor: Any, array: NDArray[Any]) -> bool:
    """Whether the tensor has a column for each of two classes where the original answers with one number."""
    dims = tensor.shape.dim
    return array.ndim == 1 and len(dims) == _MATRIX and dims[1].dim_value == _MATRIX


def _step(onnx: Any, step: str, source: str, target: str, array: NDArray[Any]) -> list[Any]:
    constant = f"{target}_of"
    value = np.array(-1) if step == "Gather" else np.array([-1, *array.shape[1:]])
    made = onnx.numpy_helper.from_array(value.astype(np.int64), constant)
    extra = {"axis": 1} if step == "Gather" else {}
    return [
        onnx.helper.make_node("Constant", [], [constant], value=made),
        onnx.helper.make_node(step, [source, constant], [target], **extra),
    ]


def _kind(onnx: Any, have: int, array: NDArray[Any]) -> int:
    """Keep the converter's type where the original's can be read from it, as float64 can from float32; else cast in the graph."""
    if array.dtype == object:
        return int(onnx.TensorProto.STRING)
    if have != onnx.TensorProto.STRING:
        made = onnx.helper.tensor_dtype_to_np_dtype(have)
        if np.can_cast(made, array.dtype, casting="same_kind"):
            return have
    return int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))


def _rename_inputs(onnx: Any, graph: Any, names: Mapping[str, str]) -> None:
    """Name inputs as the original does, which a converter that allows letters only does not."""
    first = [onnx.helper.make_node("Identity", [new], [_OWN + old]) for old, new in names.items()]
    for value, new in zip(graph.input, names.values(), strict=True):
        value.name = new
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*first, *rest])


def _allow_plain_operators(onnx: Any, model: Any) -> None:
    """Name the set of plain operators, for a graph of trees alone has none."""
    if all(each.domain for each in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid("", _PLAIN))
        model.ir_version = max(model.ir_version, _PLAIN_IR)


def _prune(graph: Any) -> None:
    """Drop the nodes and constants that no output needs."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(_reads(node))
    initializers = [each for each in graph.initializer if each.name in needed]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(initializers)


def _reads(node: Any) -> set[str]:
    """Name what a node reads, the graphs inside of it included."""
    inner = [*(a.g for a in node.attribute if a.HasField("g")), *(g for a in node.attribute for g in a.graphs)]
    return set(node.input).union(*(_reads(each) for graph in inner for each in graph.node))


def _refuse_same_names(inputs: Collection[str], outputs: Collection[str]) -> None:
    both = sorted(set(inputs).intersection(outputs))
    if both:
        message = f"the columns {both} are named like what the model answers, which no ONNX graph allows"
        raise ConversionError(message, hint="rename the column in the table that the model is fitted with")
