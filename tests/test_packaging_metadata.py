from __future__ import annotations

import importlib.metadata
import os
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import modeldeploy

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CORE = {
    "attrs", "httptools", "numpy", "orjson", "packaging", "platformdirs", "structlog", "tenacity", "uvloop",
}  # fmt: skip
# Its minor versions move what they are built of (docs/dependencies.md), and the rehearsal guards each.
BOUNDED = {"azure-ai-ml", "google-cloud-aiplatform"}
DISTRIBUTION = importlib.metadata.distribution("modeldeploy")
from_wheel = pytest.mark.skipif(
    not os.environ.get("MODELDEPLOY_TEST_WHEEL"), reason="make test runs this against the wheel"
)


def names(requirements: list[str]) -> set[str]:
    return {Requirement(each).name.lower() for each in requirements}


def test_core_dependencies_are_these_and_no_more():
    assert names(PROJECT["dependencies"]) == CORE


def test_what_is_installed_asks_for_the_same_as_the_project_file():
    requires = [Requirement(each) for each in DISTRIBUTION.requires or []]
    core = {each.name.lower() for each in requires if "extra ==" not in str(each.marker or "")}
    assert core == CORE
    assert set(DISTRIBUTION.metadata.get_all("Provides-Extra") or []) == set(PROJECT["optional-dependencies"])


def test_no_requirement_is_pinned_or_comes_from_elsewhere():
    every = [*PROJECT["dependencies"], *(each for extra in PROJECT["optional-dependencies"].values() for each in extra)]
    for requirement in map(Requirement, every):
        assert requirement.url is None, requirement
        unwanted = "==" if requirement.name in BOUNDED else "==|<"
        assert not re.search(unwanted, str(requirement.specifier)), requirement


def test_the_constraints_satisfy_every_requirement_of_the_project():
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line), f"not a plain pin: {line!r}"
            name, _, version = line.partition("==")
            pins[re.sub(r"[-_.]+", "-", name).lower()] = version
    optional = PROJECT["optional-dependencies"]
    whole = next(Requirement(each) for each in optional["dev"] if each.startswith("modeldeploy["))
    extras = [*optional["dev"], *(each for extra in sorted(whole.extras) for each in optional[extra])]
    for requirement in map(Requirement, [*PROJECT["dependencies"], *extras]):
        linux = requirement.marker is None or requirement.marker.evaluate({"sys_platform": "linux", "extra": ""})
        if requirement.name != "modeldeploy" and linux:
            assert requirement.specifier.contains(pins[re.sub(r"[-_.]+", "-", requirement.name).lower()]), requirement


def test_the_version_is_the_one_of_the_project_file():
    assert modeldeploy.__version__ == PROJECT["version"] == DISTRIBUTION.version


def test_python_and_the_licence_are_stated():
    metadata = DISTRIBUTION.metadata
    assert metadata["License-Expression"] == "Apache-2.0"
    required = SpecifierSet(metadata["Requires-Python"])
    assert [each for each in ("3.10.14", "3.11.0", "3.12.1", "3.13.0") if required.contains(each)] == [
        "3.11.0",
        "3.12.1",
        "3.13.0",
    ]
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert text.rstrip().endswith("limitations under the License.")


def test_the_package_is_marked_as_typed():
    assert (Path(modeldeploy.__file__).parent / "py.typed").is_file()


@from_wheel
def test_what_is_tested_is_the_installed_wheel_and_not_a_source_tree():
    assert "site-packages" in Path(modeldeploy.__file__).parts
    assert not (ROOT / "modeldeploy").exists()


@from_wheel
def test_the_wheel_holds_the_package_its_metadata_and_the_licence_only():
    files = [str(file) for file in DISTRIBUTION.files or [] if "__pycache__" not in str(file)]
    assert "modeldeploy/py.typed" in files
    assert any(file.endswith("licenses/LICENSE") for file in files)
    strange = [file for file in files if not re.match(r"modeldeploy(-[\d.]+\.dist-info)?/|.*bin/modeldeploy$", file)]
    assert strange == []
    assert [file for file in files if re.search(r"(^|/)(tests|conftest|test_)", file)] == []


@from_wheel
def test_the_command_is_installed():
    (point,) = importlib.metadata.entry_points(group="console_scripts", name="modeldeploy")
    assert callable(point.load())
