"""Whatever a converter calls its tensors, a packaged graph has the names, shapes and types of the original."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeldeploy.convert.graphs import Raw, assemble
from modeldeploy.errors import ConversionError
from modeldeploy.packaging.flavours.onnx import bind

make, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


def raw(inputs, *, names=None, kind=onnx.TensorProto.FLOAT):
    """Make a graph as a converter does: the sum of its inputs, its two halves side by side, and a part that nobody asks for."""
    nodes = [
        node("Sum", list(inputs), ["variable"]),
        node("Concat", ["variable", "variable"], ["probabilities"], axis=1),
        node("Abs", ["variable"], ["unused"]),
    ]
    outputs = [
        make("variable", kind, [None, 1]),
        make("probabilities", kind, [None, 2]),
        make("unused", kind, [None, 1]),
    ]
    graph = onnx.helper.make_graph(nodes, "model", [make(name, kind, [None, 1]) for name in inputs], outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    sources = {"prediction": "variable", "probability": "probabilities"}
    return Raw(model.SerializeToString(), "columns", sources, dict(zip(inputs, names or inputs, strict=True)))


@settings(max_examples=15, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=5, unique=True))
def test_inputs_have_the_names_of_the_columns_whatever_they_are(names):
    if {"prediction", "probability"}.intersection(names):
        return
    data = assemble(raw([f"x{at}" for at in range(len(names))], names=names), {"prediction": np.ones(2)})
    answers = bind(data, method="run")({name: np.array([1.0, 2.0]) for name in names})
    assert answers["prediction"].tolist() == [len(names), 2.0 * len(names)]


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_one_number_for_each_row_has_the_shape_of_the_original(shape):
    answers = bind(assemble(raw(["x"]), {"prediction": np.ones(shape)}), method="run")({"x": np.ones(3)})
    assert answers["prediction"].shape == (3, *shape[1:])


def test_the_second_of_two_columns_stands_for_a_single_score():
    asked = {"probability": np.ones(2)}
    assert bind(assemble(raw(["x"]), asked), method="run")({"x": np.ones(3)})["probability"].shape == (3,)
    both = {"probability": np.ones((2, 2))}
    assert bind(assemble(raw(["x"]), both), method="run")({"x": np.ones(3)})["probability"].shape == (3, 2)


@pytest.mark.parametrize(
    ("dtype", "got"), [("float64", "float32"), ("float32", "float32"), ("bool", "bool"), ("int32", "int32")]
)
def test_types_are_cast_only_where_the_original_could_not_be_read_from_them(dtype, got):
    data = assemble(raw(["x"]), {"prediction": np.ones(2).astype(dtype)})
    assert bind(data, method="run")({"x": np.ones(3)})["prediction"].dtype == got


def test_parts_that_no_answer_needs_are_left_out():
    whole = onnx.load_from_string(assemble(raw(["x"]), {"prediction": np.ones(2)}))
    assert {each.op_type for each in whole.graph.node} == {"Identity", "Sum", "Constant", "Reshape"}
    assert [each.name for each in whole.graph.output] == ["prediction"]


def test_a_column_named_like_an_answer_is_refused_by_name():
    with pytest.raises(ConversionError, match=r"columns \['prediction'\] are named like what the model answers"):
        assemble(raw(["x"], names=["prediction"]), {"prediction": np.ones(2)})


def test_an_answer_that_no_converter_gives_is_named():
    with pytest.raises(ConversionError, match=r"answers \['probability_0'\]"):
        assemble(raw(["x"]), {"probability_0": np.ones((2, 2))})
