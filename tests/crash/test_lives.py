"""An endpoint of this machine and all that may befall it, in any order, with real processes: what always holds of it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from modeldeploy import Endpoint, Operation, RolloutPolicy
from modeldeploy.errors import ModelDeployError, OperationError, RolloutAborted
from modeldeploy.handles.rollout import Rollout
from modeldeploy.values.gate import Verdict

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="the local backend needs Unix sockets"),
    pytest.mark.usefixtures("at_home"),
    pytest.mark.slow,
    pytest.mark.timeout(1800),
]

ENOUGH_S = 60.0
GATED = RolloutPolicy.canary((10, 50), soak=0.1, interval=0.05, gates=["error_rate <= 50%"], min_sample=5)
policies = st.sampled_from(
    [
        RolloutPolicy.all_at_once(),
        RolloutPolicy.canary((10, 50), soak=0.05, interval=0.05),
        RolloutPolicy.canary((50,), soak=600),
        RolloutPolicy.linear(50, every=0.05),
        RolloutPolicy.blue_green(bake=0.05, interval=0.05),
        RolloutPolicy.shadow(50, soak=0.05, interval=0.05),
    ]
)
moments = st.tuples(
    st.sampled_from(["save", "advance", "emit", "start", "observe", ""]),
    st.integers(1, 14),
    st.sampled_from(["before", "after"]),
)


class Lives(RuleBasedStateMachine):
    """Rules are what users, drivers and the machine may do."""

    ground: ClassVar[Any] = None

    @initialize()
    def begin(self) -> None:
        self.steps: dict[str, float] = {}
        self.banned: set[str] = set()
        if Endpoint.list() == ():
            self.serve()
        self.banned.clear()

    # What users do

    def serve(self) -> None:
        self.ground.endpoint = Endpoint.deploy(self.ground.model(), self.ground.endpoint.name)

    @rule(policy=policies)
    def roll_out(self, policy: RolloutPolicy) -> None:
        with contextlib.suppress(ModelDeployError):
            self.ground.endpoint.rollout(self.ground.model(), policy, wait=False)

    @rule()
    def roll_out_a_broken_one(self) -> None:
        if not self.idle:
            return
        before = self.ground.live()
        with self.ground.busy():
            rollout = self.ground.endpoint.rollout(self.ground.model(broken=True), GATED, wait=False)
            with pytest.raises(RolloutAborted) as caught:
                rollout.wait(ENOUGH_S)
        assert caught.value.verdict in {Verdict.FAIL, Verdict.FAIL.value}
        self.banned.add(rollout.revision.id)
        assert self.ground.live() == before

    @rule(verb=st.sampled_from(["pause", "resume", "promote", "abort", "skip_step"]))
    def tell(self, verb: str) -> None:
        for operation in Operation.unfinished():
            with contextlib.suppress(ModelDeployError):
                getattr(Rollout.get(operation.id), verb)()

    @rule()
    def roll_back(self) -> None:
        with contextlib.suppress(ModelDeployError):
            self.ground.endpoint.rollback(timeout=ENOUGH_S)

    @rule()
    def delete_and_begin_anew(self) -> None:
        if not self.idle:
            return
        self.ground.endpoint.delete()
        assert self.ground.endpoint._session.backend.observe(self.ground.endpoint.name) is None
        self.serve()

    # What drivers and the machine do

    @rule(moment=moments)
    def lose_a_driver(self, moment: tuple[str, int, str]) -> None:
        if self.idle:
            self.ground.drive_until_killed(*moment)

    @rule()
    def take_up(self) -> None:
        for operation in Operation.unfinished():
            with contextlib.suppress(OperationError, RolloutAborted):
                operation.wait(0.5)

    @rule(which=st.sampled_from(["worker", "front", "supervisor"]))
    def kill(self, which: str) -> None:
        found = self.ground.endpoint._session.backend.processes()
        pids = [pid for each in found.get("workers", {}).values() for pid in each]
        pid = pids[0] if which == "worker" and pids else found.get(which)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # What always holds

    @property
    def idle(self) -> bool:
        """Whether nothing is under way; no precondition, since real processes need not be as quick each time that a life is told again."""
        return not Operation.unfinished()

    @invariant()
    def holds(self) -> None:
        endpoint = self.ground.endpoint
        state = endpoint._session.backend.observe(endpoint.name)
        assert state is not None
        assert sum(state.traffic.live.values()) == 100
        assert not self.banned & set(state.traffic.live), "what failed a gate takes traffic again"
        assert set(state.traffic.live) <= {each.revision.id for each in state.revisions}
        assert endpoint._session.journal.verify_history(backend="local", target=endpoint.name) == len(endpoint.history)

    def teardown(self) -> None:
        """Whatever happened, it comes to an end, leaves nothing over, and the endpoint answers as the version that it says."""
        for _try in range(3):
            for operation in Operation.unfinished():
                if operation.status == "paused":
                    operation.cancel()
                with contextlib.suppress(OperationError, RolloutAborted):
                    operation.wait(5)
                if not operation.done:
                    operation.cancel()
        assert self.idle
        answers = np.unique(np.asarray(self.ground.endpoint.predict(np.zeros(20), timeout=ENOUGH_S)))
        versions = {int(version.split(".")[1]) + 1 for version in self.ground.live()}
        assert {int(answer) for answer in answers} <= versions
        running, wanted = self.ground.workers()
        assert running == wanted, "a worker was left over, or one is missing"
        assert self.ground.litter() == []


def test_whatever_befalls_an_endpoint_nothing_is_lost_left_over_or_sent_out_again(ground):
    machine = type("Machine", (Lives,), {"ground": ground})
    options = settings(
        max_examples=25,
        stateful_step_count=12,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
        print_blob=False,
    )
    run_state_machine_as_test(machine, settings=options)
