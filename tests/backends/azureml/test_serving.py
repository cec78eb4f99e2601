"""What the suite of every backend does not ask: ways to authenticate, the generated script, mirrors, autoscaling, what others made."""

from __future__ import annotations

import json
import time

import pytest

from modeldeploy.backends.azureml import AzureML, AzureMLOptions, names
from modeldeploy.backends.azureml.rehearsal import shared, start
from modeldeploy.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    PredictionError,
    QuotaError,
    UnavailableError,
    UnsupportedError,
)
from modeldeploy.values.serving import EndpointSpec, Hardware, Payload, Revision, Scale, Traffic
from modeldeploy.values.ticket import Phase


@pytest.mark.parametrize("mode", ["key", "aml_token", "aad_token"])
def test_an_endpoint_is_called_in_each_way_to_authenticate(town, mode):
    name = f"door-{mode.replace('_', '-')}"
    town.deploy(name, town.revisions[0], auth_mode=mode)
    assert town.answered(name) == town.revisions[0].id
    assert town.answered(name) == town.revisions[0].id


def test_a_key_that_was_changed_is_asked_for_again(town):
    town.deploy("rekeyed", town.revisions[0])
    town.ask("rekeyed")
    assert town.backend._client.sdk.online_endpoints.begin_regenerate_keys("rekeyed", key_type="primary") is not None
    until = time.monotonic() + 5
    while town.backend._client.sdk.online_endpoints.get("rekeyed").provisioning_state != "Succeeded":
        assert time.monotonic() < until
        time.sleep(0.01)
    assert town.answered("rekeyed") == town.revisions[0].id


def test_an_endpoint_that_was_made_anew_is_found_again(town):
    town.deploy("anew", town.revisions[0])
    town.ask("anew")
    town.succeed(town.backend.drop_endpoint("anew"))
    with pytest.raises(NotFoundError):
        town.ask("anew")
    town.deploy("anew", town.revisions[1])
    assert town.answered("anew") == town.revisions[1].id


def test_the_secret_is_in_no_representation(town):
    town.deploy("secret", town.revisions[0])
    town.ask("secret")
    door = town.backend._caller._doors.known("secret")
    assert door.secret
    assert door.secret not in repr(door)


def test_a_wrong_request_is_the_callers_mistake_and_a_broken_model_is_told_with_its_log(town):
    town.deploy("wrong", town.revisions[0])
    with pytest.raises(InvalidRequestError, match="column x is missing") as caught:
        town.ask("wrong", b"wrong")
    assert caught.value.field == "x"
    with pytest.raises(PredictionError, match="the model broke") as broken:
        town.ask("wrong", b"fail")
    assert broken.value.status == 500
    assert "Traceback: the model broke" in str(broken.value)


def test_a_request_that_takes_too_long_is_given_up(town):
    town.deploy("slow", town.revisions[0])
    began = time.monotonic()
    with pytest.raises(UnavailableError):
        town.backend.invoke("slow", Payload(b"slow", {"content-type": "application/json"}), timeout=0.3)
    assert time.monotonic() - began < 1.4


def test_a_request_header_that_cannot_be_sent_is_refused_by_name(town):
    town.deploy("header", town.revisions[0])
    with pytest.raises(InvalidRequestError) as caught:
        town.backend.invoke("header", Payload(b"{}", {"x-note": "a\r\nb: c"}), timeout=5)
    assert caught.value.field == "x-note"


def test_a_request_whose_answer_was_lost_is_sent_once_more_only_where_the_model_allows_it(town):
    plain, safe = town.revisions[0], town.revision(at=1, idempotent="true")
    town.deploy("lost", plain, safe)
    town.ask("lost")
    town.faults.drop_after["OnlineEndpoints_Score"] = 1
    with pytest.raises(UnavailableError):
        town.ask("lost", revision=plain.id)
    town.faults.drop_after["OnlineEndpoints_Score"] = 1
    assert town.answered("lost", revision=safe.id) == safe.id
    assert town.faults.drop_after == {"OnlineEndpoints_Score": 0}


# Mirrors


def test_copies_go_to_a_revision_that_takes_no_traffic(town):
    first, second = town.revisions[:2]
    town.deploy("mirror", first, second)
    town.succeed(town.backend.set_traffic("mirror", Traffic({first.id: 100}, shadow={second.id: 50})))
    assert town.backend.native.online_endpoints.get("mirror").mirror_traffic == {second.id: 50}
    for table in (
        Traffic({first.id: 50, second.id: 50}, shadow={second.id: 10}),
        Traffic({first.id: 100}, shadow={second.id: 51}),
    ):
        with pytest.raises(UnsupportedError) as caught:
            town.backend.set_traffic("mirror", table)
        assert caught.value.capability == "shadow"
    town.succeed(town.backend.set_traffic("mirror", Traffic.all_to(second.id)))
    assert town.backend.observe("mirror").traffic.copies == {}


# What others made


def test_what_others_made_is_not_touched(town):
    from azure.ai.ml.entities import ManagedOnlineEndpoint

    sdk = town.backend.native
    sdk.online_endpoints.begin_create_or_update(ManagedOnlineEndpoint(name="theirs", auth_mode="key"))
    until = time.monotonic() + 5
    while sdk.online_endpoints.get("theirs").provisioning_state != "Succeeded":
        assert time.monotonic() < until
        time.sleep(0.01)
    assert "theirs" not in town.backend.endpoints()
    for call in (
        lambda: town.backend.put_revision(EndpointSpec("theirs"), town.revisions[0]),
        lambda: town.backend.drop_endpoint("theirs"),
        lambda: town.backend.observe("theirs"),
    ):
        with pytest.raises(ConflictError, match="modeldeploy did not make"):
            call()
    sdk.online_endpoints.begin_delete(name="theirs")


def test_what_is_made_bears_tags_for_whoever_pays(town):
    town.backend._provider.defaults.tags["team"] = "ml"
    try:
        town.deploy("tagged", town.revisions[0])
    finally:
        town.backend._provider.defaults.tags.clear()
    sdk = town.backend.native
    (deployment,) = sdk.online_deployments.list("tagged")
    for tags in (sdk.online_endpoints.get("tagged").tags, deployment.tags):
        assert tags["team"] == "ml"
        assert tags[names.TAG_ENDPOINT] == "tagged"


def test_the_table_before_is_written_down(town):
    first, second = town.revisions[:2]
    town.deploy("before", first, second)
    town.succeed(town.backend.set_traffic("before", Traffic.all_to(second.id)))
    tags = town.backend.native.online_endpoints.get("before").tags
    assert json.loads(tags[names.TAG_BEFORE]) == {first.id: 100}
    assert tags[names.TAG_SERIAL] == "2"


# Quotas, hardware, instances


def test_a_quota_names_what_is_used_up(town):
    town.faults.quota["Standard_DS3_v2"] = 2
    town.made.append("large")
    ticket = town.backend.put_revision(EndpointSpec("large"), town.revisions[0])
    try:
        ended = town.carry(ticket)
    except QuotaError as error:
        told = str(error)
    else:
        assert ended.phase is Phase.FAILED
        told = ended.note
    assert "quota" in told
    assert "Standard_DS3_v2" in told


def test_a_container_that_cannot_be_made_ready_is_told_by_name(town):
    town.faults.not_ready = town.faults.nameless = True
    town.made.append("nameless")
    ended = town.carry(town.backend.put_revision(EndpointSpec("nameless"), town.revisions[0]))
    assert ended.phase is Phase.FAILED
    assert "ResourceNotReady" in ended.note


def test_hardware_and_workers_become_a_size_and_a_count(town):
    revision = Revision.of(town.models[0], scale=Scale(2), hardware=Hardware(cpu=8))
    town.deploy("sized", revision)
    (deployment,) = town.backend.native.online_deployments.list("sized")
    assert (deployment.instance_type, deployment.instance_count) == ("Standard_F8s_v2", 2)


def test_instances_are_scaled_by_load_and_by_the_clock(town):
    options = AzureMLOptions(
        image="stub", least_instances=1, most_instances=4, cpu_percent=60.0, schedule="Mon-Fri 07:00=2-4"
    )
    revision = Revision.of(town.models[0], options=options)
    town.deploy("scaled", revision)
    scaling = town.backend._client
    path = f"/subscriptions/{scaling.access.subscription_id}/resourceGroups/{scaling.access.resource_group}/providers/Microsoft.Insights/autoscalesettings"
    (setting,) = scaling.ask("GET", path)["value"]
    default, weekdays = setting["properties"]["profiles"]
    assert setting["properties"]["enabled"] is True
    assert setting["properties"]["targetResourceUri"].endswith(f"/onlineEndpoints/scaled/deployments/{revision.id}")
    assert default["capacity"] == {"minimum": "1", "maximum": "4", "default": "1"}
    assert [rule["scaleAction"]["direction"] for rule in default["rules"]] == ["Increase", "Decrease"]
    assert weekdays["recurrence"]["schedule"]["days"][0] == "Monday"
    town.succeed(town.backend.drop_endpoint("scaled"))
    assert scaling.ask("GET", path)["value"] == []


def test_more_workers_than_the_bounds_allow_are_refused(town):
    options = AzureMLOptions(image="stub", least_instances=1, most_instances=2, cpu_percent=60.0)
    with pytest.raises(UnsupportedError, match="start within the bounds"):
        town.backend.put_revision(EndpointSpec("over"), Revision.of(town.models[0], scale=Scale(3), options=options))


# What is refused


def test_an_operation_of_the_service_cannot_be_stopped(town):
    ticket = town.backend.put_revision(town.deploy("unstopped"), town.revisions[0])
    while "ready" not in ticket.step:
        ticket = town.backend.advance(ticket)
    with pytest.raises(UnsupportedError) as caught:
        town.backend.cancel(ticket)
    assert caught.value.capability == "cancel"
    town.succeed(ticket)


# The generated script, served by the provider's own contract


def test_the_generated_script_serves_the_model(shelf):
    home, models = shelf
    made = start(speed=1_000.0, home=home, patience_s=30.0)
    try:
        revision = Revision.of(models[1])
        ticket = made.put_revision(EndpointSpec("scripted"), revision)
        until = time.monotonic() + 60
        while not ticket.phase.ended:
            assert time.monotonic() < until
            ticket = made.advance(ticket)
            time.sleep(0.01)
        assert ticket.phase is Phase.SUCCEEDED, ticket.note
        answer = made.invoke("scripted", _json({"instances": [1.0, 2.0]}), timeout=10)
        assert json.loads(answer.body) == {"predictions": [2.0, 3.0]}
        assert answer.headers["modeldeploy-revision"] == revision.id
        with pytest.raises(InvalidRequestError):
            made.invoke("scripted", _json({"instances": ["many"]}), timeout=10)
    finally:
        made.close()


def _json(document) -> Payload:
    return Payload(json.dumps(document).encode(), {"content-type": "application/json"})


def test_a_backend_that_is_named_is_one_rehearsal_for_a_home(shelf):
    made = AzureML.configure(shelf[0], {"rehearsal": "true"})
    assert shared(shelf[0]) is made
    assert not made.capabilities.durable
    made.shutdown()
    assert shared(shelf[0]) is not made
    shared(shelf[0]).shutdown()
