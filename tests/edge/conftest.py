"""A fleet's key, a small real ONNX bundle, and what is made of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modeldeploy.edge.keys import SigningKey
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store

FLEET = "cameras"


def linear(weight: float) -> bytes:
    """Give an ONNX graph that multiplies a row of four numbers by a weight and adds them up."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.full((4, 1), weight, dtype=np.float32), "weights")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["rows", "weights"], ["score"])],
        "linear",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """Two versions of one model, which answer differently."""
    import onnx

    store = Store(tmp_path_factory.mktemp("store"))
    models = {version: onnx.load_from_string(linear(weight)) for version, weight in (("1.0.0", 1.0), ("2.0.0", 2.0))}
    return {
        version: package(model, name="linear", version=version, example=ROWS, store=store)
        for version, model in models.items()
    }


@pytest.fixture(scope="session")
def key() -> SigningKey:
    return SigningKey(bytes(range(32)))


@pytest.fixture
def hub_directory(tmp_path: Path) -> Path:
    directory = tmp_path / "hub"
    directory.mkdir()
    return directory
