"""Fleets of devices by their handle: real releases in a real store, and stand-ins that follow them."""

from __future__ import annotations

import asyncio
import threading

import pytest

from modeldeploy import EdgeTarget, Endpoint, Operation, RolloutPolicy
from modeldeploy.backends.fleet.shelf import Within
from modeldeploy.backends.memory import MemoryBackend
from modeldeploy.cli import main as command
from modeldeploy.edge.desired import verify
from modeldeploy.edge.layout import DESIRED
from modeldeploy.edge.stores import DirectoryStore
from modeldeploy.edge_agent.__main__ import _parser
from modeldeploy.errors import (
    BackendRetiredError,
    ConfigurationError,
    ConflictError,
    NotFoundError,
    OperationTimeout,
    UnsupportedError,
)
from modeldeploy.handles.parts import How
from modeldeploy.handles.rollout import Rollout
from modeldeploy.testing.devices import Behaviour, StandIns
from modeldeploy.values.edge import DeviceHealth
from modeldeploy.values.serving import Revision

QUICK = RolloutPolicy.rings((10, 50), soak=0.05, interval=0.02, patience=20)
BROKEN = 9


class Town:
    """A fleet in a directory, whose devices act all the time."""

    def __init__(self, root, broken):
        self.store = DirectoryStore(root)
        self.target = EdgeTarget.fleet("cameras", store=root, offline_after=30)
        key = self.target._session.backend.public_key
        self.key = key
        self.devices = StandIns(lambda fleet: Within(self.store, fleet), key, Revision.of(broken.identity).id)
        self._ended = threading.Event()
        self._acting = threading.Thread(target=self._act)

    def _act(self):
        while not self._ended.wait(0.01):
            self.devices.act("cameras")

    def __enter__(self):
        self._acting.start()
        return self

    def __exit__(self, *_details):
        self._ended.set()
        self._acting.join()

    @property
    def served(self):
        """Name every revision that any device ever ran."""
        return {name for device in self.devices.of("cameras") for name in device.served}

    @property
    def published(self):
        return verify(Within(self.store, "cameras").get(DESIRED), [self.key], fleet="cameras")


@pytest.fixture
def town(tmp_path, model):
    root = tmp_path / "store"
    root.mkdir()
    with Town(root, model(BROKEN)) as town:
        yield town


def revision_of(model):
    return Revision.of(model.identity).id


def test_a_first_model_is_given_to_all_devices_and_they_have_a_say(town, model):
    target = town.target.deploy(model(1), QUICK)
    assert target.operation.status == "succeeded"
    assert target.shares == {revision_of(model(1)): 100}
    assert {device.revision for device in target.devices} == {revision_of(model(1))}
    assert [device.ring for device in target.devices] == [3, 7, 30, 45, 80, 95]
    assert target.status.settled
    assert "6 ok" in repr(target.status)


def test_the_same_model_again_is_no_work(town, model):
    town.target.deploy(model(1), QUICK)
    number = town.published.sequence
    assert town.target.deploy(model(1), QUICK).operation is None
    assert town.published.sequence == number


def test_rings_grow_while_their_devices_are_well(town, model):
    town.target.deploy(model(1), QUICK)
    rollout = town.target.rollout(model(2), QUICK)
    assert rollout.status == "succeeded"
    steps = [event.fields["percent"] for event in rollout.operation.events() if event.name.value == "rollout.step"]
    assert steps == [10, 50, 100]
    assert [(ring.percent, ring.devices, ring.ok) for ring in town.target.rings] == [
        (10, 2, 2),
        (50, 2, 2),
        (100, 2, 2),
    ]
    assert [line.entry.what for line in town.target.history] == ["promoted", "promoted"]
    assert town.target.history.verify() == 2
    assert town.target.stable == Revision.of(model(2).identity)


def test_a_ring_that_fails_halts_and_nobody_runs_the_bad_version(town, model):
    town.target.deploy(model(1), QUICK)
    rollout = town.target.rollout(model(BROKEN), QUICK)
    assert rollout.status == "paused"
    assert rollout.outcome.startswith("paused: ring failed: devices: 2 of 2 devices with a share of 10 % failed")
    assert "row 0 is 1.0, and 2.0 was expected" in rollout.outcome
    assert [result.verdict.value for result in rollout.gates] == ["fail"]
    assert town.target.shares == {revision_of(model(BROKEN)): 10, revision_of(model(1)): 90}
    assert town.served == {revision_of(model(1))}
    assert [(ring.ok, ring.failed) for ring in town.target.rings] == [(0, 2), (2, 0), (2, 0)]
    assert rollout.id in repr(town.target.status)
    assert "failed" in str(rollout)
    rollout.abort("bad")
    assert rollout.status == "cancelled"
    assert town.target.shares == {revision_of(model(1)): 100}
    assert town.served == {revision_of(model(1))}


def test_a_halted_rollout_looks_again_when_a_user_says_so(town, model):
    town.target.deploy(model(1), QUICK)
    rollout = town.target.rollout(model(BROKEN), QUICK)
    town.devices.behave(Behaviour(well=True))
    rollout.resume(wait=True)
    assert rollout.status == "succeeded"
    assert {device.revision for device in town.target.devices} == {revision_of(model(BROKEN))}


def test_a_rollback_ends_a_halted_rollout_for_the_whole_fleet(town, model):
    town.target.deploy(model(1), QUICK)
    rollout = town.target.rollout(model(BROKEN), QUICK)
    back = town.target.rollback(reason="self-tests failed")
    assert back.status == "succeeded"
    assert rollout.operation.record.phase.ended
    assert town.target.shares == {revision_of(model(1)): 100}
    assert {device.health for device in town.target.devices} == {DeviceHealth.OK}


def test_a_rollback_goes_to_the_version_before(town, model):
    town.target.deploy(model(1), QUICK)
    town.target.rollout(model(2), QUICK)
    assert town.target.plan_rollback().steps == ({revision_of(model(1)): 100},)
    town.target.rollback()
    assert {device.revision for device in town.target.devices} == {revision_of(model(1))}
    assert [line.entry.what for line in town.target.history] == ["promoted", "promoted", "rolled-back"]


def test_devices_that_are_off_are_not_waited_for_and_catch_up(town, model):
    town.target.deploy(model(1), QUICK)
    town.devices.behave(Behaviour(offline=frozenset({3, 5})))
    rollout = town.target.rollout(
        model(2), RolloutPolicy.rings((10, 50), soak=0, interval=0.02, patience=0.5), wait=False
    )
    with pytest.raises(OperationTimeout):
        # They were heard of a moment ago, so they can be reached as far as anybody knows.
        rollout.wait(0.3)
    town.devices.behave(Behaviour())
    rollout.wait(30)
    if rollout.status == "paused":
        rollout.resume(wait=True)
    assert {device.revision for device in town.target.devices} == {revision_of(model(2))}


# ---------------------------------------------------------------- plans


def test_a_plan_says_what_would_be_done_and_does_nothing(town, model):
    town.target.deploy(model(1), QUICK)
    before = town.published
    plan = town.target.plan(model(2), RolloutPolicy.rings((5, 50), min_devices=2))
    assert plan.ok
    assert [step.get(revision_of(model(2))) for step in plan.steps] == [8, 50, 100]
    assert any("raised to 8 % > 50 % > 100 %" in warning for warning in plan.warnings)
    hows = {part.what: part.how for part in plan.parts}
    assert hows["share of the devices"] is How.NATIVE
    assert hows["votes of the devices"] is How.OURS
    assert hows["golden outputs"] is How.NATIVE
    assert town.published == before


def test_a_plan_of_a_first_deployment_says_that_all_are_given_it(town, model):
    plan = town.target.plan(model(1))
    assert plan.ok
    assert plan.verb == "deploy"
    assert any("all of them are given the revision at once" in warning for warning in plan.warnings)


def test_gates_on_metrics_are_refused_before_anything_is_sent(town, model):
    town.target.deploy(model(1), QUICK)
    gated = RolloutPolicy.canary((10,), gates=["error_rate <= 1%"])
    assert not town.target.plan(model(2), gated).ok
    with pytest.raises(UnsupportedError, match=r"use RolloutPolicy\.rings"):
        town.target.rollout(model(2), gated)


def test_a_canary_of_devices_says_that_nobody_is_asked(town, model):
    town.target.deploy(model(1), QUICK)
    plan = town.target.plan(model(2), RolloutPolicy.canary((10,), soak=0))
    votes = next(part for part in plan.parts if part.what == "votes of the devices")
    assert votes.how is How.SKIPPED


def test_rings_are_refused_where_there_are_no_devices(model):
    session = MemoryBackend()
    endpoint = Endpoint.deploy(model(1), backend=session, golden=False)
    assert not endpoint.plan(model(2), QUICK, golden=False).ok
    with pytest.raises(UnsupportedError, match="no devices"):
        endpoint.rollout(model(2), QUICK, golden=False)


def test_a_model_with_pickled_code_is_refused_with_the_remedy(town, table):
    from modeldeploy import Model

    model = Model(lambda x: x, name="code", version="1.0.0", example=table.head())
    assert not town.target.plan(model).ok
    with pytest.raises(ConfigurationError, match="to_onnx"):
        town.target.deploy(model)


# ---------------------------------------------------------------- finding and wrong use


def test_a_fleet_is_found_by_its_name(town, model):
    backend = town.target._session
    with pytest.raises(NotFoundError, match="cameras"):
        EdgeTarget.get("cameras", backend=backend)
    town.target.deploy(model(1), QUICK)
    assert EdgeTarget.get("cameras", backend=backend).shares == town.target.shares
    assert [target.name for target in EdgeTarget.list(backend=backend)] == ["cameras"]


def test_a_rollout_is_found_by_its_id(town, model):
    town.target.deploy(model(1), QUICK)
    rollout = town.target.rollout(model(2), QUICK)
    assert Rollout.get(rollout.id, backend=town.target._session).status == "succeeded"


def test_a_cell_that_runs_again_finds_its_rollout(town, model):
    town.target.deploy(model(1), QUICK)
    slow = RolloutPolicy.rings((5, 50), soak=60, interval=0.02)
    rollout = town.target.rollout(model(2), slow, wait=False)
    assert town.target.rollout(model(2), slow, wait=False).id == rollout.id
    with pytest.raises(ConflictError, match="another policy"):
        town.target.rollout(model(2), QUICK, wait=False)
    rollout.abort()


def test_no_endpoint_can_be_made_of_a_fleet(town, model):
    with pytest.raises(UnsupportedError, match="ask the model server of the device"):
        Endpoint.deploy(model(1), backend=town.target._session)


def test_no_fleet_can_be_made_of_a_backend_without_devices():
    with pytest.raises(UnsupportedError):
        EdgeTarget.get("cameras", backend=MemoryBackend())


@pytest.mark.parametrize(
    "retired", [EdgeTarget.sagemaker_edge_manager, EdgeTarget.greengrass_v1], ids=["edge-manager", "greengrass-v1"]
)
def test_a_retired_service_is_refused_with_its_replacement(retired):
    with pytest.raises(BackendRetiredError) as caught:
        retired("cameras")
    assert caught.value.replacement == "EdgeTarget.greengrass(...)"
    assert "20" in caught.value.message


def test_a_store_that_is_not_there_is_told_at_once(tmp_path):
    with pytest.raises(ConfigurationError, match="mount the share"):
        EdgeTarget.fleet("cameras", store=tmp_path / "nowhere")


def test_without_a_store_this_machine_has_one(modeldeploy_home, model):
    target = EdgeTarget.fleet("cameras").deploy(model(1), RolloutPolicy.rings(soak=0))
    assert target.shares == {revision_of(model(1)): 100}
    assert EdgeTarget.get("cameras").shares == target.shares
    target.delete()


def test_the_command_of_an_agent_is_one_that_it_understands(town, tmp_path):
    command = town.target.agent("line-1", home=tmp_path / "device", poll=5)
    asked = _parser().parse_args(command[3:])
    assert (asked.device, asked.fleet, asked.poll) == ("line-1", "cameras", 5)
    assert asked.key[0].read_text().startswith("-----BEGIN PUBLIC KEY-----")
    assert asked.store == str(tmp_path / "store" / "cameras")
    assert DirectoryStore(tmp_path / "store" / "cameras").get(DESIRED) is None, "an agent would think it is lost"


# ---------------------------------------------------------------- the end


def test_a_deleted_fleet_is_gone_and_a_new_one_counts_on(town, model):
    town.target.deploy(model(1), QUICK)
    number = town.published.sequence
    assert "devices run it" in str(town.target.plan_delete())
    town.target.delete()
    with pytest.raises(NotFoundError):
        _ = town.target.state
    assert Within(town.store, "cameras").list("releases/") == []
    town.target.deploy(model(2), QUICK)
    assert town.published.sequence > number
    assert {device.revision for device in town.target.devices} == {revision_of(model(2))}


def test_the_verbs_can_be_awaited(town, model):
    async def story():
        target = await town.target.deploy(model(1), QUICK, wait=False)
        rollout = await target.aio.rollout(model(2), QUICK)
        back = await target.aio.rollback()
        gone = await target.aio.delete()
        return rollout.status, back.status, gone.status

    assert asyncio.run(story()) == ("succeeded", "succeeded", "succeeded")


def test_nothing_is_left_unfinished(town, model):
    town.target.deploy(model(1), QUICK)
    assert not Operation.unfinished(backend=town.target._session)


def test_it_shows_itself_in_a_notebook_and_in_a_log(town, model):
    assert "nothing is deployed" in repr(town.target)
    town.target.deploy(model(1), QUICK)
    rollout = town.target.rollout(model(BROKEN), QUICK)
    page = town.target._repr_html_() + town.target.devices._repr_html_() + rollout._repr_html_()
    for word in ("rings of cameras", "devices of cameras", "to 10 %", "offline"):
        assert word in page
    assert "cameras" in repr(town.target)
    assert "row 0 is 1.0" in repr(town.target.devices)
    assert "to 10 %" in repr(town.target.rings)
    rollout.abort()


def test_the_command_lists_fleets_as_it_lists_endpoints(modeldeploy_home, model, capsys):
    target = EdgeTarget.fleet("cameras").deploy(model(1), RolloutPolicy.rings(soak=0))
    assert command(["list", "--backend", "fleet"]) == 0
    assert repr(target) in capsys.readouterr().out
    target.delete()
