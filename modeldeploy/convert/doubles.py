"""Graphs that compute in float64 up to their trees, as scikit-learn does: what the converters leave wrong in them is mended.

A scaled number that is rounded once more than in the original falls on the other side of a threshold now and then, for thresholds are often
values of the data themselves.
"""

from __future__ import annotations

from typing import Any

from modeldeploy.packaging.dependencies import need

_LEARNING = "ai.onnx.ml"
_TREES = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")


def mend(model: Any) -> None:
    """Let trees read float32, in which their thresholds are, and say of outputs what they are; changes the graph in place."""
    _narrow(model.graph)
    _say_types(model.graph)


def _narrow(graph: Any) -> None:
    """Round to float32 before trees: rounded on both sides, a number stays on its side of a threshold."""
    float32 = int(need("onnx").TensorProto.FLOAT)
    nodes = []
    for at, node in enumerate(graph.node):
        if node.op_type in _TREES and not any(each.name.endswith("_as_tensor") for each in node.attribute):
            narrow = f"{node.input[0]}__narrow_{at}"
            nodes.append(need("onnx").helper.make_node("Cast", [node.input[0]], [narrow], to=float32))
            node.input[0] = narrow
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _say_types(graph: Any) -> None:
    """Say float32 of what is that whatever goes in: the converters say float64 (skl2onnx 1.20, onnxmltools 1.16)."""
    kinds = need("onnx").TensorProto
    made_by = {name: node for node in graph.node for name in node.output}
    for value in graph.output:
        node = made_by[value.name]
        while node.op_type == "Identity" and node.input[0] in made_by:
            node = made_by[node.input[0]]
        if node.domain == _LEARNING and value.type.tensor_type.elem_type == kinds.DOUBLE:
            value.type.tensor_type.elem_type = kinds.FLOAT
