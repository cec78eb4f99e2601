"""What is particular about targets on an IoT hub."""

from __future__ import annotations

import itertools

import attrs
import pytest

from modeldeploy.backends.iotedge import IoTEdge, changes
from modeldeploy.backends.iotedge.client import Access, Client
from modeldeploy.backends.iotedge.sas import Policy
from modeldeploy.edge.desired import place
from modeldeploy.errors import (
    ConfigurationError,
    ConflictError,
    CredentialsError,
    InvalidRequestError,
    UnavailableError,
    UnsupportedError,
)
from modeldeploy.values.edge import DeviceHealth
from modeldeploy.values.serving import EndpointSpec, Revision, Traffic
from modeldeploy.values.ticket import Phase


def puts(simulator):
    return [names[0] for operation, names in simulator.heard if operation == "Configuration_CreateOrUpdate"]


def conditions(simulator):
    return {
        each["labels"]["modeldeploy.revision"]: each["targetCondition"]
        for each in simulator.hub.configurations.values()
    }


@pytest.fixture
def simulator(harness):
    return harness.backend.simulator


# How a target lies in the hub


def test_each_revision_is_a_configuration_of_a_higher_priority(harness, simulator):
    first, second, third = harness.revisions
    spec = harness.deploy(first, second, third)
    found = simulator.hub.configurations
    priorities = [found[f"modeldeploy_{spec.name}_{each.id}"]["priority"] for each in (first, second, third)]
    assert priorities == [100, 101, 102]


def test_a_share_is_a_bound_in_one_target_condition(harness, simulator):
    first, second = harness.revisions[:2]
    spec = harness.deploy(first, second)
    tag = f"tags.modeldeploy.{spec.name.replace('-', '_')}"
    harness.route(spec, Traffic({first.id: 90, second.id: 10}))
    inside = f"(tags.fleet = '{spec.name}')"
    assert conditions(simulator) == {first.id: inside, second.id: f"{inside} AND {tag} < 10"}


def test_going_back_is_one_request(harness, simulator):
    first, second = harness.revisions[:2]
    spec = harness.deploy(first, second)
    harness.route(spec, Traffic.all_to(second.id))
    before = len(puts(simulator))
    harness.route(spec, Traffic.all_to(first.id))
    assert puts(simulator)[before:] == [f"modeldeploy_{spec.name}_{second.id}"]


def test_places_are_written_into_the_twins_once(harness, simulator):
    first, second = harness.revisions[:2]
    spec = harness.deploy(first, second)
    devices = harness.devices(spec)
    harness.route(spec, Traffic({first.id: 50, second.id: 50}))
    written = [names[0] for operation, names in simulator.heard if operation == "Devices_UpdateTwin"]
    assert sorted(written) == sorted(devices)
    tag = spec.name.replace("-", "_")
    assert all(simulator.device(name).tags["modeldeploy"][tag] == place(spec.name, name) for name in devices)
    harness.route(spec, Traffic({first.id: 10, second.id: 90}))
    assert len([each for each in simulator.heard if each[0] == "Devices_UpdateTwin"]) == len(written)


def test_a_device_that_comes_later_is_given_what_is_for_all_places(harness, simulator):
    first, second = harness.revisions[:2]
    spec = harness.deploy(first, second)
    harness.route(spec, Traffic({first.id: 90, second.id: 10}))
    simulator.add_device("late", fleet=spec.name)
    simulator.act()
    (late,) = [each for each in harness.edge.devices(spec.name) if each.id == "late"]
    assert (late.revision, late.wanted, late.health) == (first.id, first.id, DeviceHealth.OK)


def test_deleting_a_target_takes_the_places_and_leaves_the_modules(harness, simulator):
    spec = harness.deploy(*harness.revisions[:2])
    name = next(iter(harness.devices(spec)))
    harness.route(spec, Traffic.all_to(harness.revisions[1].id))
    harness.devices(spec)
    harness.succeed(harness.backend.drop_endpoint(spec.name))
    simulator.act()
    assert simulator.hub.configurations == {}
    assert simulator.device(name).tags["modeldeploy"] == {}
    assert simulator.device(name).running() == {spec.name: harness.revisions[1].id}


def test_more_devices_than_one_advance_takes_are_all_given_places(harness, simulator, monkeypatch):
    monkeypatch.setattr(changes, "_SLICE", 5)
    first, second = harness.revisions[:2]
    spec = harness.deploy(first, second)
    names = [simulator.add_device(f"many-{number}", fleet=spec.name).id for number in range(12)]
    steps = itertools.islice(harness.steps(harness.backend.set_traffic(spec.name, Traffic.all_to(second.id))), 3)
    assert [step.note for step in steps] == [*["gives devices their places"] * 2, "the table is published"]
    assert all("modeldeploy" in simulator.device(name).tags for name in names)


def test_a_table_of_three_is_published_request_by_request(harness, simulator):
    first, second, third = harness.revisions
    spec = harness.deploy(first, second, third)
    harness.route(spec, Traffic({first.id: 50, second.id: 50}))
    before = len(puts(simulator))
    harness.route(spec, Traffic({first.id: 60, second.id: 30, third.id: 10}))
    assert len(puts(simulator)) - before == 2
    assert harness.state(spec).traffic.live == {first.id: 60, second.id: 30, third.id: 10}


# Somebody else


def test_a_target_condition_that_somebody_wrote_is_not_overwritten(harness, simulator):
    spec = harness.deploy(*harness.revisions[:2])
    name = f"modeldeploy_{spec.name}_{harness.revisions[0].id}"
    simulator.hub.configurations[name]["targetCondition"] = "tags.building = 9"
    with pytest.raises(ConflictError, match="somebody changed the target condition"):
        harness.backend.observe(spec.name)
    simulator.hub.configurations.clear()


def test_configurations_of_others_are_left_alone(harness, simulator, based):
    based(harness)
    spec = harness.deploy(harness.revisions[0])
    assert harness.backend.endpoints() == [spec.name]
    harness.succeed(harness.backend.drop_endpoint(spec.name))
    assert list(simulator.hub.configurations) == ["base"]


def test_a_change_made_in_between_ends_the_other_one(harness):
    first, second, third = harness.revisions
    spec = harness.deploy(first, second, third)
    harness.route(spec, Traffic({first.id: 50, second.id: 50}))
    ticket = harness.backend.advance(
        harness.backend.set_traffic(spec.name, Traffic({first.id: 60, second.id: 30, third.id: 10}))
    )
    harness.route(spec, Traffic.all_to(first.id))
    with pytest.raises(ConflictError, match="somebody else changed"):
        harness.backend.advance(ticket)


# What devices say


def test_why_a_device_failed_is_told_in_its_agents_words(harness, simulator):
    first = harness.revisions[0]
    spec = harness.deploy(first, harness.broken)
    harness.devices(spec)
    harness.route(spec, Traffic({first.id: 90, harness.broken.id: 10}))
    failed = [each for each in harness.devices(spec).values() if each.health is DeviceHealth.FAILED]
    assert {each.ring for each in failed} == {3, 7}
    assert all("exit code 1" in each.note for each in failed)
    assert all(each.revision is None for each in failed), "the runtime has no way back by itself"
    simulator.faults.missing_images.add("registry.example/server:2.0.0")
    harness.succeed(harness.backend.put_revision(spec, harness.revisions[1]))
    harness.route(spec, Traffic({first.id: 90, harness.revisions[1].id: 10}))
    notes = {each.note for each in harness.devices(spec).values() if each.health is DeviceHealth.FAILED}
    simulator.faults.missing_images.clear()
    assert len(notes) == 1
    assert "could not be pulled" in notes.pop()


def test_devices_that_never_reported_are_offline(harness, simulator):
    spec = harness.deploy(harness.revisions[0])
    simulator.add_device("new", fleet=spec.name, online=False)
    simulator.hub.device("new").active_at = 0.0
    (found,) = harness.edge.devices(spec.name)
    assert (found.health, found.seen, found.revision) == (DeviceHealth.OFFLINE, None, None)


def test_devices_that_are_not_for_edge_are_not_of_a_target(harness, simulator):
    spec = harness.deploy(harness.revisions[0])
    simulator.add_device("sensor", fleet=spec.name, edge=False)
    assert list(harness.edge.devices(spec.name)) == []


# One device by hand


def test_one_device_is_given_a_revision_by_hand(harness, simulator):
    simulator.add_device("bench")
    harness.backend.apply("bench", "plant", harness.revisions[0])
    simulator.act()
    assert simulator.device("bench").running() == {"plant": harness.revisions[0].id}
    assert harness.backend.endpoints() == []


# Refusals before anything is sent


def test_what_is_wrong_is_refused_with_nothing_written(harness_of, revisions):
    harness = harness_of(devices="tags.fleet is '{target}'")
    before = harness.writes()
    with pytest.raises(InvalidRequestError, match="does not understand devices="):
        harness.backend.put_revision(EndpointSpec("plant"), revisions[0])
    with pytest.raises(ConfigurationError, match="no endpoint option 'colour'"):
        harness.backend.put_revision(EndpointSpec("plant", {"colour": "red"}), revisions[0])
    with pytest.raises(ConfigurationError, match="knows no revision option 'imge'"):
        harness.backend.put_revision(EndpointSpec("plant"), Revision.of(revisions[0].model, options={"imge": "x"}))
    assert harness.writes() == before


def test_more_revisions_than_a_target_takes_are_refused(harness):
    spec = harness.endpoint()
    model = harness.revisions[0].model
    many = [Revision.of(attrs.evolve(model, version=f"9.{number}.0")) for number in range(11)]
    for revision in many[:10]:
        harness.succeed(harness.backend.put_revision(spec, revision))
    with pytest.raises(UnsupportedError, match="has 10 revisions"):
        harness.backend.put_revision(spec, many[10])


def test_a_target_is_not_left_without_a_revision(harness):
    spec = harness.deploy(harness.revisions[0])
    with pytest.raises(UnsupportedError, match="without a revision"):
        harness.backend.set_traffic(spec.name, Traffic())


# Who asks


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("HostName=h;SharedAccessKeyName=n", "has no SharedAccessKey"),
        ("SharedAccessKeyName=n;SharedAccessKey=AA==", "has no HostName"),
        ("HostName=h;SharedAccessKeyName=n;SharedAccessKey=%%%", "not base64"),
    ],
)
def test_a_connection_string_that_is_none_is_refused_without_being_shown(text, said):
    with pytest.raises(ConfigurationError, match=said) as caught:
        IoTEdge(connection_string=text)
    assert "%%%" not in str(caught.value)


def test_a_policy_does_not_show_its_key():
    policy = Policy.parse("HostName=h;SharedAccessKeyName=n;SharedAccessKey=c2VjcmV0")
    assert "c2VjcmV0" not in repr(policy)


def test_a_connection_string_comes_from_its_variable(monkeypatch):
    monkeypatch.setenv("IOTHUB_CONNECTION_STRING", "HostName=h.net;SharedAccessKeyName=n;SharedAccessKey=c2VjcmV0")
    assert IoTEdge()._client.access.host == "h.net"
    with pytest.raises(ConfigurationError, match=r"other\.net.*h\.net"):
        IoTEdge(hub="other.net")


def test_a_hub_must_be_named():
    with pytest.raises(ConfigurationError, match="which hub"):
        IoTEdge()


def test_settings_are_read_by_name(tmp_path):
    with pytest.raises(ConfigurationError, match="no setting 'connection_string'"):
        IoTEdge.configure(tmp_path, {"connection_string": "secret"})
    made = IoTEdge.configure(tmp_path, {"hub": "h.net", "layered": "yes", "image": "i"})
    assert made._tools.defaults.layered


def test_a_rehearsal_is_one_for_a_state_directory(tmp_path):
    one, other = (IoTEdge.configure(tmp_path, {"rehearsal": "true"}) for _ in range(2))
    assert one is other
    one.shutdown()


def test_a_credential_that_gives_no_token_is_told():
    class Nobody:
        def get_token(self, *_scopes):
            raise RuntimeError("please run az login")

    client = Client(Access("h.net", credential=Nobody()))
    with pytest.raises(CredentialsError, match="please run az login"):
        client.configurations()


def test_a_hub_that_is_not_there_is_unavailable():
    client = Client(Access("h.net", Policy("h.net", "n", "c2VjcmV0"), base_url="http://127.0.0.1:9"))
    with pytest.raises(UnavailableError, match="was not reached"):
        client.configurations()


# By itself


def test_devices_follow_by_themselves_in_a_rehearsal(rehearsal, carry, plant, revisions):
    """Real threads and time: minutes of the service in a second."""
    rehearsal.simulator.add_fleet("plant", 12)
    rehearsal.simulator.set_online("plant-3", online=False)
    carry(rehearsal, rehearsal.put_revision(plant, revisions[0]))
    carry(rehearsal, rehearsal.put_revision(plant, revisions[1]))
    carry(rehearsal, rehearsal.set_traffic("plant", Traffic({revisions[0].id: 50, revisions[1].id: 50})))
    found = rehearsal.devices("plant")
    assert {each.revision for each in found if each.ring < 50 and each.health is DeviceHealth.OK} == {revisions[1].id}
    assert [each.id for each in found if each.health is DeviceHealth.OFFLINE] == ["plant-3"]


def test_lost_answers_do_no_harm(harness, simulator):
    spec = harness.endpoint()
    ticket = harness.backend.put_revision(spec, harness.revisions[0])
    simulator.faults.drop_after["Configuration_CreateOrUpdate"] = 1
    with pytest.raises(UnavailableError):
        harness.backend.advance(ticket)
    assert harness.carry(ticket).phase is Phase.SUCCEEDED
    assert len(simulator.hub.configurations) == 1
