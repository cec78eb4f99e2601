"""The pure parts: settings, options, hardware, names, records, verdicts, what deployments run, the window of metrics, log lines."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import types
import zipfile

import attrs
import pytest

from modeldeploy.backends.azureml import AzureML, AzureMLEndpointOptions, AzureMLOptions, entry, logs, names, translate
from modeldeploy.backends.azureml.client import Access, Client
from modeldeploy.backends.azureml.described import Deployment, Seen, State
from modeldeploy.backends.azureml.hardware import choose
from modeldeploy.backends.azureml.metrics import is_error, put_together
from modeldeploy.backends.azureml.settings import arguments, refuse_incomplete, workspace
from modeldeploy.backends.azureml.verdicts import ASKED, MOVING, Outcome, judge
from modeldeploy.errors import ConfigurationError, CredentialsError, IntegrityError, MissingDependencyError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.values.metrics import Window
from modeldeploy.values.serving import Hardware, Revision, Traffic

WHERE = {"subscription_id": "sub", "resource_group": "group", "workspace": "space"}


# Settings


def test_settings_become_arguments():
    assert arguments({**WHERE, "tags": "team=ml, cost=7", "rehearsal": "yes"}) == {
        **WHERE,
        "tags": {"team": "ml", "cost": "7"},
        "rehearsal": True,
    }


@pytest.mark.parametrize(("given", "told"), [({"region": "x"}, "no setting 'region'"), ({"tags": "x"}, "hold 'x'")])
def test_a_wrong_setting_is_named(given, told):
    with pytest.raises(ConfigurationError, match=told):
        arguments(given)


def _config(path, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"subscription_id": "s", "resource_group": "g", "workspace_name": "w", **more}
    path.write_text(json.dumps(document), encoding="utf-8")


def test_the_workspace_is_read_from_the_nearest_config(tmp_path):
    _config(tmp_path / ".azureml" / "config.json", workspace_name="far")
    below = tmp_path / "project" / "notebooks"
    below.mkdir(parents=True)
    assert workspace({}, None, start=below)["workspace"] == "far"
    _config(tmp_path / "project" / "config.json", workspace_name="near")
    assert workspace({}, None, start=below) == {"subscription_id": "s", "resource_group": "g", "workspace": "near"}
    assert workspace({"workspace": "mine"}, None, start=below)["workspace"] == "mine"


def test_a_config_of_something_else_is_passed_by(tmp_path):
    (tmp_path / "config.json").write_text('{"model": "bert"}', encoding="utf-8")
    assert workspace({}, None, start=tmp_path) == {}


def test_a_config_that_was_named_must_be_one(tmp_path):
    (tmp_path / "config.json").write_text('{"model": "bert"}', encoding="utf-8")
    with pytest.raises(ConfigurationError, match="does not name a workspace"):
        workspace({}, tmp_path / "config.json")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        workspace({}, tmp_path / "nothing.json")


def test_what_is_missing_of_a_workspace_is_named():
    with pytest.raises(ConfigurationError, match=r"\['workspace'\].*MODELDEPLOY_AZUREML_WORKSPACE"):
        refuse_incomplete({"subscription_id": "s", "resource_group": "g"})


def test_nobody_signed_in_is_a_credentials_error(monkeypatch):
    class Nobody:
        def get_token(self, *_scopes, **_more):
            from azure.core.exceptions import ClientAuthenticationError

            raise ClientAuthenticationError("DefaultAzureCredential failed to retrieve a token\nfrom: ...")

    backend = AzureML(**WHERE, credential=Nobody())
    with pytest.raises(CredentialsError, match="az login"):
        backend.check()
    backend.close()


def test_a_missing_package_is_told_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "azure.ai.ml", None)
    with pytest.raises(MissingDependencyError, match=r"modeldeploy\[azureml\]"):
        AzureML(**WHERE, credential=object()).check()


def test_the_backend_is_made_without_the_sdk():
    program = "import sys; from modeldeploy.backends.azureml import AzureML; AzureML(subscription_id='s', resource_group='g', workspace='w'); print([n for n in sys.modules if n.startswith(('azure', 'msrest', 'opentelemetry', 'requests'))])"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, env={**os.environ}
    )
    assert run.stdout.strip() == "[]"


# Options


def test_options_are_a_mapping_of_what_was_set():
    options = AzureMLOptions(instance_type="Standard_DS3_v2", concurrency=8)
    assert dict(options) == {"instance_type": "Standard_DS3_v2", "concurrency": "8"}
    assert AzureMLOptions.read(options, "revision") == options


@pytest.mark.parametrize(
    "wrong",
    [
        {"instance_type": "ml.m5.large"},
        {"concurrency": 0},
        {"request_timeout_s": 181},
        {"startup_s": 5},
        {"image": "a", "base_image": "b"},
        {"least_instances": 1},
        {"least_instances": 1, "most_instances": 51, "cpu_percent": 50},
        {"least_instances": 3, "most_instances": 2, "cpu_percent": 50},
        {"least_instances": 1, "most_instances": 2},
        {"least_instances": 1, "most_instances": 2, "schedule": "daily"},
        {"least_instances": 1, "most_instances": 2, "schedule": "Mon-Xyz 07:00=1-2"},
        {"least_instances": 1, "most_instances": 2, "schedule": "Mon 24:00=1-2"},
    ],
    ids="-".join,
)
def test_a_wrong_option_is_refused(wrong):
    with pytest.raises(ConfigurationError):
        AzureMLOptions(**wrong)


def test_a_schedule_is_read():
    options = AzureMLOptions(least_instances=1, most_instances=9, schedule="Mon-Fri 07:00=2-8; Sat-Mon 20:30=1-2")
    first, second = options.bounds()
    assert first.days == ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
    assert (first.hour, first.minute, first.least, first.most) == (7, 0, 2, 8)
    assert second.days == ("Saturday", "Sunday", "Monday")


def test_an_unknown_way_to_authenticate_is_refused():
    with pytest.raises(ConfigurationError, match="auth_mode is 'password'"):
        AzureMLEndpointOptions(auth_mode="password")
    with pytest.raises(ConfigurationError, match="auth_mode"):
        AzureML(**WHERE, auth_mode="password")


def test_an_option_that_is_not_known_is_named_with_the_nearest():
    with pytest.raises(ConfigurationError, match="did you mean 'instance_type'"):
        AzureMLOptions.read({"instance_typ": "x"}, "revision")


@pytest.mark.parametrize(
    ("hardware", "size"),
    [
        (Hardware(), "Standard_X"),
        (Hardware(cpu=4), "Standard_F4s_v2"),
        (Hardware(memory_gb=20), "Standard_DS4_v2"),
        (Hardware(accelerator="t4"), "Standard_NC4as_T4_v3"),
        (Hardware(accelerator="gpu", accelerator_count=8), "Standard_ND96asr_v4"),
    ],
    ids=["default", "cpu", "memory", "t4", "eight"],
)
def test_hardware_becomes_a_size(hardware, size):
    assert choose(hardware, "Standard_X") == size


def test_hardware_that_is_not_there_is_refused():
    with pytest.raises(ConfigurationError, match="AzureMLOptions"):
        choose(Hardware(accelerator="tpu"), "Standard_X")


# Names and records


def test_a_registered_version_says_which_bytes_it_has(shelf):
    (model, *_) = shelf[1]
    assert names.model_version(model) == f"1.0.0-{model.digest[7:15]}"
    odd = attrs.evolve(model, version="1.0.0-rc.1+build.7")
    assert names.model_version(odd) == f"1.0.0-rc.1_build.7-{model.digest[7:15]}"


def _deployment(revision: Revision, **more) -> Deployment:
    tags = {names.TAG_SPEC: translate.tags("e", translate.Defaults(), revision)[names.TAG_SPEC]}
    variables = {names.ENV_RECORD: translate.record(revision)}
    return Deployment(revision.id, State.SUCCEEDED, tags, {**variables, **more})


def test_a_revision_comes_back_from_its_deployment(shelf):
    revision = Revision.of(shelf[1][0], options={"concurrency": "7"})
    assert translate.revision(_deployment(revision)) == revision


@pytest.mark.parametrize("record", ["", "garbage!", None], ids=["empty", "garbage", "another"])
def test_a_record_that_was_changed_is_noticed(shelf, record):
    one, other = (Revision.of(model) for model in shelf[1][:2])
    changed = translate.record(other) if record is None else record
    with pytest.raises(IntegrityError, match=one.id):
        translate.revision(_deployment(one, **{names.ENV_RECORD: changed}))


# Seen


def _seen(**more) -> Seen:
    given = {
        "name": "e",
        "provisioning_state": "Succeeded",
        "scoring_uri": None,
        "auth_mode": "Key",
        "traffic": {"v1": 100},
    }
    entity = types.SimpleNamespace(**{**given, "mirror_traffic": None, "tags": None, "properties": None, **more})
    return Seen.of(entity)


def test_an_endpoint_is_read_with_members_missing():
    seen = _seen()
    assert (seen.uri, seen.auth_mode, seen.serial, seen.ours) == ("", "key", 0, False)
    assert seen.traffic == Traffic({"v1": 100})


def test_a_table_that_does_not_sum_to_100_is_none():
    assert _seen(traffic={"v1": 99}).traffic.live == {}


def test_a_state_that_came_up_later_is_a_change_under_way():
    assert State.of("Hibernating") is State.UPDATING
    assert not _seen(provisioning_state=None).settled


def test_a_table_that_came_back_is_another_version():
    assert _seen(tags={names.TAG_SERIAL: "1"}).version != _seen(tags={names.TAG_SERIAL: "2"}).version
    assert _seen(tags={"cost": "1"}).version == _seen(tags={"cost": "2"}).version


# Verdicts


@pytest.mark.parametrize(
    ("state", "phase", "holds", "age", "outcome"),
    [
        (None, ASKED, False, 1, Outcome.GOES_ON),
        (None, ASKED, False, 9, Outcome.FAILED),
        (None, MOVING, False, 1, Outcome.FAILED),
        (State.CREATING, ASKED, True, 99, Outcome.GOES_ON),
        (State.SUCCEEDED, ASKED, True, 1, Outcome.DONE),
        (State.SUCCEEDED, ASKED, False, 1, Outcome.GOES_ON),
        (State.SUCCEEDED, ASKED, False, 9, Outcome.FAILED),
        (State.SUCCEEDED, MOVING, False, 1, Outcome.FAILED),
        (State.FAILED, MOVING, True, 1, Outcome.FAILED),
        (State.CANCELED, MOVING, True, 1, Outcome.FAILED),
    ],
    ids=[
        "not-shown-yet", "never-shown", "gone", "under-way", "done", "still-old", "undone", "undone-after", "failed", "canceled",
    ],
)  # fmt: skip
def test_only_what_is_observed_is_done(state, phase, holds, age, outcome):
    assert judge(state, phase, holds=holds, age=age, grace=5).outcome is outcome


# What a deployment runs


def _bundle(shelf) -> Bundle:
    return Bundle.open(shelf[1][0].uri)


def test_the_environment_has_the_versions_that_the_model_was_packaged_with(shelf):
    made = entry.generated(_bundle(shelf))
    python, _pip, pip = made.conda["dependencies"]
    assert python == f"python={sys.version_info.major}.{sys.version_info.minor}"
    assert any(each.startswith("azureml-inference-server-http") for each in pip["pip"])
    assert any(each.startswith("numpy==") for each in pip["pip"])
    assert made.routes is None


def test_an_environment_of_other_content_is_another_version(shelf):
    bundle = _bundle(shelf)
    assert entry.generated(bundle).version == entry.generated(bundle).version
    assert (
        entry.generated(bundle).version
        != entry.generated(bundle, "mine:1").version
        != entry.contained("mine:1").version
    )


def test_a_container_of_ones_own_has_all_three_routes():
    assert set(entry.contained("mine:1").routes) == {"liveness_route", "readiness_route", "scoring_route"}


def test_the_script_and_the_library_are_two_files_and_the_same_each_time():
    with entry.folder() as one, entry.folder() as two:
        found = {path.name: path.read_bytes() for path in one.iterdir()}
        assert found == {path.name: path.read_bytes() for path in two.iterdir()}
        assert set(found) == {"score.py", "modeldeploy.zip"}
    with zipfile.ZipFile(io.BytesIO(found["modeldeploy.zip"])) as archive:
        assert "modeldeploy/serving/azureml.py" in archive.namelist()
        assert not any("backends" in name for name in archive.namelist())


def test_pickled_content_needs_somebody_who_vouches_for_it(shelf):
    bundle = _bundle(shelf)
    assert entry.variables(bundle, (bundle.digest,)) == {names.ENV_TRUST: bundle.digest}
    with pytest.raises(IntegrityError, match="nobody here vouched"):
        entry.variables(bundle, ())


def test_more_than_one_request_at_a_time_is_let_in(shelf):
    revision = Revision.of(shelf[1][0])
    made = translate.deployment(
        "e", revision, entry.contained("mine:1"), code=None, extra={}, defaults=translate.Defaults()
    )
    assert made.request_settings.max_concurrent_requests_per_instance == 4
    assert made.environment_variables["WORKER_COUNT"] == "4"
    assert made.readiness_probe.failure_threshold == 60


# Metrics


@pytest.mark.parametrize(
    ("status", "model", "error"),
    [
        ("200", "200", False), ("424", "422", False), ("424", "500", True), ("424", "", True), ("429", "", False),
        ("408", "", True), ("502", "", True), ("401", "", False), ("0", "", True),
    ],
)  # fmt: skip
def test_an_error_is_the_services_fault(status, model, error):
    assert is_error(status, model) is error


def _metric(*series):
    return {
        "timeseries": [
            {
                "metadatavalues": [{"name": {"value": name}, "value": value} for name, value in told.items()],
                "data": [{"timeStamp": "2026-01-01T00:00:00Z", **points}],
            }
            for told, points in series
        ]
    }


def test_a_window_is_put_together_of_series():
    good, bad = {"statusCode": "200", "modelStatusCode": "200"}, {"statusCode": "424", "modelStatusCode": "500"}
    counted = {"RequestsPerMinute": _metric((good, {"total": 90.0}), (bad, {"total": 10.0}))}
    timed = {"RequestLatency": _metric(({}, {"maximum": 400.0}))}
    for percent, value in ((50, 10.0), (90, 20.0), (95, 40.0), (99, 100.0)):
        timed[f"RequestLatency_P{percent}"] = _metric(({}, {"maximum": value}))
    window = put_together(Window("v1", 0, 60), counted, timed)
    assert (window.requests, window.errors, sum(window.latency.values())) == (100, 10, 100)
    assert 0.04 <= window.quantile(0.95) <= 0.045
    assert 0.4 <= window.quantile(1.0) <= 0.45


# Logs


def test_lines_have_the_time_that_they_bear_and_never_go_back():
    text = "Instance status:\nstarting\n2026-01-01T00:00:05Z up\nno time\n2026-01-01 00:00:03,500 late\n"
    found = list(logs._dated(text, "v1"))
    assert [line.text for line in found] == [
        "starting",
        "2026-01-01T00:00:05Z up",
        "no time",
        "2026-01-01 00:00:03,500 late",
    ]
    assert [line.at for line in found] == [1767225605.0] * 4


@pytest.mark.parametrize(
    "act", [lambda made: made.observe("iris"), lambda made: made.endpoints(), lambda made: made.check()]
)
def test_nobody_is_asked_who_we_are_before_it_is_known_where(act, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="was not told"):
        act(AzureML(subscription_id="s", resource_group="g"))


def test_python_prints_nothing_of_what_azure_identity_tells():
    """Where no handler takes a warning Python prints it, and this one is a page; the error says the same."""
    assert Client(Access("s", "g", "w")).credential
    assert any(isinstance(each, logging.NullHandler) for each in logging.getLogger("azure.identity").handlers)
