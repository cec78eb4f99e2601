"""How a container of a public image on Vertex AI starts: what it installs, and what it becomes; and its rows of batch jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import orjson
import pytest

from modeldeploy.serving import lines, vertex
from modeldeploy.values.model import DType, Field, Signature


@pytest.mark.parametrize(
    ("requirement", "there"),
    [
        ("numpy>=1.26", True),
        ("numpy==0.0.1", False),
        ("no-such-package-at-all", False),
        ("no-such-package-at-all; sys_platform == 'nowhere'", True),
        ("numpy[extra]>=1.26", False),
    ],
)
def test_a_requirement_is_met_or_not(requirement, there):
    assert vertex.is_there(requirement) is there


def test_only_what_is_missing_is_installed(monkeypatch):
    ran = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: ran.append(command))
    vertex.install(["numpy>=1.26", ""])
    assert ran == []
    vertex.install(["numpy>=1.26", "no-such-package-at-all==1"])
    assert ran[0][:4] == [sys.executable, "-m", "pip", "install"]
    assert ran[0][-1] == "no-such-package-at-all==1"
    assert "numpy>=1.26" not in ran[0]


@pytest.fixture
def started(monkeypatch):
    """Start with files that stand for those of the bucket; gives the command that the process becomes."""
    became = {}
    monkeypatch.setenv("AIP_STORAGE_URI", "gs://b/m")
    monkeypatch.setattr(vertex, "_read", lambda name: {"requirements.txt": b"numpy>=1.26\n"}.get(name, b"library"))
    monkeypatch.setattr(os, "execve", lambda program, command, environ: became.update(command=command, environ=environ))
    return became


def test_it_becomes_the_model_server_on_every_address_of_the_container(started, monkeypatch):
    monkeypatch.setenv("MODELDEPLOY_REVISION", "v1")
    vertex.main([])
    command = started["command"]
    assert command[:3] == [sys.executable, "-m", "modeldeploy.serving"]
    assert command[command.index("--host") + 1] == "0.0.0.0"
    assert command[command.index("--revision") + 1] == "v1"
    assert started["environ"]["PYTHONPATH"].endswith("modeldeploy.zip")


def test_a_rehearsal_listens_on_loopback_alone(started, monkeypatch):
    monkeypatch.delenv("MODELDEPLOY_REVISION", raising=False)
    vertex.main(["--host", "127.0.0.1"])
    command = started["command"]
    assert "0.0.0.0" not in command
    assert command[-2:] == ["--host", "127.0.0.1"]
    assert "--revision" not in command


def test_a_file_is_asked_for_with_the_token_of_the_machine_and_of_an_emulator_without(monkeypatch):
    asked = []

    def get(url, headers, *handlers):
        asked.append((url, headers, len(handlers)))
        return b'{"access_token": "t"}'

    monkeypatch.setattr(vertex, "_get", get)
    monkeypatch.setenv("AIP_STORAGE_URI", "gs://bucket/a b/")
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    vertex._read("modeldeploy.zip")
    (token, file) = asked
    assert token[0].startswith("http://metadata.google.internal/")
    assert file[0] == "https://storage.googleapis.com/storage/v1/b/bucket/o/a%20b%2Fmodeldeploy.zip?alt=media"
    assert file[1] == {"Authorization": "Bearer t"}
    asked.clear()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    vertex._read("x")
    assert asked == [("http://127.0.0.1:1/storage/v1/b/bucket/o/a%20b%2Fx?alt=media", {}, 1)]


# Rows of batch jobs

SIGNATURE = Signature((Field("x", DType.FLOAT64),), (Field("y", DType.FLOAT64),))


class Halves:
    """Gives half of each row, and cannot take 13."""

    signature = SIGNATURE

    def predict(self, inputs):
        if (inputs["x"] == 13).any():
            raise ValueError("13 brings bad luck")
        return {"y": np.asarray(inputs["x"]) / 2}


def test_wrapped_instances_are_answered_one_by_one():
    rows = [1, 13, "no number", 4]
    body = orjson.dumps({"instances": [{lines.ROW: row} for row in rows]})
    answer = lines.answer_instances(body, Halves())
    found = json.loads(answer.body)["predictions"]
    assert (answer.status, found[0], found[3]) == (200, 0.5, 2.0)
    assert "13 brings bad luck" in found[1][lines.ERROR]
    assert lines.ERROR in found[2]


@pytest.mark.parametrize("body", [b"", b"[1]", b'{"instances": [1]}', b'{"instances": [{"x": 1}]}', b'{"rows": []}'])
def test_a_body_of_another_form_is_left_to_the_usual_way(body):
    assert lines.answer_instances(body, Halves()) is None
