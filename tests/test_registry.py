"""Backend names to classes."""

from __future__ import annotations

import sys

import pytest

from modeldeploy import config, registry
from modeldeploy.backends.memory import MemoryBackend
from modeldeploy.errors import ConfigurationError, MissingDependencyError, UnknownBackendError


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Give a function that installs a distribution, with one entry point, for this test only."""

    def install(package, name, target):
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{registry.ENTRY_POINTS}]\n{name} = {target}\n")

    monkeypatch.syspath_prepend(str(tmp_path))
    return install


def test_a_built_in_backend_is_found_without_a_scan_of_metadata(monkeypatch):
    monkeypatch.setattr(registry, "_entry_points", lambda: pytest.fail("scanned"))
    assert registry.find("memory") is MemoryBackend


def test_a_backend_is_made_with_its_settings(tmp_path):
    settings = config.load({"MODELDEPLOY_HOME": str(tmp_path), "MODELDEPLOY_MEMORY_STEPS": "1"})
    assert registry.create("memory", settings) is registry.create("memory", settings)


def test_an_unknown_name_lists_the_known_ones_and_the_nearest():
    with pytest.raises(UnknownBackendError, match="no backend is called 'lokal'") as caught:
        registry.find("lokal")
    assert "did you mean 'local'?" in caught.value.hint
    assert "memory" in caught.value.hint


def test_a_name_like_no_other_gets_no_suggestion():
    with pytest.raises(UnknownBackendError) as caught:
        registry.find("zzz")
    assert "did you mean" not in caught.value.hint


@pytest.mark.parametrize("target", [MemoryBackend, "modeldeploy.backends.memory:MemoryBackend"])
def test_a_registered_backend_is_found(target):
    registry.register("mine", target)
    registry.register("mine", target)
    assert registry.find("mine") is MemoryBackend
    assert "mine" in registry.known()


def test_a_name_is_registered_once():
    registry.register("mine", "one:One")
    with pytest.raises(ConfigurationError, match="registered already, by 'one:One'"):
        registry.register("mine", "two:Two")


def test_a_built_in_name_is_not_taken():
    with pytest.raises(ConfigurationError, match="'local' is built in"):
        registry.register("local", MemoryBackend)


def test_a_backend_of_another_package_is_found_by_its_entry_point(distribution):
    distribution("theirs", "their-cloud", "modeldeploy.backends.memory:MemoryBackend")
    assert registry.find("their-cloud") is MemoryBackend
    assert "their-cloud" in registry.known()


def test_two_packages_with_one_name_are_refused_by_both_names(distribution):
    distribution("one", "cloud", "one:One")
    distribution("two", "cloud", "two:Two")
    with pytest.raises(ConfigurationError, match="two packages offer a backend 'cloud'") as caught:
        registry.find("cloud")
    assert "one:One" in str(caught.value)
    assert "two:Two" in str(caught.value)


def test_a_missing_package_is_told_with_the_remedy(monkeypatch):
    registry.register("mine", "no_such_package.backend:Mine")
    with pytest.raises(MissingDependencyError, match="'mine' needs a package") as caught:
        registry.find("mine")
    assert caught.value.hint == "pip install no_such_package"
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_missing_extra_is_told_by_its_command(monkeypatch):
    monkeypatch.setitem(registry.BUILT_IN, "vertex", "no_such_package:Vertex")
    with pytest.raises(MissingDependencyError) as caught:
        registry.find("vertex")
    assert caught.value.hint == "pip install 'modeldeploy[vertex]'"


def test_an_import_error_without_a_name_is_told_by_the_module(monkeypatch, tmp_path):
    (tmp_path / "nameless_backend.py").write_text("raise ImportError('broken')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.register("mine", "nameless_backend:Mine")
    with pytest.raises(MissingDependencyError, match="broken") as caught:
        registry.find("mine")
    assert caught.value.hint == "pip install nameless_backend"
    assert "nameless_backend" not in sys.modules


def test_a_class_that_is_not_there_is_told():
    registry.register("mine", "modeldeploy.backends.memory:Nothing")
    with pytest.raises(ConfigurationError, match="there is no such class"):
        registry.find("mine")


def test_a_backend_that_has_nothing_to_begin_is_not_even_imported(monkeypatch, modeldeploy_home):
    settings = config.load()
    monkeypatch.setattr(registry, "_import", lambda name, _target: pytest.fail(name))
    for name in ("memory", "sagemaker", "zzz"):
        registry.expect(name, settings, "sklearn")


def test_what_a_backend_begins_is_told_its_home_settings_and_the_flavour(monkeypatch, modeldeploy_home):
    told, settings = [], config.load()
    monkeypatch.setattr(registry, "_import", lambda *_target: lambda *arguments: told.append(arguments))
    registry.expect("local", settings, "onnx")
    assert told == [(modeldeploy_home, settings.of_backend("local"), "onnx")]
