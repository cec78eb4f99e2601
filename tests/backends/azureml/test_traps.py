"""One test for each trap of azure-ai-ml 1.35.2 that this backend must not let its users fall into."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from modeldeploy.backends.azureml import AzureML
from modeldeploy.backends.azureml.invoke import headers
from modeldeploy.backends.azureml.rehearsal import Rehearsal
from modeldeploy.errors import ConfigurationError, ConflictError, ThrottledError, UnavailableError
from modeldeploy.values.serving import EndpointSpec, Traffic
from modeldeploy.values.ticket import Phase


def pollers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if "LROPoller" in each.name]


# 1. The header of one call shows in the next


def test_a_pinned_call_pins_no_other_call(town):
    first, second = town.revisions[:2]
    town.deploy("pins", first, second)
    assert town.answered("pins", revision=second.id) == second.id
    assert {town.answered("pins") for _ in range(20)} == {first.id}


def test_the_headers_of_a_call_are_made_for_it_alone():
    given = {"content-type": "application/json", "azureml-model-deployment": "smuggled"}
    pinned, plain = headers(given, "key", "v1"), headers(given, "key", None)
    assert pinned["azureml-model-deployment"] == "v1"
    assert "azureml-model-deployment" not in plain
    assert given == {"content-type": "application/json", "azureml-model-deployment": "smuggled"}


# 2. Fractions vanish, names become lower case


def test_fractions_never_reach_the_sdk():
    with pytest.raises(ConfigurationError, match=r"traffic of 'v1' is 99\.5"):
        Traffic({"v1": 99.5, "v2": 0.5})


def test_every_percent_of_a_table_arrives(town):
    first, second = town.revisions[:2]
    town.deploy("whole", first, second)
    town.succeed(town.backend.set_traffic("whole", Traffic({first.id: 99, second.id: 1})))
    assert town.backend.native.online_endpoints.get("whole").traffic == {first.id: 99, second.id: 1}


def test_names_are_lower_case_before_anything_is_sent(town):
    with pytest.raises(ConfigurationError, match="'NoCode' is not a valid name"):
        town.deploy("NoCode", town.revisions[0])
    town.made.clear()
    assert all(revision.id == revision.id.lower() for revision in town.revisions)


# 3, 5, 6. Pollers: a result that cannot be waited for, fixed intervals, threads, dots on standard output


def test_beginning_an_operation_starts_no_thread_and_prints_nothing(town, capfd):
    town.deploy("quiet", *town.revisions[:2])
    town.succeed(town.backend.drop_revision("quiet", town.revisions[1].id))
    assert pollers() == []
    assert capfd.readouterr() == ("", "")


def test_no_poller_is_ever_waited_for(town):
    """``poller.result(timeout)`` raises AttributeError before the end, so the resource is read instead."""
    backend = town.backend
    ticket = backend.put_revision(town.deploy("reads"), town.revisions[0])
    while "ready" not in ticket.step:
        ticket = backend.advance(ticket)
    assert ticket.phase is Phase.RUNNING
    assert ticket.poll_after <= 20
    assert town.succeed(ticket)


# 4, 10. A failed operation answers with 200; its address is signed and is kept as it came


def test_a_failed_operation_is_told_by_its_codes_and_not_by_its_status(town):
    town.faults.broken["OnlineDeployments_CreateOrUpdate"] = 2
    town.deploy("failed")
    ended = town.carry(town.backend.put_revision(EndpointSpec("failed"), town.revisions[0]))
    assert ended.phase is Phase.FAILED
    assert "InternalServerError" in ended.note
    assert "200" not in ended.note


def test_the_address_of_an_operation_is_kept_whole(town):
    first, second = town.revisions[:2]
    town.deploy("signed", first, second)
    ticket = town.backend.advance(town.backend.set_traffic("signed", Traffic.all_to(second.id)))
    assert town.backend._client.ask("GET", ticket.step.split(" ", 2)[2])["status"]
    town.succeed(ticket)


# 7. Retries of the SDK would hide how often something was sent


def test_a_request_that_fails_is_sent_once(town):
    town.deploy("once", town.revisions[0])
    town.faults.drop_before["OnlineEndpoints_Get"] = 1
    with pytest.raises(UnavailableError):
        town.backend.observe("once")
    assert town.faults.drop_before == {"OnlineEndpoints_Get": 0}
    assert town.backend.observe("once") is not None


def test_throttling_says_how_long_to_wait(town):
    town.deploy("wait", town.revisions[0])
    town.faults.throttle_every = 1
    with pytest.raises(ThrottledError) as caught:
        town.backend.observe("wait")
    assert caught.value.retry_after is not None


# 8. An endpoint is written whole, without a precondition


def test_a_table_written_by_somebody_else_meanwhile_is_not_overwritten(town, monkeypatch):
    first, second = town.revisions[:2]
    town.deploy("raced", first, second)
    backend = town.backend
    ticket = backend.set_traffic("raced", Traffic.all_to(second.id))
    seen = backend._provider.seen("raced")
    monkeypatch.setattr(backend._provider, "seen", lambda _name: seen)
    with backend_of(town) as other:
        town.succeed(other.set_traffic("raced", Traffic({first.id: 50, second.id: 50})), on=other)
    with pytest.raises(ConflictError, match="was changed while its table was to be written"):
        backend.advance(ticket)


@contextlib.contextmanager
def backend_of(town):
    other = Rehearsal(town.backend.simulator, image="stub", home=town.backend._home)
    yield other
    # Not its own close, which ends the simulator.
    AzureML.close(other)


def test_an_operation_under_way_is_waited_for_and_is_no_conflict(town):
    """A second write meets 409, which the SDK calls ResourceExistsError."""
    first, second = town.revisions[:2]
    town.deploy("busy", first, second)
    town.faults.conflict["OnlineEndpoints_CreateOrUpdate"] = 2
    town.succeed(town.backend.set_traffic("busy", Traffic.all_to(second.id)))
    assert town.faults.conflict == {"OnlineEndpoints_CreateOrUpdate": 0}


# 11, 12. Code is a local directory; an asset's bytes never change


def test_the_same_model_is_registered_once(town):
    before = town.backend._client.writes
    town.backend._provider.put_model(town.revisions[0])
    assert town.backend._client.writes == before


# The cloud is a variable of the whole process


def test_the_cloud_of_the_process_is_as_it_was(town):
    os.environ["AZUREML_CURRENT_CLOUD"] = "AzureChinaCloud"
    try:
        town.deploy("clouds", town.revisions[0])
        assert os.environ["AZUREML_CURRENT_CLOUD"] == "AzureChinaCloud"
    finally:
        del os.environ["AZUREML_CURRENT_CLOUD"]


def test_making_a_client_leaves_no_variable_behind(town, shelf):
    assert "AZUREML_CURRENT_CLOUD" not in os.environ
    with backend_of(town) as other:
        assert other.check().backend == "azureml"
    assert "AZUREML_CURRENT_CLOUD" not in os.environ


def test_what_is_not_there_is_no_error_in_anybodys_log(town, caplog):
    with caplog.at_level(logging.INFO):
        assert town.backend.observe("nowhere") is None
    assert [record for record in caplog.records if record.name.startswith("azure.ai")] == []


# Telemetry, in a notebook

_KERNEL = """
    import sys, threading, types
    # What the SDK looks for to know that it is in a notebook.
    kernel = types.ModuleType("IPython")
    kernel.get_ipython = lambda: types.SimpleNamespace(config={"IPKernelApp": {}})
    core = types.ModuleType("IPython.core")
    inner = types.ModuleType("IPython.core.getipython")
    inner.get_ipython = kernel.get_ipython
    sys.modules.update({"IPython": kernel, "IPython.core": core, "IPython.core.getipython": inner})
    import requests
    send = requests.Session.send
    before = {each.name for each in threading.enumerate()}
    SETUP
    from opentelemetry import trace, metrics
    import json
    print(json.dumps({
        "tracer": type(trace.get_tracer_provider()).__name__,
        "meter": type(metrics.get_meter_provider()).__name__,
        "threads": sorted({each.name for each in threading.enumerate()} - before),
        "send": requests.Session.send is send,
    }))
"""
_OURS = """
    from modeldeploy.backends.azureml import AzureML
    class Nobody:
        def get_token(self, *scopes, **more): raise AssertionError(scopes)
    backend = AzureML(subscription_id="s", resource_group="g", workspace="w", credential=Nobody())
    assert backend.native.workspace_name == "w"
    backend.close()
"""
_THEIRS = """
    from azure.ai.ml import MLClient
    MLClient(object(), "s", "g", "w")
"""


def in_a_kernel(setup: str, folder: Path) -> dict:
    program = textwrap.dedent(_KERNEL).replace("SETUP", textwrap.dedent(setup))
    # What the SDK's telemetry would send goes to a port of this machine where nobody listens, and what it keeps goes with the test.
    nobody = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    env = {**os.environ, **nobody, "NO_PROXY": "", "no_proxy": "", "TMPDIR": str(folder)}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=env,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_in_a_notebook_no_telemetry_is_installed_and_no_thread_is_left(tmp_path):
    assert in_a_kernel(_OURS, tmp_path) == {
        "tracer": "ProxyTracerProvider",
        "meter": "_ProxyMeterProvider",
        "threads": [],
        "send": True,
    }


def test_the_kernel_of_that_test_is_one_in_which_the_sdk_would_install_it(tmp_path):
    found = in_a_kernel(_THEIRS, tmp_path)
    assert found["tracer"] == "TracerProvider"
    assert found["threads"] != []
