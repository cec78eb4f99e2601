"""Wheels for another machine: what is asked of pip, what is named when there is none, and what is unpacked."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from modeldeploy.edge import wheels
from modeldeploy.errors import ConfigurationError, IntegrityError, UnavailableError, UnsupportedError


@pytest.fixture
def pip(monkeypatch):
    """Answer as pip does, and keep what it was asked."""
    asked: list[list[str]] = []
    answer = {"returncode": 0, "stderr": ""}

    def run(command, **_given):
        asked.append(command)
        # One answer for all requests, or one for those that ask for a certain requirement.
        said = answer["stderr"] if answer.get("for", command[-1]) in command else ""
        return subprocess.CompletedProcess(command, answer["returncode"] if said else 0, "", said)

    monkeypatch.setattr(wheels.subprocess, "run", run)
    return asked, answer


def wheel(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_the_runtime_is_pinned_to_what_is_installed_here():
    import numpy as np

    found = wheels.pins()
    assert {text.partition("==")[0] for text in found} == set(wheels.RUNTIME)
    assert f"numpy=={np.__version__}" in found


def test_a_requirement_of_the_bundle_wins():
    assert "numpy==1.26.4" in wheels.pins(["numpy==1.26.4"])
    assert len(wheels.pins(["numpy==1.26.4"])) == len(wheels.RUNTIME)


def test_pip_is_asked_for_wheels_of_the_device_alone(pip, tmp_path):
    asked, _answer = pip
    found = wheels.resolve(["numpy==2.4.6"], architecture="aarch64", to=tmp_path, python="3.12")
    (command,) = asked
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--only-binary=:all:", "--no-deps", "--abi=cp312", "--platform=manylinux_2_28_aarch64"} <= set(command)
    assert "--platform=manylinux2014_aarch64" in command
    assert "--platform=manylinux_2_31_aarch64" not in command
    assert command[-1] == "numpy==2.4.6"
    assert [path.name.partition("-")[0] for path in found] == ["modeldeploy"]


def test_everything_that_has_no_wheel_is_named(pip, tmp_path):
    _asked, answer = pip
    missing = "onnxruntime==1.31.1"
    answer.update({"returncode": 1, "stderr": f"ERROR: No matching distribution found for {missing}\n", "for": missing})
    with pytest.raises(
        UnsupportedError, match=r"^onnxruntime==1\.31\.1 has no wheel for armv7l and Python 3\.11.*64-bit"
    ):
        wheels.resolve(["attrs==26.1.0", missing], architecture="armv7l", to=tmp_path)
    del answer["for"]
    with pytest.raises(UnsupportedError, match=r"^attrs==26\.1\.0, onnxruntime==1\.31\.1 have no wheel for aarch64"):
        wheels.resolve([missing, "attrs==26.1.0"], architecture="aarch64", to=tmp_path)


def test_an_index_that_cannot_be_reached_is_unavailable(pip, tmp_path):
    _asked, answer = pip
    answer.update(returncode=1, stderr="WARNING: Retrying\nERROR: Could not connect\n")
    with pytest.raises(UnavailableError, match="Could not connect"):
        wheels.resolve(["numpy==2.4.6"], architecture="aarch64", to=tmp_path)


@pytest.mark.parametrize(
    ("requirements", "more"),
    [
        (["numpy"], {}),
        (["numpy>=2"], {}),
        (["--index-url==x"], {}),
        (["numpy==2.4.6"], {"architecture": "riscv64"}),
        (["numpy==2.4.6"], {"python": "3.11; rm"}),
    ],
)
def test_what_is_not_exact_is_refused_before_anything_is_asked(pip, tmp_path, requirements, more):
    asked, _answer = pip
    with pytest.raises(ConfigurationError):
        wheels.resolve(requirements, **{"architecture": "aarch64", "to": tmp_path / "x", **more})
    assert asked == []
    assert not (tmp_path / "x").exists()


def test_wheels_are_unpacked_without_what_predictions_do_not_need(tmp_path):
    made = wheel(
        tmp_path / "a.whl",
        {
            "a/__init__.py": "",
            "a/tests/test_a.py": "",
            "a/core.pyi": "",
            "a/include/a.h": "",
            "a-1.data/purelib/b.py": "",
            "a-1.data/scripts/run": "",
            "a-1.dist-info/METADATA": "Name: a",
            "a-1.dist-info/RECORD": "",
        },
    )
    site = wheels.install([made], tmp_path / "site")
    found = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert found == {"a/__init__.py", "b.py", "a-1.dist-info/METADATA"}


@pytest.mark.parametrize("name", ["../out.py", "a/../../out.py", "/out.py"])
def test_a_wheel_that_leaves_its_directory_is_refused(tmp_path, name):
    with pytest.raises(IntegrityError, match="leaves the directory"):
        wheels.install([wheel(tmp_path / "a.whl", {name: "x"})], tmp_path / "site")
    assert not (tmp_path / "out.py").exists()


def test_a_damaged_wheel_is_refused(tmp_path):
    (tmp_path / "a.whl").write_bytes(b"PK no zip")
    with pytest.raises(IntegrityError, match=r"a\.whl"):
        wheels.install([tmp_path / "a.whl"], tmp_path / "site")


def test_our_own_wheel_is_the_same_each_time_and_runs_from_its_directory(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = (wheels.own_wheel(tmp_path / name) for name in ("one", "two"))
    assert hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(two.read_bytes()).digest()
    site = wheels.install([one], tmp_path / "site")
    code = (
        "import modeldeploy.edge_agent.agent as a, importlib.metadata as m; print(a.__file__, m.version('modeldeploy'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith(str(site))


@pytest.mark.slow
def test_our_own_wheel_is_one_that_pip_installs(tmp_path):
    made = wheels.own_wheel(tmp_path)
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--target",
        str(tmp_path / "site"),
        str(made),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    assert (tmp_path / "site" / "modeldeploy" / "edge" / "wheels.py").is_file()
