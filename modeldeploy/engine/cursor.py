"""Where a rollout stands: all that it must remember, and the tables that follow from it."""

from __future__ import annotations

import enum

import attrs

from modeldeploy.engine.evidence import Evidence
from modeldeploy.values.gate import GateResult, Verdict
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.serving import WHOLE, EndpointSpec, EndpointState, Revision, Traffic
from modeldeploy.values.ticket import Ticket
from modeldeploy.values.tolerance import Tolerance


class Stage(enum.StrEnum):
    """Where a rollout stands."""

    PREPARE = "prepare"
    CHECK = "check"
    WALK = "walk"
    PROMOTE = "promote"
    PARK = "park"
    TIDY = "tidy"
    BACK = "back"
    CLEAN = "clean"


@attrs.frozen
class RolloutCursor:
    """All that a rollout must remember; written before each act."""

    endpoint: EndpointSpec
    revision: Revision
    policy: RolloutPolicy
    stage: Stage = Stage.PREPARE
    begun: bool = False
    """Whether ``baseline`` and ``existed`` were read; they must not be read again after the first write."""
    baseline: Traffic | None = None
    """The table to go back to; None when the endpoint is new."""
    existed: bool = False
    """Whether the revision was there before, and so must stay when the rollout fails."""
    drifted: bool = False
    """Whether it was held because somebody else changed the traffic; going on starts from that table."""
    step: int = 0
    since: float | None = None
    """When the table of this step was reached."""
    reached: int | None = None
    """The step whose table was reached last."""
    ticket: Ticket | None = None
    seen: int = 0
    """Number of the last command that was heeded."""
    paused: bool = False
    forced: bool = False
    """Whether a user promoted it: no gate is asked any more."""
    aborted: bool = False
    """Whether a user took it back."""
    evidence: Evidence = Evidence()  # noqa: RUF009 - frozen
    """What was counted so far; kept over the steps."""
    verdict: Verdict | None = None
    results: tuple[GateResult, ...] = ()
    reason: str = ""
    golden: bool = True
    """Whether the running revision must reproduce its golden outputs."""
    tolerance: Tolerance = Tolerance()  # noqa: RUF009 - frozen
    """How far its answers may be from them."""
    sticky: bool = False
    """Whether the backend's router itself keeps keys with their revision."""
    keep: int = 1
    """How many earlier revisions stay warm for an instant rollback."""
    asked: RolloutPolicy | None = None
    """The policy as it was asked for, where ``policy`` has larger steps so that each ring holds enough devices."""

    @property
    def stable(self) -> str | None:
        """The revision that had most of the traffic before."""
        live = self.baseline.live if self.baseline else {}
        return max(live, key=lambda revision: live[revision], default=None)

    @property
    def retreat(self) -> Stage:
        """Where it goes when it is taken back while it walks: to the table before, or to nothing when there was none."""
        return Stage.CLEAN if self.baseline is None else Stage.BACK

    @property
    def percent(self) -> int:
        """The share of the new revision in this step."""
        return self.policy.steps[min(self.step, len(self.policy.steps) - 1)]

    @property
    def shares(self) -> tuple[int, int]:
        """What the new revision and stable are exposed to in this step, in one unit: percent of the requests."""
        if self.percent == WHOLE or self.stable is None:
            return WHOLE, 0
        return self.percent or self.policy.copies, self.table(self.step).share(self.stable)

    def table(self, step: int) -> Traffic:
        """Work out the traffic of a step; a step of 0 percent sends copies."""
        percent, revision = self.policy.steps[step], self.revision.id
        table = (self.baseline or Traffic()).shift(revision, percent)
        copies = {revision: self.policy.copies} if not percent else {}
        return attrs.evolve(table, shadow=copies, key=self.policy.key if self.sticky else "")

    def first_step(self, share: int) -> int:
        """Find the first step that takes nothing away from a revision which has ``share`` percent already."""
        return next((step for step, percent in enumerate(self.policy.steps) if percent >= share), 0)

    def left(self, found: Traffic) -> bool:
        """Whether ``found`` is the table that this rollout left behind: an earlier one was set by somebody else."""
        baseline = self.baseline or Traffic()
        return found.same_as(baseline if self.reached is None else self.table(self.reached))

    def superfluous(self, state: EndpointState) -> list[str]:
        """Name the revisions without traffic that are not kept warm.

        The latest stable is the likeliest target of a rollback and goes last; of the others the oldest goes first.
        """
        idle = [each.revision.id for each in state.revisions if not state.traffic.share(each.revision.id)]
        idle.sort(key=lambda name: name == self.stable)
        return idle[: max(0, len(idle) - self.keep)]
