"""The pinned protobuf is made once, beside the models, and a conversion that needs it runs in a process of its own."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from modeldeploy.convert import environment
from modeldeploy.errors import ConversionError

pytestmark = pytest.mark.filterwarnings("ignore:.*is slower")


@pytest.fixture
def histogram(smooth, model):
    """Give ``histogram(name)``: a model that the newest protobuf cannot write."""
    rows, _number, classes = smooth

    def make(name):
        return model(HistGradientBoostingClassifier(max_iter=5).fit(rows, classes), rows[:9], name=name)

    return make


@pytest.fixture
def wheel(tmp_path):
    """Pack the installed protobuf into a wheel again, so that pip installs it without a network."""
    found = importlib.metadata.distribution("protobuf")
    tag = next(line.split()[1] for line in found.read_text("WHEEL").splitlines() if line.startswith("Tag:"))
    path = tmp_path / "wheels" / f"protobuf-{found.version}-{tag}.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for each in found.files:
            if (
                ".." not in each.parts
                and "__pycache__" not in each.parts
                and each.name not in {"INSTALLER", "REQUESTED"}
            ):
                archive.write(each.locate(), str(each))
    return path


@pytest.fixture
def too_new(monkeypatch, wheel):
    """Let the installed protobuf count as too new, and be the pinned one as well; pip finds it in one directory only."""
    monkeypatch.setattr(environment, "_FIRST_TOO_NEW", 0)
    monkeypatch.setattr(environment, "PIN", f"protobuf=={importlib.metadata.version('protobuf')}")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return wheel


def test_only_histogram_boosting_needs_it_however_deep_it_stands(smooth, monkeypatch):
    rows, _number, classes = smooth
    boosted = make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=2)).fit(rows, classes)
    forest = RandomForestClassifier(2).fit(rows, classes)
    for version, needed in (("7.36.2", True), ("6.33.6", False), ("10.0.0", True)):
        monkeypatch.setattr(environment, "_installed", lambda version=version: version)
        assert environment.needs_pin(boosted) is needed
        assert not environment.needs_pin(forest)


def test_it_is_made_once_and_the_conversion_answers_as_the_original(too_new, histogram, smooth, modeldeploy_home):
    first = histogram("first")
    converted = first.to_onnx(sample=smooth[0])
    assert converted.predict(smooth[0]).tolist() == first.predict(smooth[0]).tolist()
    (place,) = (modeldeploy_home / "environments").iterdir()
    assert (place / "google" / "protobuf").is_dir()
    shutil.rmtree(too_new.parent)
    assert histogram("second").to_onnx(sample=smooth[0]).parity.passed


@pytest.mark.slow
def test_code_of_the_notebook_goes_along(too_new, smooth, model):
    rows, _number, classes = smooth

    def double(table):
        return table * 2

    fitted = make_pipeline(FunctionTransformer(double), HistGradientBoostingClassifier(max_iter=2)).fit(rows, classes)
    with pytest.raises(ConversionError, match="skl2onnx cannot convert Pipeline"):
        model(fitted, rows[:9]).to_onnx(sample=rows)


def test_what_to_run_is_said_when_it_cannot_be_made(too_new, histogram, smooth, modeldeploy_home):
    too_new.unlink()
    with pytest.raises(ConversionError, match="which could not be made") as caught:
        histogram("first").to_onnx(sample=smooth[0])
    hint = caught.value.hint
    assert hint.startswith(f"run: {sys.executable} -m pip ")
    assert hint.endswith(environment.PIN)
    assert str(modeldeploy_home / "environments" / environment.PIN.replace("==", "-")) in hint
    assert list((modeldeploy_home / "environments").iterdir()) == []


def test_another_protobuf_in_its_place_is_noticed(too_new, histogram, smooth, monkeypatch):
    histogram("first").to_onnx(sample=smooth[0])
    made = environment.pinned(Path(os.environ["MODELDEPLOY_HOME"]))
    init = made / "google" / "protobuf" / "__init__.py"
    init.write_text(init.read_text(encoding="utf-8") + "\n__version__ = '5.0.0'\n", encoding="utf-8")
    with pytest.raises(ConversionError, match="found protobuf 5"):
        histogram("second").to_onnx(sample=smooth[0])


PROGRAM = """
import json, sys
import google.protobuf
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from modeldeploy import Model
from modeldeploy.convert import sklearn
from modeldeploy.convert.layout import Feed, Layout
from modeldeploy.errors import ConversionError

rows = np.random.default_rng(0).normal(size=(200, 3))
fitted = HistGradientBoostingClassifier(max_iter=5).fit(rows, rows[:, 0] > 0)
try:
    sklearn.convert(fitted, Layout("array", (Feed("input", False, 3),)), "predict")
    here = "converted"
except ConversionError as error:
    here = error.message
model = Model(fitted, name="histogram", version="1.0.0", example=rows[:9]).to_onnx(sample=rows)
print(json.dumps([google.protobuf.__version__, here, bool(model.parity.passed)]))
"""


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_protobuf_7_refuses_histogram_boosting_and_the_pinned_one_converts_it(tmp_path, modeldeploy_home):
    """With the real packages, from the index that pip is set up with."""
    seven = tmp_path / "seven"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(seven), "protobuf>=7,<8"]
    subprocess.run(install, check=True, capture_output=True, timeout=200)
    paths = os.pathsep.join([str(seven), *(path for path in sys.path if path)])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM], capture_output=True, text=True, timeout=280, check=False,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    version, here, passed = json.loads(done.stdout)
    assert version.startswith("7.")
    assert "cannot convert HistGradientBoostingClassifier" in here
    assert passed
    assert np.all([each.name.startswith("protobuf-6.33.6-") for each in (modeldeploy_home / "environments").iterdir()])
