"""Archives in the provider's prebuilt images, as the rehearsal runs them: a real process for each, the library only from the archive."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from modeldeploy.backends.sagemaker import archive, entry
from modeldeploy.packaging.golden import Golden
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store
from modeldeploy.simulate.sagemaker import toolkit


def _sum(columns):
    return columns["x"] + columns["y"]


def _function(_table, _target):
    return _sum, {"x": np.array([0.5, 1.0]), "y": np.array([1, 2])}


def _sklearn(table, target):
    return LogisticRegression(max_iter=500).fit(table, target), table.head()


def _xgboost(table, target):
    import xgboost

    return xgboost.XGBClassifier(n_estimators=3).fit(table.to_numpy(), target), table.head().to_numpy()


def _lightgbm(table, target):
    import lightgbm

    model = lightgbm.LGBMClassifier(n_estimators=3, verbose=-1).fit(table.to_numpy(), target)
    return model.booster_, table.head().to_numpy()


def _onnx(table, target):
    from skl2onnx import to_onnx

    example = table.head().to_numpy().astype(np.float32)
    model = LogisticRegression(max_iter=500).fit(table.to_numpy(), target)
    return to_onnx(model, example, options={"zipmap": False}).SerializeToString(), example


def _torch(table, _target):
    import torch

    return torch.nn.Sequential(torch.nn.Linear(4, 3)).eval(), table.head().to_numpy().astype(np.float32)


MAKERS = {maker.__name__[1:]: maker for maker in (_function, _sklearn, _xgboost, _lightgbm, _onnx, _torch)}
SLOW = {"lightgbm", "onnx", "torch"}


class Container:
    """A prebuilt image's host over an archive that was unpacked; ends with the test."""

    def __init__(self, folder: Path, bundle, family: str, members) -> None:
        packed = folder / "model.tar.gz"
        packed.write_bytes(archive.pack(archive.TarStream(members), 0, 0, 1 << 40).data)
        with tarfile.open(packed) as tar:
            tar.extractall(folder / "model", filter="data")
        environ = {
            **entry.environment(bundle, [bundle.digest]),
            "SAGEMAKER_BASE_DIR": str(folder),
            "PATH": "/usr/bin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [sys.executable, str(Path(toolkit.__file__)), "--family", family]
        self.process = subprocess.Popen(
            command, env=environ, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.said: list[str] = []
        self.port = 0

    def listen(self):
        """Wait until it says where it listens; what it says before is kept."""
        for line in self.process.stdout:
            if line.startswith('{"port"'):
                self.port = json.loads(line)["port"]
                return self
            self.said.append(line)
        pytest.fail("".join(self.said))

    def ask(self, body=None, kind="application/json", accept="application/json", path="/invocations"):
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, body, {"Content-Type": kind, "Accept": accept})
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def contain(tmp_path):
    made = []

    def make(bundle, family="inference", members=None):
        made.append(Container(tmp_path, bundle, family, members or entry.members(bundle)))
        return made[-1].listen()

    yield make
    for each in made:
        each.close()


def _rows(golden):
    columns = {name: array.tolist() for name, array in golden.inputs.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@pytest.mark.parametrize(
    "flavour", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in MAKERS]
)
def test_golden_outputs_are_the_same_for_every_flavour(contain, tmp_path, flavour):
    """Asked over HTTP, beside the check that the container makes of itself before it answers at all."""
    table, target = load_iris(as_frame=True, return_X_y=True)
    model, example = MAKERS[flavour](table, target)
    bundle = package(model, name="model", version="1.0.0", example=example, store=Store(tmp_path / "store"))
    assert bundle.manifest.flavour == flavour
    golden = Golden.from_bytes(bundle.read("golden.json"))
    status, body = contain(bundle).ask(json.dumps({"instances": _rows(golden)}).encode())
    assert status == 200, body
    found = json.loads(body)["predictions"]
    names = list(golden.outputs)
    columns = {names[0]: found} if len(names) == 1 else {name: [row[name] for row in found] for name in names}
    got = {name: np.array(values).astype(golden.outputs[name].dtype) for name, values in columns.items()}
    assert golden.differences(got) == ()


@pytest.fixture(scope="module")
def adder(tmp_path_factory):
    example = {"x": np.array([0.5, 1.0]), "y": np.array([1, 2])}
    store = Store(tmp_path_factory.mktemp("adder"))
    return package(_sum, name="adder", version="1.0.0", example=example, store=store)


def test_binary_tensors_go_through_invocations(contain, adder):
    """As Endpoint.predict sends them."""
    from modeldeploy.serving import binary_type

    head = {
        "inputs": [
            {"name": name, "shape": [1], "datatype": kind, "parameters": {"binary_data_size": 8}}
            for name, kind in (("x", "FP64"), ("y", "INT64"))
        ]
    }
    text = json.dumps(head).encode()
    kind = binary_type.folded({"inference-header-content-length": str(len(text))})["content-type"]
    body = text + np.array([1.5]).tobytes() + np.array([2]).tobytes()
    status, answer = contain(adder).ask(body, kind, "*/*")
    assert status == 200, answer
    assert b"3.5" in answer or answer.endswith(np.array([3.5]).tobytes())


@pytest.mark.parametrize("family", ["inference", "containers"])
def test_a_wrong_request_is_an_error_that_names_the_column(contain, adder, family):
    status, body = contain(adder, family).ask(b'{"instances": [{"x": 1.0, "z": 2}]}')
    # The host of the scikit-learn images has no way to say whose mistake it was, unless its library's response is there.
    assert status == (422 if family == "inference" else 500)
    assert family == "containers" or b"'y'" in body


def test_what_the_archive_lacks_is_not_found_elsewhere(contain, adder):
    """A container that lived off the library of whoever runs the rehearsal would prove nothing."""
    members = [each for each in entry.members(adder) if "modeldeploy/packaging/" not in each.name]
    container = contain(adder, members=members)
    assert container.ask(path="/ping")[0] != 200
    assert "modeldeploy.packaging" in "".join(container.said)
