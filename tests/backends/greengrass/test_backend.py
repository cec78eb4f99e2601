"""What is particular about targets on Greengrass."""

from __future__ import annotations

import itertools

import pytest

from modeldeploy.backends.greengrass import Greengrass, artifact, changes, names, storage
from modeldeploy.backends.greengrass.client import Access, Client
from modeldeploy.backends.greengrass.recipe import Limits
from modeldeploy.errors import (
    ConfigurationError,
    ConflictError,
    CredentialsError,
    IntegrityError,
    ThrottledError,
    UnavailableError,
    UnsupportedError,
)
from modeldeploy.values.edge import DeviceHealth
from modeldeploy.values.serving import EndpointSpec, Traffic
from modeldeploy.values.ticket import Phase


@pytest.fixture
def simulator(harness):
    return harness.backend.simulator


def deployments(simulator):
    return [asked for operation, asked in simulator.heard if operation == "CreateDeployment"]


def members(simulator, group):
    return simulator.client("iot").list_things_in_thing_group(thingGroupName=group)["things"]


def attributes(simulator, group):
    found = simulator.client("iot").describe_thing_group(thingGroupName=group)
    return found["thingGroupProperties"]["attributePayload"]["attributes"]


# How a target lies in the account


def test_devices_are_in_the_group_of_the_revision_that_they_run(harness, simulator):
    first, second = harness.revisions[:2]
    spec = harness.deploy(first, second)
    devices = harness.devices(spec)
    harness.route(spec, Traffic({first.id: 50, second.id: 50}))
    for revision, low, high in ((second, 0, 50), (first, 50, 100)):
        inside = {name for name, device in devices.items() if low <= device.ring < high}
        assert set(members(simulator, names.group(spec.name, revision.id))) == inside


def test_only_groups_that_gain_devices_are_deployed_to(harness, simulator):
    first, second = harness.revisions[:2]
    spec = harness.deploy(first, second)
    harness.devices(spec)
    before = len(deployments(simulator))
    harness.route(spec, Traffic({first.id: 90, second.id: 10}))
    harness.route(spec, Traffic({first.id: 50, second.id: 50}))
    harness.route(spec, Traffic.all_to(first.id))
    asked = [each["tags"][names.TAG_REVISION] for each in deployments(simulator)[before:]]
    assert asked == [second.id, second.id, first.id]
    assert attributes(simulator, names.group(spec.name, first.id))["owed"] == "none"


def test_a_deployment_says_what_the_service_does_when_devices_fail(harness, simulator):
    harness.deploy(harness.revisions[0])
    asked = deployments(simulator)[-1]
    assert asked["deploymentPolicies"]["failureHandlingPolicy"] == "ROLLBACK"
    assert asked["iotJobConfiguration"]["abortConfig"]["criteriaList"][0]["action"] == "CANCEL"
    assert len(asked["clientToken"]) == 32


def test_deleting_a_target_leaves_nothing_in_the_account(harness, simulator):
    spec = harness.deploy(*harness.revisions[:2])
    name = next(iter(harness.devices(spec)))
    harness.succeed(harness.backend.drop_endpoint(spec.name))
    account, s3 = simulator.account, simulator.client("s3")
    assert not [each for each in account.components.values() if each.name == names.component(spec.name)]
    assert not [each for each in account.deployments.values() if spec.name in each.target]
    assert s3.list_objects_v2(Bucket=simulator.bucket, Prefix=names.place(spec.name)).get("KeyCount") == 0
    assert simulator.device(name).installed, "a device keeps what it runs"


def test_a_device_that_comes_later_is_enrolled(harness, simulator):
    first, second = harness.revisions[:2]
    spec = harness.deploy(first, second)
    harness.route(spec, Traffic({first.id: 50, second.id: 50}))
    simulator.add_device("late", group=spec.name)
    (late,) = [each for each in harness.edge.devices(spec.name) if each.id == "late"]
    assert (late.wanted, late.health) == (None, DeviceHealth.OK)
    assert [harness.backend.enrol(spec.name), harness.backend.enrol(spec.name)] == [1, 0]
    simulator.act()
    (late,) = [each for each in harness.edge.devices(spec.name) if each.id == "late"]
    assert late.revision == late.wanted == (second.id if late.ring < 50 else first.id)


def test_more_devices_than_one_advance_takes_are_all_moved(harness, simulator, monkeypatch):
    monkeypatch.setattr(changes, "_SLICE", 3)
    first, second = harness.revisions[:2]
    spec = harness.deploy(first, second)
    for number in range(7):
        simulator.add_device(f"many-{number}", group=spec.name)
    steps = itertools.islice(harness.steps(harness.backend.set_traffic(spec.name, Traffic.all_to(second.id))), 3)
    assert [step.note for step in steps] == ["moved 3 devices", "moved 3 devices", "the devices are told"]
    assert len(members(simulator, names.group(spec.name, second.id))) == 7


def test_things_that_are_no_core_devices_block_nothing(harness, simulator):
    spec = harness.deploy(harness.revisions[0])
    simulator.add_device("bare", group=spec.name)
    del simulator.account.cores["bare"]
    harness.backend.enrol(spec.name)
    (found,) = harness.edge.devices(spec.name)
    assert (found.health, found.note) == (DeviceHealth.OFFLINE, "it has not been set up as a core device")
    harness.succeed(harness.backend.put_revision(spec, harness.revisions[1]))
    harness.route(spec, Traffic.all_to(harness.revisions[1].id))


# What devices say


def test_a_device_that_fails_keeps_the_old_revision_and_says_why(harness):
    first = harness.revisions[0]
    spec = harness.deploy(first, harness.broken)
    harness.devices(spec)
    harness.backend.advance(harness.backend.set_traffic(spec.name, Traffic({first.id: 90, harness.broken.id: 10})))
    failed = [each for each in harness.devices(spec).values() if each.health is DeviceHealth.FAILED]
    assert {(each.ring, each.revision) for each in failed} == {(3, first.id), (7, first.id)}
    assert all("FAILED_ROLLBACK_COMPLETE" in each.note for each in failed)


def test_a_component_that_breaks_after_its_self_test_is_seen(harness, simulator):
    first = harness.revisions[0]
    spec = harness.deploy(first)
    harness.devices(spec)
    simulator.faults.crashing.add(first.id)
    found = harness.devices(spec).values()
    simulator.faults.crashing.clear()
    assert {(each.health, each.revision, each.note) for each in found} == {
        (DeviceHealth.FAILED, None, "its component is BROKEN")
    }


def test_a_component_that_the_service_refuses_can_be_tried_again(harness, simulator):
    spec, revision = harness.endpoint(), harness.revisions[0]
    simulator.faults.refused.add(revision.id)
    ended = harness.carry(harness.backend.put_revision(spec, revision))
    simulator.faults.refused.clear()
    assert (ended.phase, "refuses the component" in ended.note) == (Phase.FAILED, True)
    harness.succeed(harness.backend.put_revision(spec, revision))


# Somebody else


def test_attributes_that_somebody_changed_are_not_guessed_at(harness, simulator):
    spec = harness.deploy(harness.revisions[0])
    group = names.group(spec.name, harness.revisions[0].id)
    iot = simulator.client("iot")
    kept = attributes(simulator, group)
    iot.update_thing_group(
        thingGroupName=group, thingGroupProperties={"attributePayload": {"attributes": {"bound": "x"}, "merge": True}}
    )
    with pytest.raises(ConflictError, match="somebody changed the attributes"):
        harness.backend.observe(spec.name)
    iot.update_thing_group(
        thingGroupName=group, thingGroupProperties={"attributePayload": {"attributes": {"bound": "100"}, "merge": True}}
    )
    assert kept["bound"] == "100"


def test_a_record_that_somebody_changed_is_refused(harness, simulator):
    first, second = harness.revisions[:2]
    spec = harness.deploy(first, second)
    s3, place = simulator.client("s3"), f"{names.place(spec.name, first.id)}revision.json"
    other = s3.get_object(Bucket=simulator.bucket, Key=f"{names.place(spec.name, second.id)}revision.json")[
        "Body"
    ].read()
    s3.put_object(Bucket=simulator.bucket, Key=place, Body=other)
    with pytest.raises(IntegrityError, match="is of another revision"):
        harness.other().observe(spec.name)


# Sending


def test_a_large_archive_goes_up_in_parts_and_is_taken_up_anywhere(harness, simulator, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "SLICE", 5 << 20)
    path = tmp_path / "model.zip"
    path.write_bytes(bytes(range(256)) * (12 << 12))
    digest, store = artifact.sha256(path), harness.backend._provider.storage
    position, seen = storage.Position(), []
    while not position.done:
        position = store.send("big/model.zip", path, digest, storage.Position.load(position.dump()))
        seen.append(len(position.etags))
        store.send("big/model.zip", path, digest, position) if len(seen) == 2 else None
    assert max(seen) == 3
    assert store.get("big/model.zip") == path.read_bytes()
    assert store.send("big/model.zip", path, digest, storage.Position()).done
    store.sweep("big/")
    assert list(store.below("big/")) == []


# Bad days


def test_lost_answers_make_nothing_twice(harness, simulator):
    first, second = harness.revisions[:2]
    spec = harness.deploy(first, second)
    harness.devices(spec)
    before = len(simulator.account.deployments)
    ticket = harness.backend.set_traffic(spec.name, Traffic.all_to(second.id))
    simulator.faults.drop_after["CreateDeployment"] = 1
    with pytest.raises(UnavailableError):
        harness.backend.advance(ticket)
    assert harness.carry(ticket).phase is Phase.SUCCEEDED
    assert len(simulator.account.deployments) - before == 1


def test_throttling_is_told_as_such(harness, simulator):
    simulator.faults.throttle_every = 1
    with pytest.raises(ThrottledError):
        harness.backend.observe("plant")
    simulator.faults.throttle_every = 0


# Refusals before anything is sent


def test_what_is_wrong_is_refused_with_nothing_written(harness):
    before = harness.writes()
    with pytest.raises(ConfigurationError, match="no endpoint option 'colour'"):
        harness.backend.put_revision(EndpointSpec("plant", {"colour": "red"}), harness.revisions[0])
    spec = harness.deploy(harness.revisions[0])
    with pytest.raises(UnsupportedError, match="without a revision"):
        harness.backend.set_traffic(spec.name, Traffic())
    assert harness.writes() > before


def test_a_bucket_must_be_named(revisions):
    backend = Greengrass(region="eu-west-1")
    with pytest.raises(ConfigurationError, match="needs the bucket"):
        backend.put_revision(EndpointSpec("plant"), revisions[0])


def test_settings_are_read_by_name(tmp_path):
    with pytest.raises(ConfigurationError, match="no setting 'access_key'"):
        Greengrass.configure(tmp_path, {"access_key": "x"})
    with pytest.raises(ConfigurationError, match="tags of backend"):
        Greengrass.configure(tmp_path, {"tags": "no-sign"})
    made = Greengrass.configure(tmp_path, {"bucket": "b", "region": "eu-west-1", "tags": "a=b, c=d"})
    assert (made._provider.storage.bucket, made._provider.tags) == ("b", {"a": "b", "c": "d"})


def test_without_credentials_or_a_region_nothing_is_asked(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="no AWS region"):
        Client(Access()).service("iot")
    with pytest.raises(CredentialsError, match="no AWS credentials"):
        Client(Access(region="eu-west-1", endpoint_url="http://127.0.0.1:9")).iot("list_thing_groups")


# By itself


@pytest.mark.slow
def test_devices_follow_by_themselves_in_a_rehearsal(shelf, carry, plant):
    """Real threads and time, and the service stops the deployment of which too many fail."""
    _home, revisions = shelf
    backend = Greengrass.rehearsal(home=shelf[0], limits=Limits(failed_percent=50.0, failed_least=2))
    try:
        backend.simulator.add_fleet("plant", 12)
        backend.simulator.set_online("plant-3", online=False)
        backend.simulator.faults.broken.add(revisions[1].id)
        carry(backend, backend.put_revision(plant, revisions[0]))
        carry(backend, backend.put_revision(plant, revisions[1]))
        carry(backend, backend.set_traffic("plant", Traffic({revisions[0].id: 40, revisions[1].id: 60})))
        found = backend.devices("plant")
        told = [each for each in found if each.wanted == revisions[1].id and each.health is not DeviceHealth.OFFLINE]
        assert {each.health for each in told} == {DeviceHealth.FAILED}
        assert {each.revision for each in told} == {revisions[0].id}
    finally:
        backend.close()
