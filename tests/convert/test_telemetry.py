"""onnxruntime keeps a device id and a database in the user's home unless it is told not to before it is imported; it is, everywhere."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CONVERT = """
import numpy as np
from sklearn.neural_network import MLPClassifier
from modeldeploy import Model

rows = np.random.default_rng(0).normal(size=(60, 3))
fitted = MLPClassifier((64,), max_iter=20).fit(rows, (rows[:, 0] > 0).astype(int))
model = Model(fitted, name="model", version="1.0.0", example=rows[:9])
small = model.to_onnx(sample=rows).quantize(sample=rows, agreement=0.5)
print(small.predict(rows[:2]).shape)
print(small.uri)
"""
SERVE = """
import sys
from pathlib import Path
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.loading import load
loaded = load(Bundle.open(Path(sys.argv[1])))
print(loaded.predict(loaded.golden.inputs)["prediction"].shape)
"""


@pytest.fixture
def alone(tmp_path):
    """Run code as a user with an empty home does; gives the lines that it wrote."""
    home = tmp_path / "user"
    home.mkdir()
    dropped = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_DATA_HOME"}
    environ = {key: value for key, value in os.environ.items() if key not in dropped}

    def run(code, *arguments):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, *arguments], capture_output=True, text=True, timeout=110,
            check=False, env={**environ, "HOME": str(home), "USERPROFILE": str(home)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    run.home = home
    return run


def test_converting_quantising_and_serving_leave_nothing_in_the_home(alone):
    _shape, uri = alone(CONVERT)
    assert alone(SERVE, uri) == ["(9,)"]
    left = [str(path.relative_to(alone.home)) for path in alone.home.rglob("*")]
    assert not [path for path in left if "onnxruntime" in path or "Microsoft" in path or "deviceid" in path]


def test_the_converters_are_told_before_they_import_it():
    code = "import os; from modeldeploy.packaging.dependencies import need; need('skl2onnx'); print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environ = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
        env=environ,
    )
    assert done.stdout.strip() == "1"
