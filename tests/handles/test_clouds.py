"""What ``modeldeploy doctor`` says of each cloud."""

from __future__ import annotations

from pathlib import Path

import pytest

from modeldeploy import config, registry
from modeldeploy.errors import AccessDeniedError, CredentialsError
from modeldeploy.handles import clouds
from modeldeploy.handles.clouds import CLOUDS, examine
from modeldeploy.spi import Identity


@pytest.fixture
def settings(tmp_path):
    def make(**environ):
        given = {f"MODELDEPLOY_{name.upper()}": value for name, value in environ.items()}
        return config.load({"MODELDEPLOY_HOME": str(tmp_path), **given})

    return make


@pytest.fixture
def asked(monkeypatch):
    """Stand for the backends, and say which were asked; each raises or answers what the test puts here."""
    answers, seen = {}, []

    class Fake:
        def __init__(self, name):
            self.name = name

        def check(self):
            seen.append(self.name)
            answer = answers.get(self.name, Identity(self.name, "account", "place"))
            if isinstance(answer, Exception):
                raise answer
            return answer

        def close(self):
            seen.append(f"{self.name} closed")

    monkeypatch.setattr(registry, "create", lambda name, settings: Fake(name))
    monkeypatch.setattr(clouds, "_installed", lambda package: "1.0")
    return answers, seen


def told(settings):
    return [str(each) for each in examine(settings)]


def test_nothing_is_asked_over_the_network_where_nothing_is_configured(settings, asked):
    lines = told(settings())
    assert asked[1] == []
    assert len(lines) == 2 * len(CLOUDS)
    assert (
        "vertex configured: not at all; run: export MODELDEPLOY_VERTEX_PROJECT=... MODELDEPLOY_VERTEX_LOCATION=... "
        "MODELDEPLOY_VERTEX_BUCKET=..."
    ) in lines


def test_what_is_not_installed_is_told_with_the_command(settings, monkeypatch):
    monkeypatch.setattr(clouds, "_installed", lambda package: "" if package == "google-cloud-storage" else "2.0")
    lines = told(settings(vertex_project="p"))
    assert "vertex installed: no, google-cloud-storage missing; run: pip install 'modeldeploy[vertex]'" in lines
    assert "sagemaker installed: boto3 2.0, sagemaker 2.0" in lines
    # Without its packages it cannot be asked.
    assert not [line for line in lines if line.startswith("vertex authorised")]


def test_a_cloud_that_is_configured_is_asked_who_we_are(settings, asked):
    lines = told(settings(vertex_project="p", vertex_location="l", vertex_bucket="b"))
    assert asked[1] == ["vertex", "vertex closed"]
    assert lines[-2:] == [
        "vertex configured: project=p, location=l, bucket=b",
        "vertex authorised: yes, account at place",
    ]


@pytest.mark.parametrize("name", CLOUDS)
def test_a_missing_login_is_told_with_the_command_of_the_cloud(settings, asked, name):
    asked[0][name] = CredentialsError("nobody knows who asks", hint="log in")
    found = [line for line in told(settings(**{f"{name}_region": "r"})) if line.startswith(f"{name} authorised")]
    assert found == [f"{name} authorised: no, nobody knows who asks; run: {CLOUDS[name].login}"]


def test_a_missing_right_is_told_with_its_hint(settings, asked):
    asked[0]["vertex"] = AccessDeniedError("denied", hint="the roles are in the docs")
    assert "vertex authorised: no, denied (the roles are in the docs)" in told(settings(vertex_project="p"))


def test_a_rehearsal_is_told_and_not_started(settings, asked):
    lines = told(settings(vertex_rehearsal="1"))
    assert "vertex configured: for its rehearsal on this machine" in lines
    assert asked[1] == []


def test_the_packages_that_are_asked_for_are_those_of_the_extras():
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, cloud in CLOUDS.items():
        extra = " ".join(project["optional-dependencies"][name])
        assert all(package in extra for package in cloud.packages)
