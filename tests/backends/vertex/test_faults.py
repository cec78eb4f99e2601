"""The suite on bad days of the service, and what each kind of failure comes to."""

from __future__ import annotations

import attrs
import pytest

from modeldeploy.errors import AccessDeniedError, ConflictError, ModelDeployError, QuotaError
from modeldeploy.testing.serving import ServingConformance
from modeldeploy.values.serving import EndpointSpec, Traffic
from modeldeploy.values.ticket import Phase

WRITES = ("UploadModel", "CreateEndpoint", "DeployModel", "UpdateEndpoint", "UndeployModel", "DeleteEndpoint")


def each_once(*codes: str) -> dict[str, list[str]]:
    return {method: list(codes) for method in WRITES}


@pytest.mark.slow
class TestOnBadDays(ServingConformance):
    """Failures, throttling, lost answers, stale etags, and operations that fail; whoever calls repeats."""

    @pytest.fixture
    def harness(self, harness, patient):
        faults = harness.backend.simulator.faults
        faults.__init__(
            fail_every=29,
            throttle_every=31,
            error=each_once("ABORTED", "UNAVAILABLE", "RESOURCE_EXHAUSTED"),
            lose=dict.fromkeys(WRITES, 1),
            race={"UpdateEndpoint": 1},
            broken={"DeployModel": ["INTERNAL"], "UndeployModel": ["INTERNAL"], "DeleteEndpoint": ["UNAVAILABLE"]},
            fail_storage_every=17,
            lose_storage={"POST": 1},
        )
        # A write whose answer was lost is not counted, so the counts say nothing here.
        reopen = harness.reopen
        yield attrs.evolve(harness, backend=patient, writes=None, reopen=lambda: type(patient)(reopen()))
        faults.__init__()


@pytest.fixture
def faults(town):
    return town.faults


def failed(town, name: str) -> str:
    town.made.append(name)
    ended = town.carry(town.backend.put_revision(EndpointSpec(name), town.revisions[0]))
    assert ended.phase is Phase.FAILED
    return ended.note


HOW = {
    "unavailable": {"error": each_once("UNAVAILABLE")},
    "throttled": {"error": each_once("RESOURCE_EXHAUSTED")},
    "aborted": {"error": each_once("ABORTED")},
    "deadline": {"error": each_once("DEADLINE_EXCEEDED")},
    "lost": {"lose": dict.fromkeys(WRITES, 1)},
    "raced": {"race": {"UpdateEndpoint": 1}},
}


@pytest.mark.parametrize("how", HOW)
def test_a_change_comes_to_its_end_over_a_single_fault(town, faults, patient, how):
    first, second = town.revisions[:2]
    faults.__init__(**{name: {key: _copy(value) for key, value in table.items()} for name, table in HOW[how].items()})
    name = f"over-{how}"
    town.made.append(name)
    for revision in (first, second):
        town.succeed(patient.put_revision(EndpointSpec(name), revision), on=patient)
    town.succeed(patient.set_traffic(name, Traffic.all_to(second.id)), on=patient)
    assert town.backend.observe(name).traffic.live == {second.id: 100}
    town.succeed(patient.drop_revision(name, first.id), on=patient)
    assert [each.revision.id for each in town.backend.observe(name).revisions] == [second.id]
    town.succeed(patient.drop_endpoint(name), on=patient)
    assert town.backend.observe(name) is None


def _copy(value):
    return list(value) if isinstance(value, list) else value


def test_a_lost_answer_leaves_one_version_and_one_deployed_model(town, faults, patient, shelf):
    faults.lose = {"UploadModel": 1, "DeployModel": 1, "CreateEndpoint": 1}
    revision = town.revision(idempotent="true")
    town.made.append("once")
    town.succeed(patient.put_revision(EndpointSpec("once"), revision), on=patient)
    client = town.backend._client
    asked = {"name": f"{client.access.parent}/models/adds"}
    versions = client.every("model", "list_model_versions", asked)
    assert len([each for each in versions if revision.id in each.version_aliases]) == 1
    assert len([each for each in versions if each.labels["modeldeploy-revision"] == revision.id]) == 1
    assert len(town.backend._provider.entity("once").deployed_models) == 1


def test_an_operation_that_fails_by_the_services_fault_is_asked_for_once_more(town, faults):
    faults.broken = {"DeployModel": ["INTERNAL"]}
    town.deploy("again", town.revisions[0])
    assert town.answered("again") == town.revisions[0].id


def test_an_operation_that_fails_twice_has_failed_and_can_be_asked_for_again(town, faults):
    faults.broken = {"DeployModel": ["INTERNAL", "INTERNAL"]}
    assert "INTERNAL" in failed(town, "twice")
    assert town.backend.observe("twice").revisions == ()
    town.deploy("twice", town.revisions[0])
    assert town.backend.observe("twice").traffic.live == {town.revisions[0].id: 100}


def test_a_lack_of_machines_is_told_at_once_and_not_asked_for_again(town, faults):
    faults.stockout = 1
    note = failed(town, "stockout")
    assert "RESOURCE_EXHAUSTED" in note
    assert "QuotaError" in note or "another machine" in note


def test_a_used_up_quota_is_named_with_the_remedy(town, faults):
    name = "CustomModelServingCPUsPerProjectPerRegion"
    faults.quota = {name: 0}
    town.made.append("quota")
    try:
        note = town.carry(town.backend.put_revision(EndpointSpec("quota"), town.revisions[0])).note
    except QuotaError as error:
        # The service may refuse it before there is an operation.
        note = str(error)
    assert name in note
    assert "machine_type" in note


def test_a_container_that_dies_is_told_with_its_last_lines(town):
    town.made.append("dies")
    ended = town.carry(town.backend.put_revision(EndpointSpec("dies"), town.revision("dies")))
    assert ended.phase is Phase.FAILED
    assert "libgpu: no device found" in ended.note


def test_a_lack_of_rights_is_told_at_once(town, faults):
    first, second = town.revisions[:2]
    town.deploy("rights", first, second)
    faults.error = {"UpdateEndpoint": ["PERMISSION_DENIED"]}
    with pytest.raises(AccessDeniedError) as caught:
        town.carry(town.backend.set_traffic("rights", Traffic.all_to(second.id)))
    assert not caught.value.transient
    assert "roles" in str(caught.value)


def test_somebody_else_who_was_faster_is_noticed_by_whoever_expects_a_version(town, faults):
    first, second = town.revisions[:2]
    town.deploy("raced", first, second)
    version = town.backend.observe("raced").version
    ticket = town.backend.set_traffic("raced", Traffic.all_to(second.id), expect=version)
    # Between this look and the write another table comes in, and the service refuses the stale etag.
    provider, real = town.backend._provider, town.backend._provider.put_traffic

    def late(seen, table):
        provider.put_traffic = real
        town.succeed(town.backend.set_traffic("raced", Traffic({first.id: 50, second.id: 50})))
        real(seen, table)

    provider.put_traffic = late
    with pytest.raises(ConflictError, match="is at version"):
        town.carry(ticket)
    assert town.backend.observe("raced").traffic.live == {first.id: 50, second.id: 50}


def test_a_rollback_does_not_wait_for_a_deployment_that_is_stuck(town, faults):
    first, second, third = town.revisions
    town.deploy("held-up", first, second)
    town.succeed(town.backend.set_traffic("held-up", Traffic.all_to(second.id)))
    faults.stuck = {"DeployModel": 1}
    ticket = town.backend.put_revision(EndpointSpec("held-up"), third)
    for _look in range(200):
        ticket = town.backend.advance(ticket)
        if "deploys" in ticket.note:
            break
    assert not town.backend.observe("held-up").settled
    town.succeed(town.backend.set_traffic("held-up", Traffic.all_to(first.id)))
    assert town.answered("held-up") == first.id
    assert town.carry(town.backend.cancel(ticket)).phase is Phase.CANCELLED


def test_only_errors_of_ours_come_out_of_an_unreachable_service(town, faults):
    faults.error = {"GetEndpoint": ["UNAVAILABLE"], "ListEndpoints": ["UNAVAILABLE"]}
    for call in (lambda: town.backend.observe("any-name"), town.backend.endpoints):
        with pytest.raises(ModelDeployError) as caught:
            call()
        assert caught.value.transient
