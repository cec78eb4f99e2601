"""The example package's own tests: its backend is found by name and passes the suite."""

from __future__ import annotations

import hashlib
import sys
import tomllib
from pathlib import Path

import pytest

from modeldeploy import config, registry
from modeldeploy.testing.harness import Harness
from modeldeploy.testing.rollouts import RolloutConformance
from modeldeploy.testing.serving import ServingConformance
from modeldeploy.values.model import DType, Field, ModelVersion, Signature
from modeldeploy.values.serving import Revision

HERE = Path(__file__).parent


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Make the package look installed, as pip would, without installing it."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    info = tmp_path / "site" / "modeldeploy_shelf-1.0.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"]
    points = (f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in each.items()) for group, each in groups.items())
    (info / "entry_points.txt").write_text("\n".join(points))
    monkeypatch.syspath_prepend(str(info.parent))
    monkeypatch.syspath_prepend(str(HERE))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "modeldeploy_shelf"]:
        del sys.modules[name]


def _revision(version):
    digest = "sha256:" + hashlib.sha256(version.encode()).hexdigest()
    signature = Signature((Field("x", DType.FLOAT64),), (Field("y", DType.FLOAT64),))
    return Revision.of(ModelVersion("shelved", version, digest, "/nowhere", "function", signature))


@pytest.fixture
def harness(installed, tmp_path):
    settings = config.load({"MODELDEPLOY_HOME": str(tmp_path), "MODELDEPLOY_SHELF_FILE": str(tmp_path / "file.json")})
    return Harness(
        registry.create("shelf", settings),
        tuple(_revision(f"1.{minor}.0") for minor in range(3)),
        reopen=lambda: registry.create("shelf", settings),
        sample=3,
    )


class TestShelf(ServingConformance):
    """All rules of the service provider interface."""


class TestShelfRollouts(RolloutConformance):
    """All operations of the engine, stopped before every third effect."""


def test_it_is_known_by_its_entry_point_only_while_installed(installed, monkeypatch):
    assert "shelf" in registry.known()
    assert registry.find("shelf").__module__ == "modeldeploy_shelf.backend"
    monkeypatch.undo()
    assert "shelf" not in registry.known()
