"""The image question: prebuilt images from the vendor's tables, one's own, and refusals that say what to do."""

from __future__ import annotations

import json
import subprocess
import sys

import attrs
import pytest

from modeldeploy.backends.sagemaker import images
from modeldeploy.errors import ConfigurationError, MissingDependencyError, UnsupportedError
from modeldeploy.packaging.manifest import Manifest
from modeldeploy.values.model import DType, Field, Signature

REGISTRIES = {"eu-west-1": "111122223333", "cn-north-1": "444455556666"}


def version(repository, **more):
    return {"registries": REGISTRIES, "repository": repository, **more}


# In the shape of sagemaker 3.27.0's own tables.
TABLES = {
    "sklearn": {
        "inference": {
            "versions": {
                "1.4-2": version("sagemaker-scikit-learn", processors=["cpu"], py_versions=["py3"]),
                "1.4-2-py312": version("sagemaker-scikit-learn", processors=["cpu"], py_versions=["py3"]),
            }
        }
    },
    "xgboost": {"inference": {"versions": {"3.0-5": version("sagemaker-xgboost")}}},
    "pytorch": {
        "inference": {
            "processors": ["cpu", "gpu"],
            "version_aliases": {"2.6": "2.6.0"},
            "versions": {
                "2.3.0": version("pytorch-inference", py_versions=["py311"]),
                "2.6.0": version("pytorch-inference", py_versions=["py312"]),
            },
        }
    },
}


@pytest.fixture
def tables(tmp_path):
    for name, table in TABLES.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(table))
    return tmp_path


@pytest.fixture
def manifest():
    signature = Signature((Field("x", DType.FLOAT64),), (Field("prediction", DType.FLOAT64),))
    return Manifest(
        name="iris", version="1.0.0", flavour="sklearn", method="predict", options={}, signature=signature,
        container="matrix", columns=(), requirements=("scikit-learn==1.4.2", "torch==2.6.0"), python="3.11.9",
        pickled=False, files={},
    )  # fmt: skip


def choose(manifest, tables, region="eu-west-1", **more):
    return images.choose(manifest, region=region, tables=tables, **more)


def test_an_image_that_is_named_is_taken_as_it_is(manifest):
    assert images.choose(manifest, region="eu-west-1", image="mine/server:1") == images.Image("mine/server:1")


@pytest.mark.parametrize("image", ["", "two words", "x" * 256], ids=["empty", "spaced", "long"])
def test_what_is_no_address_is_refused(manifest, image):
    with pytest.raises(ConfigurationError, match="not the address"):
        images.choose(manifest, region="eu-west-1", image=image)


def test_the_flavours_own_image_is_preferred(manifest, tables):
    assert choose(manifest, tables) == images.Image(
        "111122223333.dkr.ecr.eu-west-1.amazonaws.com/sagemaker-scikit-learn:1.4-2-py312-cpu-py3", "3.12", prebuilt=True
    )


def test_a_pickle_gets_the_python_that_it_was_made_with(manifest, tables):
    found = choose(attrs.evolve(manifest, pickled=True), tables)
    assert (found.python, "pytorch-inference:2.3.0-cpu-py311" in found.uri) == ("3.11", True)


def test_the_version_that_the_model_needs_is_preferred_to_the_newest(manifest, tables):
    older = attrs.evolve(manifest, flavour="torch", requirements=("torch==2.3.1",))
    assert choose(older, tables).uri.endswith("pytorch-inference:2.3.0-cpu-py311")
    assert choose(attrs.evolve(older, requirements=()), tables).uri.endswith(":2.3.0-cpu-py311")
    assert choose(attrs.evolve(manifest, flavour="torch"), tables).uri.endswith(":2.6.0-cpu-py312")


def test_an_image_of_unknown_python_is_passed_over(manifest, tables):
    found = choose(attrs.evolve(manifest, flavour="xgboost"), tables)
    assert "sagemaker-scikit-learn:1.4-2-py312" in found.uri


def test_gpus_get_an_image_for_gpus(manifest, tables):
    assert choose(attrs.evolve(manifest, flavour="torch"), tables, gpu=True).uri.endswith(":2.6.0-gpu-py312")


def test_tags_have_the_parts_that_the_tables_ask_for(manifest, tables):
    table = {
        "inference": {
            "versions": {
                "2.9.0": version(
                    "pytorch-inference", processors=["cpu", "gpu"], py_versions=["py312"],
                    container_version={"cpu": "ubuntu22.04"},
                ),
                "2.8.0": version("pytorch-inference", processors=["gpu"], py_versions=["py312"], processor_in_tag=False),
            }
        }
    }  # fmt: skip
    (tables / "pytorch.json").write_text(json.dumps(table))
    torch = attrs.evolve(manifest, flavour="torch", requirements=())
    assert choose(torch, tables).uri.endswith(":2.9.0-cpu-py312-ubuntu22.04")
    torch = attrs.evolve(torch, requirements=("torch==2.8.0",))
    assert choose(torch, tables, gpu=True).uri.endswith(":2.8.0-py312")


@pytest.mark.parametrize(
    ("name", "arm"),
    [("ml.c7g.large", True), ("ml.m6gd.xlarge", True), ("ml.g4dn.xlarge", False), ("ml.m5.large", False)],
)
def test_graviton_is_told_from_graphics(name, arm):
    assert images.is_arm(name) is arm


def test_graviton_needs_an_image_of_ones_own(manifest, tables):
    with pytest.raises(UnsupportedError, match="Graviton") as caught:
        choose(manifest, tables, arm=True)
    assert "image=" in caught.value.hint
    assert images.choose(manifest, region="eu-west-1", image="mine:1", arm=True).uri == "mine:1"


def test_the_host_name_is_that_of_the_partition(manifest, tables):
    assert choose(manifest, tables, "cn-north-1").uri.startswith("444455556666.dkr.ecr.cn-north-1.amazonaws.com.cn/")


@pytest.mark.parametrize(
    ("change", "region", "why"),
    [
        ({"pickled": True, "python": "3.13.1"}, "eu-west-1", r"needs Python 3\.13, in which its pickle was made"),
        ({}, "mars-1", "none in region 'mars-1'"),
        ({"flavour": "cobol"}, "eu-west-1", "none for flavour 'cobol'"),
    ],
    ids=["python", "region", "flavour"],
)
def test_what_no_prebuilt_image_serves_is_refused_with_the_alternative(manifest, tables, change, region, why):
    with pytest.raises(UnsupportedError, match=why) as caught:
        choose(attrs.evolve(manifest, **change), tables, region)
    assert "image=" in caught.value.hint


def test_without_the_vendors_package_the_feature_and_the_remedy_are_named(manifest, monkeypatch):
    monkeypatch.setattr(images.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="prebuilt image") as caught:
        images.choose(manifest, region="eu-west-1")
    assert "pip install 'modeldeploy[sagemaker]'" in caught.value.hint
    assert "image=" in caught.value.hint


def test_the_tables_are_read_without_importing_the_package(tmp_path, tables):
    """It stands for a package whose import must not happen."""
    folder = tmp_path / "site" / "sagemaker" / "core" / "image_uri_config"
    folder.parent.mkdir(parents=True)
    tables.joinpath("sklearn.json").rename(tmp_path / "kept.json")
    folder.mkdir()
    (tmp_path / "kept.json").rename(folder / "sklearn.json")
    (tmp_path / "site" / "sagemaker" / "__init__.py").write_text("raise SystemExit('imported')")
    code = "from modeldeploy.backends.sagemaker.images import _tables; print(_tables())"
    path = f"{tmp_path / 'site'}:{':'.join(sys.path)}"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(folder)
