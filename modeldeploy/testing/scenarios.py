"""What the suite lets the engine do: every policy with every outcome of its gates, rollbacks, deletions.

Each scenario says how it must end and which tables it must go through. The gates allow half of all requests to fail, so that a handful of
answers decides: none failed, or all did.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs

from modeldeploy.engine.record import Kind, Verb
from modeldeploy.engine.rollback import RollbackCursor
from modeldeploy.engine.rollout import Check, RolloutCursor
from modeldeploy.engine.single import SingleCursor
from modeldeploy.errors import OperationFailed
from modeldeploy.testing.driving import Stage, Word
from modeldeploy.testing.harness import Harness
from modeldeploy.values.look import Look
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.serving import WHOLE, Revision, Traffic
from modeldeploy.values.ticket import Phase

STEPS = (10, 50)
COPIES = 50
KEY = "header:x-user"
_GATE = "error_rate <= 50%"
_SAMPLE = 5

Policy = Callable[[float], RolloutPolicy]
"""Makes a policy from the length of a beat in seconds."""


@attrs.frozen
class Scenario:
    """One thing that the engine is asked to do, and how it must end."""

    name: str
    begin: Callable[[Stage], object]
    phase: Phase
    walk: tuple[str, ...]
    """The tables that are reached, in order, by what they give to the new revision."""
    needs: frozenset[str] = frozenset()
    """What the backend must be able to do for it to end so."""
    words: tuple[Word, ...] = ()
    """What a user says, at each pause the next."""

    def missing(self, harness: Harness) -> list[str]:
        """Name what it needs and the harness does not have."""
        able = harness.backend.capabilities
        has = {
            "split": able.split > 1,
            "meters": able.meters,
            "shadow": able.shadow is not None and able.shadow.max_percent >= COPIES,
            "compares": able.compares,
            # Where the router keeps no keys, whoever asks names the revision of its key.
            "sticky": able.sticky or able.pinned_invoke,
            "pinned_invoke": able.pinned_invoke,
            "broken": harness.broken is not None,
        }
        return sorted(need for need in self.needs if not has[need])


# Gates that are functions of the user's: found by their names in every process.


def is_well(look: Look) -> bool:
    """Pass at any time."""
    return look.percent >= 0


def is_bad_at_half(look: Look) -> bool:
    """Fail when half of the traffic is reached."""
    return look.percent < STEPS[1]


def knows_nothing(look: Look) -> bool | None:
    """Never have enough evidence."""
    return None if look.percent < WHOLE else True


def breaks(look: Look) -> bool:
    """See nothing."""
    message = f"nobody can tell at {look.percent} %"
    raise LookupError(message)


# How they begin


def serve(stage: Stage, *revisions: Revision) -> None:
    """Make these revisions ready; the first takes all traffic."""
    for revision in revisions:
        stage.harness.succeed(stage.harness.backend.put_revision(stage.spec, revision))


def deploy(stage: Stage) -> None:
    """Put the first revision on a new endpoint."""
    stage.begin(Kind.ROLLOUT, RolloutCursor(stage.spec, stage.harness.revisions[0], RolloutPolicy.all_at_once()))


def rolling(
    policy: Policy,
    *,
    broken: bool = False,
    check: Check | None = None,
    also: Callable[[Stage], object] = lambda _stage: None,
) -> Callable[[Stage], None]:
    """Roll a revision out where the first serves; ``also`` arranges what happens meanwhile."""

    def begin(stage: Stage) -> None:
        harness = stage.harness
        serve(stage, harness.revisions[0])
        revision = harness.broken if broken else harness.revisions[1]
        assert revision is not None
        sticky = harness.backend.capabilities.sticky
        cursor = RolloutCursor(stage.spec, revision, policy(harness.beat), sticky=sticky)
        stage.begin(Kind.ROLLOUT, cursor, check=check)
        also(stage)

    return begin


def roll_back(stage: Stage) -> None:
    """Give everything back to the first revision, which is still warm."""
    first, second = stage.harness.revisions[:2]
    serve(stage, first, second)
    stage.harness.route(stage.spec, Traffic.all_to(second.id))
    stage.begin(Kind.ROLLBACK, RollbackCursor(stage.spec, first, "the suite says so"))


def roll_back_cold(stage: Stage) -> None:
    """Give everything back to a revision that is not there any more and must be made ready again."""
    first = stage.harness.revisions[0]
    roll_back(stage)
    stage.harness.succeed(stage.harness.backend.drop_revision(stage.spec.name, first.id))


def delete(stage: Stage) -> None:
    """Remove an endpoint with two revisions."""
    serve(stage, *stage.harness.revisions[:2])
    stage.begin(Kind.DELETE, SingleCursor(stage.harness.backend.drop_endpoint(stage.spec.name)))


# What happens meanwhile


def quiet(stage: Stage) -> None:
    """Let no request arrive."""
    stage.busy = False


def paused(stage: Stage) -> None:
    """Let a user say "pause" before it begins."""
    stage.operation.journal.tell(stage.operation.id, Verb.PAUSE, "wait for me")


def dark(beats: float) -> Callable[[Stage], None]:
    """Let nobody read the metrics for so many beats after the first look."""
    return lambda stage: setattr(stage.watched, "dark", (0.0, beats * stage.harness.beat))


def skewed(stage: Stage) -> None:
    """Let the provider give the new revision more than the table says."""
    stage.watched.skewed = stage.harness.revisions[1].id


def full(stage: Stage) -> None:
    """Let the provider have no room for another revision."""
    stage.watched.full = True


def refusing(stage: Stage) -> None:
    """Let the provider refuse the second step for good."""
    stage.watched.refused = (stage.harness.revisions[1].id, STEPS[1])


def repaired(stage: Stage) -> None:
    """Let the provider take every table again."""
    stage.watched.refused = None


def unlike(_revision: Revision) -> None:
    """Find that a revision does not reproduce its golden outputs."""
    message = "row 0 is 1.0, and 2.0 was expected"
    raise OperationFailed(message)


def scored(new: float, old: float, *, most: int = 200) -> Callable[[Stage], None]:
    """Let users report outcomes at every beat, fifty of each revision up to ``most``, around these means."""

    def report(stage: Stage) -> None:
        units = range(min(most, 50 * stage.beat))
        first, second = stage.harness.revisions[:2]
        for name, mean in ((first.id, old), (second.id, new)):
            rows = [(f"{name}-{unit}", name, mean + (0.1 if unit % 2 else -0.1)) for unit in units]
            stage.operation.journal.record_outcomes(stage.operation.id, rows)

    return lambda stage: setattr(stage, "happens", report)


def meddled(stage: Stage) -> None:
    """Let somebody else set a table beyond the second step while the first one lasts."""
    done: list[bool] = []
    first, second = (revision.id for revision in stage.harness.revisions[:2])

    def meddle(stage: Stage) -> None:
        state = stage.harness.backend.observe(stage.spec.name)
        if not done and state is not None and state.settled and state.traffic.share(second) == STEPS[0]:
            done.append(True)
            stage.harness.route(stage.spec, Traffic({first: 40, second: 60}))

    stage.happens = meddle


# The policies; all last a few beats


_BEATS = frozenset({"soak", "max_soak", "interval", "blind_limit", "until", "every", "bake"})


def _times(beat: float, options: dict[str, Any]) -> dict[str, Any]:
    """Turn what is given in beats into seconds; what every policy has."""
    options = {"interval": 1, "blind_limit": 20, "min_sample": _SAMPLE} | options
    return {name: value * beat if name in _BEATS else value for name, value in options.items()}


def canary(*gates: Any, steps: tuple[int, ...] = STEPS, **options: Any) -> Policy:
    """Walk through ten and fifty percent."""
    options = {"soak": 1, "max_soak": 20} | options
    return lambda beat: RolloutPolicy.canary(steps, gates=gates, **_times(beat, options))


def linear(beat: float) -> RolloutPolicy:
    """Walk in steps of forty percent."""
    return RolloutPolicy.linear(40, gates=[_GATE], **_times(beat, {"every": 1, "max_soak": 20}))


def blue_green(beat: float) -> RolloutPolicy:
    """Switch, and watch for ten beats: long enough for metrics that are kept in slots of several."""
    return RolloutPolicy.blue_green(gates=[_GATE], **_times(beat, {"bake": 10}))


def ab_test(on_inconclusive: str = "hold") -> Policy:
    """Split evenly until users' outcomes decide, four beats at most."""
    times = {"until": 4, "soak": 1}
    return lambda beat: RolloutPolicy.ab_test(50, key=KEY, on_inconclusive=on_inconclusive, **_times(beat, times))


def shadow(*gates: Any, then: tuple[int, ...] = ()) -> Policy:
    """Copy half of the requests, then perhaps go on as a canary."""
    times = {"soak": 1, "max_soak": 20}
    return lambda beat: RolloutPolicy.shadow(COPIES, gates=gates, then=then, **_times(beat, times))


# All of them

_SPLIT = frozenset({"split"})
_GATED = _SPLIT | {"meters"}
_BROKEN = _GATED | {"broken"}
_SHADOW = frozenset({"shadow", "meters"})
_AB = _GATED | {"sticky"}
_UP = ("10", "50", "100")
_BACK = ("10", "0")
_DONE, _FAILED = Phase.SUCCEEDED, Phase.FAILED

SCENARIOS: tuple[Scenario, ...] = (
    Scenario("deploy", deploy, _DONE, ("100",)),
    Scenario("all_at_once", rolling(lambda _beat: RolloutPolicy.all_at_once()), _DONE, ("100",)),
    Scenario("canary", rolling(canary()), _DONE, _UP, _SPLIT),
    Scenario("canary_passes", rolling(canary(_GATE)), _DONE, _UP, _GATED),
    Scenario("canary_fails", rolling(canary(_GATE), broken=True), _FAILED, _BACK, _BROKEN),
    Scenario("threshold_passes", rolling(canary(_GATE, analysis="threshold")), _DONE, _UP, _GATED),
    Scenario("threshold_fails", rolling(canary(_GATE, analysis="threshold"), broken=True), _FAILED, _BACK, _BROKEN),
    Scenario("linear", rolling(linear), _DONE, ("40", "80", "100"), _GATED),
    Scenario("linear_fails", rolling(linear, broken=True), _FAILED, ("40", "0"), _BROKEN),
    Scenario("blue_green_bakes", rolling(blue_green), _DONE, ("100",), frozenset({"meters"})),
    Scenario("blue_green_fails", rolling(blue_green, broken=True), _FAILED, ("100", "0"), frozenset({"meters", "broken"})),
    Scenario("sticky_canary", rolling(canary(_GATE, key=KEY)), _DONE, _UP, _AB),
    Scenario("ab_new_wins", rolling(ab_test(), also=scored(0.8, 0.2)), _DONE, ("50", "100"), _AB),
    Scenario("ab_stable_wins", rolling(ab_test(), also=scored(0.2, 0.8)), _FAILED, ("50", "0"), _AB),
    Scenario(
        "ab_undecided_holds",
        rolling(ab_test(), also=scored(0.5, 0.5)),
        _DONE,
        ("50", "100"),
        _AB,
        (Word(Verb.RESUME), Word(Verb.PROMOTE)),
    ),
    Scenario("ab_undecided_promotes", rolling(ab_test("promote"), also=scored(0.5, 0.5)), _DONE, ("50", "100"), _AB),
    Scenario("ab_undecided_goes_back", rolling(ab_test("rollback"), also=scored(0.5, 0.5)), _FAILED, ("50", "0"), _AB),
    Scenario("shadow_parks", rolling(shadow(_GATE)), _DONE, (f"copies {COPIES}", "0"), _SHADOW),
    Scenario("shadow_goes_on", rolling(shadow(_GATE, then=(10,))), _DONE, (f"copies {COPIES}", "10", "100"), _SHADOW | _SPLIT),
    Scenario("shadow_disagrees", rolling(shadow("disagreement <= 50%")), _FAILED, (f"copies {COPIES}", "0"), _SHADOW | {"compares"}),
    Scenario("shadow_errs", rolling(shadow(_GATE), broken=True), _FAILED, (f"copies {COPIES}", "0"), _SHADOW | {"broken"}),
    Scenario(
        "inconclusive_holds",
        rolling(canary(_GATE, max_soak=3), also=quiet),
        _DONE,
        ("10", "100"),
        _GATED,
        (Word(Verb.RESUME), Word(Verb.PROMOTE)),
    ),
    Scenario("inconclusive_promotes", rolling(canary(_GATE, max_soak=3, on_inconclusive="promote"), also=quiet), _DONE, _UP, _GATED),
    Scenario("inconclusive_goes_back", rolling(canary(_GATE, max_soak=3, on_inconclusive="rollback"), also=quiet), _FAILED, _BACK, _GATED),
    Scenario("blind_goes_back", rolling(canary(_GATE, blind_limit=3), also=dark(math.inf)), _FAILED, _BACK, _GATED),
    Scenario("blind_sees_again", rolling(canary(_GATE), also=dark(2)), _DONE, _UP, _GATED),
    Scenario("ratio_broken_holds", rolling(canary(_GATE), also=skewed), Phase.CANCELLED, _BACK, _GATED, (Word(Verb.ABORT),)),
    Scenario("ratio_broken_goes_back", rolling(canary(_GATE, on_inconclusive="rollback"), also=skewed), _FAILED, _BACK, _GATED),
    Scenario("function_passes", rolling(canary(is_well)), _DONE, _UP, _GATED),
    Scenario("function_fails", rolling(canary(is_bad_at_half)), _FAILED, ("10", "50", "0"), _GATED),
    Scenario("function_unsure", rolling(canary(knows_nothing, max_soak=2, on_inconclusive="promote")), _DONE, _UP, _GATED),
    Scenario("function_breaks", rolling(canary(breaks, blind_limit=2)), _FAILED, _BACK, _GATED),
    Scenario("paused", rolling(canary(), also=paused), _DONE, _UP, _SPLIT, (Word(Verb.RESUME),)),
    Scenario("meddled_with", rolling(canary(soak=2), also=meddled), _DONE, ("10", "60", "100"), _SPLIT, (Word(Verb.RESUME),)),
    Scenario("provider_refuses", rolling(canary(), also=refusing), _FAILED, _BACK, _SPLIT),
    Scenario(
        "provider_refuses_holds",
        rolling(canary(on_failure="hold"), also=refusing),
        _DONE,
        _UP,
        _SPLIT,
        (Word(Verb.RESUME), Word(Verb.RESUME, repaired)),
    ),
    Scenario("no_room", rolling(canary(), also=full), _FAILED, ()),
    Scenario("golden_differs", rolling(canary(), check=unlike), _FAILED, (), frozenset({"pinned_invoke"})),
    Scenario("roll_back", roll_back, _DONE, ("0",)),
    Scenario("roll_back_cold", roll_back_cold, _DONE, ("0",)),
    Scenario("delete", delete, _DONE, ()),
)  # fmt: skip
