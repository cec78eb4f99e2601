from __future__ import annotations

import contextlib
import subprocess
import sys

import pytest

from modeldeploy import config, registry
from modeldeploy.errors import ConfigurationError
from modeldeploy.handles import early


@pytest.fixture
def heard(monkeypatch):
    """What backends are told early: their name, home and flavour."""
    said = []
    monkeypatch.setattr(registry, "expect", lambda name, settings, flavour: said.append((name, settings.home, flavour)))
    return said


def test_the_backend_that_is_named_or_configured_hears_of_a_model(heard, model, modeldeploy_home, tmp_path):
    made = model(1)
    early.expect(made, None, None)
    early.expect(made, "memory", tmp_path)
    assert heard == [("local", modeldeploy_home, "sklearn"), ("memory", tmp_path, "sklearn")]


def test_what_has_yet_to_be_packaged_and_a_backend_that_is_there_are_not_told(heard, model, estimator, session):
    early.expect(estimator(1), None, None)
    early.expect(model(1), session, None)
    early.expect(model(1), session.backend, None)
    assert heard == []


def test_what_is_wrong_is_told_by_the_deployment(monkeypatch, model):
    def refuse(*_arguments):
        message = "wrong"
        raise ConfigurationError(message)

    made = model(1)
    monkeypatch.setattr(config, "load", refuse)
    early.expect(made, None, None)


@pytest.fixture
def expected(monkeypatch):
    """What becomes of what backends begin for a job."""
    said = []

    @contextlib.contextmanager
    def begin(name, workers):
        said.append((name, workers))
        yield
        said.append("ended")

    monkeypatch.setattr(registry, "job_expected", begin)
    return said


def test_what_a_backend_begins_for_a_job_ends_with_the_context(expected):
    with early.job_expected(None, 2):
        assert expected == [("local", 2)]
    assert expected == [("local", 2), "ended"]


def test_a_backend_that_is_there_is_not_told_of_a_job(expected, session):
    with early.job_expected(session, 2):
        pass
    assert expected == []


def test_what_is_wrong_is_told_by_the_job(monkeypatch):
    def refuse(*_arguments):
        message = "wrong"
        raise ConfigurationError(message)

    monkeypatch.setattr(config, "load", refuse)
    with early.job_expected(None, 2):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="the local backend needs Unix sockets")
def test_a_supervisor_is_begun_before_what_looks_at_the_model_is_imported(model):
    """It starts meanwhile: each of these would hold it up by some milliseconds."""
    made = model(1)
    program = (
        "import os, sys\n"
        "def spawn(*_arguments, **_options):\n"
        "    print(chr(10).join(sys.modules), flush=True)\n"
        "    os._exit(0)\n"
        "os.posix_spawn = spawn\n"
        "from modeldeploy import Endpoint, Model\n"
        f"Endpoint.deploy(Model.get({made.name!r}, {made.version!r}), name='iris')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.split())
    assert "modeldeploy.backends.local.client" in loaded
    late = {
        "attrs",
        "logging",
        "numpy",
        "orjson",
        "secrets",
        "sqlite3",
        "subprocess",
    }
    assert loaded & late == set()
