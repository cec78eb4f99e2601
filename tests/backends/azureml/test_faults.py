"""The suite on bad days of the service, and what each kind of failure comes to."""

from __future__ import annotations

import attrs
import pytest

from modeldeploy.errors import AccessDeniedError, ModelDeployError
from modeldeploy.testing.serving import ServingConformance
from modeldeploy.values.serving import EndpointSpec, Traffic
from modeldeploy.values.ticket import Phase

PUT_ENDPOINT, PUT_DEPLOYMENT = "OnlineEndpoints_CreateOrUpdate", "OnlineDeployments_CreateOrUpdate"
DROP_ENDPOINT, DROP_DEPLOYMENT = "OnlineEndpoints_Delete", "OnlineDeployments_Delete"
EACH = (PUT_ENDPOINT, PUT_DEPLOYMENT, DROP_ENDPOINT, DROP_DEPLOYMENT)


@pytest.mark.slow
class TestOnBadDays(ServingConformance):
    """Throttling, failures, lost answers, conflicts, and one operation that fails with status 200; whoever calls repeats."""

    @pytest.fixture
    def harness(self, harness, patient):
        faults = harness.backend.simulator.faults
        faults.__init__(
            throttle_every=13,
            fail_every=29,
            conflict=dict.fromkeys(EACH, 1),
            drop_before=dict.fromkeys(EACH, 1),
            drop_after=dict.fromkeys(EACH, 1),
            broken={PUT_DEPLOYMENT: 1},
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


@pytest.mark.parametrize("how", ["conflict", "drop_before", "drop_after"])
def test_a_change_comes_to_its_end_over_a_single_fault(town, faults, patient, how):
    first, second = town.revisions[:2]
    name = f"over-{how.replace('_', '-')}"
    getattr(faults, how).update(dict.fromkeys(EACH, 1))
    town.made.append(name)
    for revision in (first, second):
        town.succeed(patient.put_revision(EndpointSpec(name), revision), on=patient)
    town.succeed(patient.set_traffic(name, Traffic.all_to(second.id)), on=patient)
    assert town.backend.observe(name).traffic.live == {second.id: 100}
    town.succeed(patient.drop_revision(name, first.id), on=patient)
    town.succeed(patient.drop_endpoint(name), on=patient)
    assert getattr(faults, how) == dict.fromkeys(EACH, 0)


def test_an_operation_that_fails_by_the_services_fault_is_asked_for_once_more(town, faults):
    faults.broken[PUT_DEPLOYMENT] = 1
    town.deploy("again", town.revisions[0])
    assert town.answered("again") == town.revisions[0].id


def test_an_operation_whose_place_another_took_is_asked_for_once_more(town, faults):
    faults.canceled[PUT_DEPLOYMENT] = 1
    town.deploy("anew", town.revisions[0])
    assert town.answered("anew") == town.revisions[0].id


def test_an_operation_that_fails_twice_has_failed_and_can_be_asked_for_again(town, faults):
    faults.broken[PUT_DEPLOYMENT] = 2
    assert "InternalServerError" in failed(town, "twice")
    state = town.backend.observe("twice")
    assert [each.ready for each in state.revisions] == [False]
    assert state.traffic.live == {}
    town.deploy("twice", town.revisions[0])
    assert town.backend.observe("twice").traffic.live == {town.revisions[0].id: 100}


def test_a_failed_change_of_traffic_says_what_holds(town, faults):
    first, second = town.revisions[:2]
    town.deploy("stays", first, second)
    faults.broken[PUT_ENDPOINT] = 1
    ended = town.carry(town.backend.set_traffic("stays", Traffic.all_to(second.id)))
    assert ended.phase is Phase.FAILED
    assert "InternalServerError" in ended.note
    assert first.id in ended.note


def test_what_was_before_may_be_shown_for_a_while(town, faults):
    first, second = town.revisions[:2]
    town.deploy("stale", first)
    faults.stale_s = 20.0
    town.succeed(town.backend.put_revision(EndpointSpec("stale"), second))
    town.succeed(town.backend.set_traffic("stale", Traffic.all_to(second.id)))
    faults.stale_s = 0.0
    assert town.backend.observe("stale").traffic.live == {second.id: 100}


def test_an_endpoint_that_has_just_succeeded_may_refuse_a_deployment(town, faults):
    faults.settling_s = 40.0
    town.deploy("settles", town.revisions[0])
    assert town.answered("settles") == town.revisions[0].id


def test_a_name_that_is_not_free_yet_is_waited_for(town, faults):
    town.deploy("held", town.revisions[0])
    faults.held_s = 60.0
    town.carry(town.backend.drop_endpoint("held"))
    town.deploy("held", town.revisions[1])
    assert town.answered("held") == town.revisions[1].id


def test_a_lack_of_rights_is_told_at_once(town, faults):
    first, second = town.revisions[:2]
    town.deploy("rights", first, second)
    faults.refuse[PUT_ENDPOINT] = 1
    with pytest.raises(AccessDeniedError) as caught:
        town.carry(town.backend.set_traffic("rights", Traffic.all_to(second.id)))
    assert not caught.value.transient
    assert "roles" in str(caught.value)


def test_a_container_that_dies_is_told_with_its_last_lines(town):
    town.made.append("dies")
    ended = town.carry(town.backend.put_revision(EndpointSpec("dies"), town.revision("dies")))
    assert ended.phase is Phase.FAILED
    assert "libgpu: no device found" in ended.note


def test_only_errors_of_ours_come_out_of_an_unreachable_service(town, faults):
    faults.drop_before.update(dict.fromkeys(["OnlineEndpoints_Get", "OnlineEndpoints_List"], 1))
    for call in (lambda: town.backend.observe("any-name"), town.backend.endpoints):
        with pytest.raises(ModelDeployError) as caught:
            call()
        assert caught.value.transient
