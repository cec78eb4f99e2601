import os

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx

from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.packaging.package import package
from modeldeploy.packaging.paths import package_path


@pytest.fixture(scope="session")
def converted(iris, classifier):
    data = iris[0].to_numpy(np.float32)
    return to_onnx(classifier, data[:1], options={"zipmap": False})


@pytest.fixture
def added():
    """Two inputs, one sum: ``total = left + right``."""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows"]) for name in ("left", "right", "total")]
    graph = helper.make_graph([helper.make_node("Add", ["left", "right"], ["total"])], "add", tensors[:2], tensors[2:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_a_converted_classifier_answers_as_the_original(iris, classifier, converted, round_trip):
    data = iris[0].to_numpy(np.float32)
    made, answers = round_trip(converted, data[:5], data)
    np.testing.assert_array_equal(answers["label"], classifier.predict(iris[0]))
    np.testing.assert_allclose(answers["probabilities"], classifier.predict_proba(iris[0]), atol=1e-5)
    assert (made.manifest.flavour, made.manifest.pickled) == ("onnx", False)
    assert [field.name for field in made.manifest.signature.inputs] == ["X"]
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_a_frame_goes_into_the_one_input_of_a_model(iris, classifier, converted, round_trip):
    made, answers = round_trip(converted, iris[0].head(), iris[0])
    np.testing.assert_array_equal(answers["label"], classifier.predict(iris[0]))
    assert [field.name for field in made.manifest.signature.inputs] == list(iris[0].columns)


def test_probabilities_as_dicts_become_one_array(iris, classifier, round_trip):
    data = iris[0].to_numpy(np.float32)
    model = to_onnx(classifier, data[:1], options={"zipmap": True})
    _made, answers = round_trip(model, data[:5], data)
    assert answers["output_probability"].shape == (150, 3)


def test_several_inputs_are_columns_by_name(added, round_trip):
    frame = pd.DataFrame({"right": [1.0, 2.0], "left": [10.0, 20.0]}, dtype=np.float32)
    _made, answers = round_trip(added, frame, frame)
    assert answers["total"].tolist() == [11.0, 22.0]


def test_columns_that_the_model_does_not_have_are_named(added, store):
    with pytest.raises(ConfigurationError, match=r"takes \['left', 'right'\]"):
        package(added, name="add", version="1.0.0", example={"left": [1.0], "wrong": [2.0]}, store=store)


def test_bytes_and_a_file_are_the_same_model(iris, converted, store, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(converted.SerializeToString(deterministic=True))
    example = iris[0].to_numpy(np.float32)[:5]
    made = package(path.read_bytes(), name="iris", version="1.0.0", example=example, store=store)
    again = package_path(path, store=store, name="iris", version="1.0.0", example=example)
    assert again.digest == made.digest


def test_bytes_that_are_no_model_are_refused(store):
    with pytest.raises(IntegrityError, match="onnxruntime cannot read"):
        package(b"not a model", name="iris", version="1.0.0", example=np.ones((1, 2)), store=store)


def test_weights_outside_of_the_file_are_refused(store, tmp_path):
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 2]) for name in ("x", "y")]
    weights = numpy_helper.from_array(np.ones((2, 2), np.float32), "weights")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["y"])], "mul", *([t] for t in tensors), [weights]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path / "model.onnx"
    onnx.save_model(model, path, save_as_external_data=True, size_threshold=0, location="weights.bin")
    assert (tmp_path / "weights.bin").is_file()
    with pytest.raises(IntegrityError, match="data inside"):
        package_path(path, store=store, name="iris", version="1.0.0", example=np.ones((1, 2), np.float32))
