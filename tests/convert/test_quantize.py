"""8 bits for dense layers and convolutions, in the types that no processor cuts off, and nothing for trees."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnxruntime import quantization
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modeldeploy.convert import cpu, quantizing
from modeldeploy.convert.bundling import ARTIFACT
from modeldeploy.convert.quantizing import Method
from modeldeploy.errors import ConfigurationError, ConversionParityError, UnsupportedError
from modeldeploy.packaging.flavours.onnx import bind
from modeldeploy.packaging.golden import Golden, allowed
from modeldeploy.values.tolerance import Tolerance

pytestmark = pytest.mark.filterwarnings("ignore:.*is slower", "ignore:Stochastic Optimizer")


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(240, 1, 12, 12)).astype(np.float32)
    rows[::2, :, :6] += 1.0
    rows[1::2, :, 6:] += 1.0
    return rows, (np.arange(240) % 2).astype(np.int64)


def convolutional():
    """Two convolutions and a dense layer that tells whether the upper half of a picture is the brighter one."""
    rng = np.random.default_rng(0)
    half = np.repeat([1.0, -1.0], 18)
    dense = np.stack([np.tile(half, 16), np.tile(-half, 16)]).astype(np.float32)
    weights = {
        "first": rng.uniform(0.5, 1.0, size=(8, 1, 3, 3)).astype(np.float32) / 9,
        "second": rng.uniform(-0.2, 1.0, size=(16, 8, 3, 3)).astype(np.float32) / 72,
        "dense": dense / 36,
    }
    node, made = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        node("Conv", ["input", "first"], ["a"], pads=[1, 1, 1, 1]), node("Relu", ["a"], ["b"]),
        node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["c", "second"], ["d"], pads=[1, 1, 1, 1]), node("Relu", ["d"], ["e"]),
        node("Flatten", ["e"], ["f"]), node("Gemm", ["f", "dense"], ["prediction"], transB=1),
    ]  # fmt: skip
    graph = onnx.helper.make_graph(
        nodes, "cnn", [made("input", 1, ["rows", 1, 12, 12])], [made("prediction", 1, ["rows", 2])],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString(deterministic=True)


@pytest.fixture
def cnn(pictures, model):
    return model(convolutional(), pictures[0][:8], name="cnn")


@pytest.fixture
def dense(smooth, model):
    rows, _number, classes = smooth
    fitted = MLPClassifier((256, 128), max_iter=5, random_state=0).fit(rows, classes)
    return model(fitted, rows[:30], name="dense").to_onnx(sample=rows)


def kinds(converted):
    graph = onnx.load_from_string(converted.bundle.read(ARTIFACT)).graph
    return {node.op_type for node in graph.node}, {each.name: each.data_type for each in graph.initializer}, graph


def test_dense_layers_are_quantised_while_they_run(dense, smooth):
    rows, _number, classes = smooth
    small = dense.quantize(sample=rows, labels=classes)
    assert (small.parity.kind, small.version) == ("int8 dynamic", "1.0.0+onnx.int8")
    assert small.parity.after.size < 0.4 * small.parity.before.size
    assert "MatMulInteger" in kinds(small)[0]
    assert small.signature == dense.signature
    assert np.mean(small.predict(rows) == dense.predict(rows)) >= 0.99
    assert abs(small.parity.after.score - small.parity.before.score) <= 0.01
    assert small.parity.source == dense.digest


def test_dense_layers_after_a_scaler_are_quantised_too(smooth, model):
    rows, _number, classes = smooth
    fitted = make_pipeline(StandardScaler(), MLPClassifier((64,), max_iter=5, random_state=0)).fit(rows, classes)
    plain = model(fitted, rows[:30], name="scaled").to_onnx(sample=rows)
    assert "MatMulInteger" in kinds(plain.quantize(sample=rows, agreement=0.9))[0]


def test_convolutions_are_quantised_with_rows_to_calibrate_by(cnn, pictures):
    rows, classes = pictures
    small = cnn.quantize(sample=rows, labels=classes)
    assert small.parity.kind == "int8 static"
    assert small.parity.before.score > 0.95
    assert abs(small.parity.after.score - small.parity.before.score) <= 0.01
    assert np.mean(small.predict(rows).argmax(1) == cnn.predict(rows).argmax(1)) >= 0.99
    assert small.parity.cpu == cpu.describe()
    assert cnn.quantize(sample=rows, labels=classes) == small


def test_weights_and_activations_are_unsigned_and_have_one_range(cnn, pictures):
    small = cnn.quantize(sample=pictures[0])
    operators, types, graph = kinds(small)
    assert {"QuantizeLinear", "DequantizeLinear"} & operators
    zero_points = {node.input[2] for node in graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}}
    eight = {types[name] for name in zero_points if name in types} - {onnx.TensorProto.INT32}
    assert eight == {onnx.TensorProto.UINT8}
    scalars = {each.name: list(each.dims) for each in graph.initializer if each.name in zero_points}
    assert all(np.prod(dims or [1]) == 1 for name, dims in scalars.items() if types[name] == onnx.TensorProto.UINT8)


def quantised_error(data, rows, folder, *, weights):
    """Quantise as the common recipe does and give the largest error, beside float32."""

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.parts = iter([{"rows": rows}])

        def get_next(self):
            return next(self.parts, None)

    folder.mkdir()
    (folder / "in.onnx").write_bytes(data)
    quantization.quantize_static(
        folder / "in.onnx", folder / "out.onnx", Reader(), quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QUInt8, weight_type=weights, per_channel=False,
    )  # fmt: skip
    expected, got = (
        next(iter(bind(each, method="run")(rows).values())) for each in (data, (folder / "out.onnx").read_bytes())
    )
    return float(np.abs(expected - got).max() / np.abs(expected).max())


def saturating():
    """A convolution whose products of two are as large as 8 bits make them: 2 x 255 x 127 is more than 16 bits hold."""
    rng = np.random.default_rng(0)
    weights = onnx.numpy_helper.from_array(rng.uniform(0.9, 1.0, size=(8, 16, 3, 3)).astype(np.float32), "w")
    made = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["rows", "w"], ["out"])], "conv",
        [made("rows", 1, ["n", 16, 8, 8])], [made("out", 1, ["n", 8, 6, 6])], [weights],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    return model.SerializeToString(), rng.uniform(0.9, 1.0, size=(16, 16, 8, 8)).astype(np.float32)


@pytest.mark.skipif(not cpu.saturates(cpu.describe()), reason="only x86 with AVX2 and without VNNI cuts products off")
@pytest.mark.filterwarnings("ignore")
def test_signed_weights_are_cut_off_on_this_processor_and_unsigned_are_not(tmp_path):
    data, rows = saturating()
    signed = quantised_error(data, rows, tmp_path / "s8", weights=quantization.QuantType.QInt8)
    unsigned = quantised_error(data, rows, tmp_path / "u8", weights=quantization.QuantType.QUInt8)
    assert unsigned < 0.02
    assert signed > 3 * unsigned


def test_another_processor_may_round_to_the_next_step_and_not_further(cnn, pictures):
    """The golden outputs of a model in 8 bits are compared by its own steps, wherever it is deployed."""
    small = cnn.quantize(sample=pictures[0])
    tolerance = allowed(small.bundle.manifest.options)
    expected = small.predict(pictures[0][:8])
    reach = float(np.quantile(cnn.predict(pictures[0]), 0.99) - np.quantile(cnn.predict(pictures[0]), 0.01))
    golden = Golden({}, {"prediction": expected})
    assert not golden.differences({"prediction": expected + np.float32(reach / 100)}, tolerance)
    assert golden.differences({"prediction": expected + np.float32(reach / 10)}, tolerance)
    assert allowed(cnn.bundle.manifest.options) == Tolerance()


def test_trees_are_refused_with_the_reason(smooth, model):
    rows, _number, classes = smooth
    forest = model(RandomForestClassifier(5, random_state=0).fit(rows, classes), rows[:9]).to_onnx(sample=rows)
    with pytest.raises(UnsupportedError, match="trees, which compare and do not multiply") as caught:
        forest.quantize(sample=rows)
    assert caught.value.capability == "quantize"


def test_wrong_wishes_are_refused_before_any_work(cnn, smooth, model):
    rows, _number, classes = smooth
    with pytest.raises(ConfigurationError, match="only ONNX models are quantised"):
        model(LogisticRegression().fit(rows, classes), rows[:9]).quantize()
    with pytest.raises(ConfigurationError, match="needs rows to find its ranges"):
        cnn.quantize()
    with pytest.raises(ConfigurationError, match="method is 'int4'"):
        cnn.quantize(method="int4")
    with pytest.raises(ConfigurationError, match="agreement is 2"):
        cnn.quantize(agreement=2)


def test_convolutions_stay_as_they_are_when_dense_layers_are_quantised_dynamically(cnn, pictures):
    mixed = cnn.quantize(sample=pictures[0], method="dynamic")
    operators = kinds(mixed)[0]
    assert "Conv" in operators
    assert "ConvInteger" not in operators
    assert any("left in float32" in note for note in mixed.parity.notes)


def test_a_model_that_eight_bits_ruin_is_refused_with_its_report(model):
    """A tiny difference of large numbers is below what 8 bits can tell."""
    made, weights = onnx.helper.make_tensor_value_info, np.array([[1000.0, 1000.0], [1.0, 1.01]], np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["input", "w"], ["prediction"])], "thin",
        [made("input", 1, ["rows", 2])], [made("prediction", 1, ["rows", 2])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    data = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    rows = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    plain = model(data, rows[:9], name="thin")
    with pytest.raises(ConversionParityError, match="does not answer the same in 8 bits") as caught:
        plain.quantize(sample=rows, method="static")
    assert 0 < caught.value.report.checks[0].outputs[0].differing <= 64


@pytest.mark.parametrize("method", ["auto", "dynamic", "static"])
def test_the_method_follows_the_layers(method, cnn, pictures):
    data, manifest = cnn.bundle.read(ARTIFACT), cnn.bundle.manifest
    chosen = quantizing.choose(data, manifest, method, sampled=True)
    assert chosen == {"auto": Method.STATIC}.get(method, method)
