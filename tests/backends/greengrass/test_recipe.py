"""What a device is told to install and run, and what it downloads."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import attrs
import numpy as np
import orjson
import pytest
from sklearn.linear_model import LinearRegression

from modeldeploy.backends.greengrass import Greengrass, GreengrassOptions, artifact, names, recipe
from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store
from modeldeploy.simulate.greengrass.recipes import faults
from modeldeploy.values.serving import Revision, Scale

URL = "s3://bucket/model.zip"


def bundle_of(revision):
    return Bundle.open(Path(revision.model.uri), expect=revision.model.digest)


def test_a_recipe_is_right_and_the_same_each_time(revisions):
    found = recipe.component("plant", revisions[0], URL)
    assert faults(found) == []
    assert recipe.dump(found) == recipe.dump(recipe.component("plant", revisions[0], URL))
    assert found["Manifests"][0]["Artifacts"][0]["Uri"] == URL


def test_installing_ends_with_the_self_test(revisions):
    """A device that fails it fails the deployment, and goes back."""
    script = recipe.component("plant", revisions[0], URL)["Manifests"][0]["Lifecycle"]["Install"]["Script"]
    *before, last = script.split(" && ")
    assert "rehearse(Path('bundle').resolve())" in last
    assert any("pip install" in each for each in before)
    assert set("\n$`") & set(script) == set()


def test_telemetry_of_onnxruntime_is_off_before_it_is_loaded(revisions):
    assert (
        recipe.component("plant", revisions[0], URL)["Manifests"][0]["Lifecycle"]["Setenv"]["ORT_DISABLE_TELEMETRY"]
        == "1"
    )


def test_versions_follow_from_content_and_have_at_most_six_digits_in_a_part(revisions):
    found = {names.version("plant", revision) for revision in revisions}
    found |= {
        names.version("dock", revisions[0]),
        names.version("plant", Revision.of(revisions[0].model, scale=Scale(2))),
    }
    assert len(found) == len(revisions) + 2
    assert all(re.fullmatch(r"1\.\d{1,6}\.\d{1,6}", version) for version in found)


def test_a_deployment_goes_back_on_failure_grows_and_is_stopped_by_the_service(revisions):
    found = recipe.deployment("arn", "plant", revisions[0], recipe.Limits())
    assert found["deploymentPolicies"]["failureHandlingPolicy"] == "ROLLBACK"
    rate = found["iotJobConfiguration"]["jobExecutionsRolloutConfig"]["exponentialRate"]
    assert rate == {
        "baseRatePerMinute": 50,
        "incrementFactor": 2.0,
        "rateIncreaseCriteria": {"numberOfSucceededThings": 10},
    }
    assert found["iotJobConfiguration"]["abortConfig"]["criteriaList"][0]["action"] == "CANCEL"


def test_groups_are_named_by_target_and_revision():
    assert names.parse(names.group("line-1", "v1-0-0-ab")) == ("line-1", "v1-0-0-ab")
    assert [names.parse(name) for name in ("modeldeploy_plant_", "plant", "modeldeploy_a_b_c", "other_a_b")] == [
        None
    ] * 4


@pytest.mark.parametrize("options", [{"port": "0"}, {"python": "python3; rm"}, {"libraries": "maybe"}, {"prt": "1"}])
def test_options_that_are_wrong_are_refused_by_name(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        GreengrassOptions.read(options, "revision")


# The archive


def test_the_archive_has_the_same_bytes_each_time(revisions, tmp_path):
    one, other = (artifact.build(bundle_of(revisions[0]), tmp_path / name).read_bytes() for name in ("a.zip", "b.zip"))
    assert one == other
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        held = set(archive.namelist())
    assert {
        "bundle/manifest.json",
        "requirements.txt",
        "modeldeploy/serving/__main__.py",
        "modeldeploy/packaging/rehearse.py",
    } <= held


def test_a_bundle_that_somebody_changed_is_not_sent(revisions, tmp_path):
    import shutil

    copied = tmp_path / "bundle"
    shutil.copytree(revisions[0].model.uri, copied)
    bundle = Bundle.open(copied)
    victim = copied / next(iter(bundle.manifest.files))
    victim.chmod(0o600)
    victim.write_bytes(b"x")
    with pytest.raises(IntegrityError):
        artifact.build(bundle, tmp_path / "a.zip")
    assert list(tmp_path.glob("*.zip")) == []


class Own:
    """A model whose class is not in any library."""

    def predict(self, x):
        return np.asarray(x, dtype=float)


def test_pickled_code_is_refused(tmp_path, rehearsal, plant):
    bundle = package(Own(), name="own", version="1.0.0", example=np.array([1.0]), store=Store(tmp_path / "store"))
    with pytest.raises(ConfigurationError, match="devices run none"):
        rehearsal.put_revision(plant, Revision.of(bundle.model_version()))


# On a device


def filled(script: str, home: Path, work: Path, port: int = 0) -> list[str]:
    """Fill the nucleus's variables in, and give the command that its shell would run."""
    known = {"{artifacts:decompressedPath}": str(home), "{work:path}": str(work), "{configuration:/port}": str(port)}
    for name, value in known.items():
        script = script.replace(name, value)
    return ["sh", "-c", script]


@pytest.fixture
def device(tmp_path):
    """Give ``device(revision)``: unpack what a device downloads; its recipe, folder and environment, of this interpreter."""

    def make(revision):
        path = artifact.build(bundle_of(revision), tmp_path / artifact.FILE)
        home = tmp_path / "unpacked"
        with zipfile.ZipFile(path) as archive:
            archive.extractall(home / artifact.FOLDER)
        own = attrs.evolve(revision, options=dict(GreengrassOptions(libraries="present", python=sys.executable)))
        lifecycle = recipe.component("plant", own, URL)["Manifests"][0]["Lifecycle"]
        env = {
            **lifecycle["Setenv"],
            "PYTHONPATH": f"{home}/{artifact.FOLDER}",
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
        }
        return lifecycle, home, env

    return make


def test_the_self_test_of_the_recipe_passes_and_fails_on_a_device(device, revisions, tmp_path):
    """The very script of the recipe, by a shell, with the library that was shipped."""
    lifecycle, home, env = device(revisions[0])
    command = filled(lifecycle["Install"]["Script"], home, tmp_path)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    golden = home / artifact.FOLDER / "bundle" / "golden.json"
    golden.chmod(0o600)
    golden.write_bytes(golden.read_bytes().replace(b"A", b"B", 1) + b" ")
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode != 0


def test_the_model_answers_by_the_recipes_own_script(device, tmp_path):
    x = np.arange(6.0).reshape(3, 2)
    model = LinearRegression().fit(x, 2 * x[:, 0])
    bundle = package(model, name="line", version="3.0.0", example=x, store=Store(tmp_path / "store"))
    revision = Revision.of(bundle.model_version())
    lifecycle, home, env = device(revision)
    command = filled(lifecycle["Run"]["Script"] + " --announce", home, tmp_path)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        try:
            port = orjson.loads(server.stdout.readline())["port"]
            columns = [field.name for field in revision.model.signature.inputs]
            body = orjson.dumps(
                {"instances": [dict(zip(columns, [[5.0, 6.0]] if len(columns) == 1 else [5.0, 6.0], strict=True))]}
            )
            asked = urllib.request.Request(
                f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(asked, timeout=30) as answer:
                assert answer.headers["modeldeploy-revision"] == revision.id
                (predicted,) = orjson.loads(answer.read())["predictions"]
        finally:
            server.terminate()
            server.communicate(timeout=30)
    assert np.ravel(predicted if not isinstance(predicted, dict) else list(predicted.values()))[0] == pytest.approx(
        10.0
    )


def test_the_backend_shows_the_recipe_without_sending_anything(rehearsal, revisions):
    assert isinstance(rehearsal, Greengrass)
    found = rehearsal.recipe("plant", revisions[0])
    assert found["ComponentName"] == "modeldeploy.plant"
    assert rehearsal._client.writes == 0
