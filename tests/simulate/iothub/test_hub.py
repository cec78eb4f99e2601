"""The hub over the wire: who may, what it takes, and which deployment a device is given."""

from __future__ import annotations

import base64
import json
import time

import pytest
import urllib3

from modeldeploy.backends.iotedge.client import Access, Client
from modeldeploy.backends.iotedge.errors import AlreadyThereError, ChangedError
from modeldeploy.backends.iotedge.sas import Policy
from modeldeploy.errors import (
    AccessDeniedError,
    CredentialsError,
    InvalidRequestError,
    NotFoundError,
    QuotaError,
    ThrottledError,
    UnavailableError,
)
from modeldeploy.simulate.iothub.hub import MOST_CONFIGURATIONS


@pytest.fixture
def client(simulator):
    made = Client(Access(simulator.host, Policy.parse(simulator.access.connection_string), base_url=simulator.url))
    yield made
    made.close()


def configuration(name, content, *, priority=1, condition="*"):
    return {"id": name, "priority": priority, "targetCondition": condition, "content": content, "labels": {"a": "b"}}


def running(simulator, device):
    return simulator.device(device).running()


# Who may


def test_another_key_is_refused(simulator):
    other = Policy(simulator.host, "service", base64.b64encode(bytes(32)).decode())
    with pytest.raises(CredentialsError, match="signature does not match"):
        Client(Access(simulator.host, other, base_url=simulator.url)).configurations()


def test_an_expired_signature_is_refused(simulator):
    policy = Policy.parse(simulator.access.connection_string)
    old = policy.token(int(time.time()) - 1)
    answer = urllib3.request(
        "GET", f"{simulator.url}/configurations?api-version=2021-04-12", headers={"Authorization": old}, retries=False
    )
    assert (answer.status, "expired" in answer.json()["Message"]) == (401, True)


def test_nobody_without_a_signature_is_let_in(simulator):
    answer = urllib3.request("GET", f"{simulator.url}/configurations?api-version=2021-04-12", retries=False)
    assert answer.status == 401


def test_a_token_of_a_credential_is_taken(simulator):
    client = Client(Access(simulator.host, credential=simulator.credential(), base_url=simulator.url))
    assert client.configurations() == []
    client.close()


# What it takes


def test_a_configuration_that_is_wrong_is_refused_with_every_fault(client):
    content = {"modulesContent": {"$edgeAgent": {"properties.desired": {"modules": {}}}}}
    with pytest.raises(InvalidRequestError, match="4 faults"):
        client.put_configuration(configuration("one", content))


def test_a_target_condition_that_cannot_be_read_is_refused(client, manifest_of):
    with pytest.raises(InvalidRequestError, match="not valid"):
        client.put_configuration(configuration("one", manifest_of(), condition="tags.fleet is 'plant'"))
    assert "not valid" in client.check_condition("tags.fleet is 'plant'")
    assert client.check_condition("tags.fleet = 'plant'") == ""


def test_a_configuration_is_made_once_and_changed_by_its_etag(client, manifest_of):
    made = client.put_configuration(configuration("one", manifest_of()))
    with pytest.raises(AlreadyThereError):
        client.put_configuration(configuration("one", manifest_of()))
    changed = client.put_configuration(configuration("one", manifest_of(), priority=7), match=made["etag"])
    assert (changed["priority"], client.configuration("one")["priority"]) == (7, 7)
    with pytest.raises(ChangedError):
        client.put_configuration(configuration("one", manifest_of(), priority=8), match=made["etag"])
    with pytest.raises(ChangedError):
        client.delete_configuration("one", match=made["etag"])
    client.delete_configuration("one", match=changed["etag"])
    with pytest.raises(NotFoundError):
        client.configuration("one")


def test_what_a_configuration_deploys_never_changes(client, manifest_of):
    client.put_configuration(configuration("one", manifest_of("1")))
    with pytest.raises(InvalidRequestError, match="cannot be updated"):
        client.put_configuration(configuration("one", manifest_of("2")), match="*")


def test_a_hub_takes_so_many_configurations_and_no_more(client, simulator, manifest_of):
    for number in range(MOST_CONFIGURATIONS):
        simulator.hub.put(f"c{number}", configuration(f"c{number}", manifest_of()), None)
    with pytest.raises(QuotaError, match="at most 100"):
        client.put_configuration(configuration("more", manifest_of()))


@pytest.mark.parametrize("change", [{"id": "UPPER"}, {"priority": -1}, {"labels": {"a": "b" * 129}}, {"colour": "red"}])
def test_members_that_the_service_does_not_take_are_refused(client, manifest_of, change):
    with pytest.raises(InvalidRequestError):
        client.put_configuration({**configuration("one", manifest_of()), **change})


def test_an_unknown_request_is_refused_by_name(client):
    with pytest.raises(NotFoundError, match="does not simulate"):
        client._ask("GET", "/jobs/v2")


# Twins


def test_queries_come_in_pages(client, simulator):
    simulator.add_fleet("plant", 5)
    simulator.add_device("other", fleet="dock")
    found = list(client.twins("devices", "tags.fleet = 'plant'"))
    assert [twin["deviceId"] for twin in found] == [f"plant-{number}" for number in range(5)]
    assert [operation for operation, _names in simulator.heard].count("Devices_Query") == 3


def test_tags_are_merged_and_taken_away(client, simulator):
    simulator.add_device("d", fleet="plant")
    client.tag("d", {"modeldeploy": {"plant": 3}})
    client.tag("d", {"modeldeploy": {"dock": 4}})
    assert simulator.device("d").tags == {"fleet": "plant", "modeldeploy": {"plant": 3, "dock": 4}}
    client.tag("d", {"modeldeploy": {"plant": None}})
    assert simulator.device("d").tags["modeldeploy"] == {"dock": 4}


def test_names_with_signs_of_their_own_are_quoted(client, simulator):
    simulator.add_device("a b/c'd$", fleet="plant")
    client.tag("a b/c'd$", {"x": 1})
    assert client.agent("a b/c'd$")["deviceId"] == "a b/c'd$"


# Which deployment a device is given


def test_the_highest_priority_wins_and_the_later_one_of_two(client, simulator, manifest_of):
    simulator.add_device("d", fleet="plant")
    client.put_configuration(configuration("low", manifest_of("low"), priority=1))
    client.put_configuration(configuration("high", manifest_of("high"), priority=2))
    client.put_configuration(configuration("dock", manifest_of("dock"), priority=3, condition="tags.fleet = 'dock'"))
    simulator.act()
    assert running(simulator, "d") == {"scorer": "high"}
    client.delete_configuration("high", match="*")
    simulator.act()
    assert running(simulator, "d") == {"scorer": "low"}
    client.delete_configuration("low", match="*")
    simulator.act()
    assert running(simulator, "d") == {"scorer": "low"}, "what nothing aims at keeps what it has"


def test_layers_lie_over_the_base_and_a_higher_one_over_a_lower_one(client, simulator, manifest_of):
    simulator.add_device("d", fleet="plant")
    client.put_configuration(configuration("layer", manifest_of("1", name="extra", layer=True), priority=5))
    simulator.act()
    assert running(simulator, "d") == {}, "a layer alone is no deployment"
    client.put_configuration(configuration("base", manifest_of("base"), priority=0))
    client.put_configuration(configuration("higher", manifest_of("2", name="extra", layer=True), priority=6))
    simulator.act()
    assert running(simulator, "d") == {"scorer": "base", "extra": "2"}


def test_a_manifest_for_one_device_holds_until_a_deployment_aims_at_it(client, simulator, manifest_of):
    simulator.add_device("d")
    client.apply("d", manifest_of("hand"))
    simulator.act()
    assert running(simulator, "d") == {"scorer": "hand"}
    client.put_configuration(configuration("all", manifest_of("all")))
    simulator.act()
    assert running(simulator, "d") == {"scorer": "all"}
    with pytest.raises(InvalidRequestError, match="faults"):
        client.apply("d", {"modulesContent": {"$edgeAgent": {"properties.desired": {}}}})


def test_what_came_of_it_is_reported_and_counted(client, simulator, manifest_of):
    for name in ("well", "ill", "off", "pull"):
        simulator.add_device(name, online=name != "off")
    simulator.faults.failing["ill"] = {"1"}
    client.put_configuration(configuration("one", manifest_of("1")))
    simulator.act()
    assert [running(simulator, name) for name in ("well", "ill", "off")] == [{"scorer": "1"}, {}, {}]
    reported = client.agent("ill")["properties"]["reported"]["modules"]["scorer"]
    assert (reported["runtimeStatus"], reported["exitCode"]) == ("backoff", 1)
    assert client.agent("off")["connectionState"] == "Disconnected"
    metrics = client.configuration("one")["systemMetrics"]["results"]
    assert metrics == {"targetedCount": 4, "appliedCount": 4, "reportedSuccessfulCount": 2, "reportedFailedCount": 1}
    simulator.faults.failing.clear()
    simulator.act()
    assert running(simulator, "ill") == {"scorer": "1"}, "the runtime starts it again and again"


def test_an_image_that_cannot_be_pulled_is_told_by_the_agent(client, simulator, manifest_of):
    simulator.add_device("d")
    simulator.faults.missing_images.add("registry.example/scorer:1")
    client.put_configuration(configuration("one", manifest_of("1")))
    simulator.act()
    status = client.agent("d")["properties"]["reported"]["lastDesiredStatus"]
    assert (status["code"], "could not be pulled" in status["description"]) == (500, True)


# Bad days


def test_bad_days_come_on_demand(client, simulator, manifest_of):
    simulator.faults.throttle_every = 1
    with pytest.raises(ThrottledError) as caught:
        client.configurations()
    assert caught.value.retry_after == 1.0
    simulator.faults.throttle_every, simulator.faults.fail_every = 0, 1
    with pytest.raises(UnavailableError):
        client.configurations()
    simulator.faults.fail_every = 0
    simulator.faults.drop_before["Configuration_CreateOrUpdate"] = 1
    with pytest.raises(UnavailableError):
        client.put_configuration(configuration("one", manifest_of()))
    assert client.configurations() == []
    simulator.faults.drop_after["Configuration_CreateOrUpdate"] = 1
    with pytest.raises(UnavailableError):
        client.put_configuration(configuration("one", manifest_of()))
    assert [each["id"] for each in client.configurations()] == ["one"]


def test_what_the_service_says_becomes_an_error_of_ours():
    from modeldeploy.backends.iotedge.errors import of_answer

    body = json.dumps({"Message": "ErrorCode:IotHubUnauthorized;no role"}).encode()
    error = of_answer(403, {}, body, {"hub": "h"})
    assert isinstance(error, AccessDeniedError)
    assert "no role" in str(error)
    assert isinstance(of_answer(403, {}, b'{"Message": "ErrorCode:IotHubQuotaExceeded;full"}', {}), QuotaError)
    assert isinstance(of_answer(502, {}, b"<html>", {}), UnavailableError)
