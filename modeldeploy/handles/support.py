"""Who does each part of a policy on a backend, and what is refused there: told by a plan, enforced before a rollout begins."""

from __future__ import annotations

from collections.abc import Iterable

from modeldeploy.engine.rollout import RolloutCursor
from modeldeploy.errors import ConfigurationError, UnsupportedError
from modeldeploy.handles.parts import How, Part
from modeldeploy.spi import Backend
from modeldeploy.values.capability import Capabilities
from modeldeploy.values.gate import Metric
from modeldeploy.values.rollout import RolloutPolicy, Strategy
from modeldeploy.values.serving import WHOLE, Traffic

_FIRST = "the first revision takes all traffic at once"
_FIRST_OF_ALL = "the first revision is given to all devices at once"
_NO_SPLIT = "use RolloutPolicy.all_at_once() or blue_green(bake=...)"
_NO_SHADOW = "use RolloutPolicy.canary(...), or ask the new revision yourself: predict(..., revision=)"
_NO_KEY = "leave key= out, or call through a router of your own that sends each key to one revision"
_NO_RINGS = "use RolloutPolicy.canary(...) for an endpoint"
_NO_METERS = "leave gates= out and watch by yourself: rollout(wait=False), then promote() or abort()"

_NO_COMPARISON = "gate the copies on error_rate or latency, or compare the answers yourself: predict(..., revision=)"


def refuse_unsupported(backend: Backend, cursor: RolloutCursor) -> None:
    """Hold a whole policy against the backend before its first step; UnsupportedError gives the reason and the alternative.

    ``cursor`` has its baseline: every table of every step is looked at, copies and keys included. ConfigurationError where the policy
    itself cannot work.
    """
    for part in parts(backend, cursor):
        if part.how is not How.REFUSED:
            continue
        message = (
            f"backend {backend.name!r} cannot do a {cursor.policy.strategy.value} rollout: {part.what}: {part.why}"
        )
        if not part.capability:
            raise ConfigurationError(message, hint=part.instead)
        context = {"backend": backend.name}
        raise UnsupportedError(message, capability=part.capability, hint=part.instead, context=context)


def tables(cursor: RolloutCursor) -> list[Traffic]:
    """Give the tables that a rollout sets, in order, from the first step that takes nothing away from the new revision."""
    baseline, steps = cursor.baseline, cursor.policy.steps
    if baseline is None or baseline.share(cursor.revision.id) == WHOLE:
        # A new endpoint gives everything to its first revision by itself.
        return []
    if not baseline.live:
        return [Traffic.all_to(cursor.revision.id)]
    walked = [cursor.table(step) for step in range(cursor.first_step(baseline.share(cursor.revision.id)), len(steps))]
    return walked if cursor.policy.promotes else [*walked, baseline]


def parts(backend: Backend, cursor: RolloutCursor) -> list[Part]:
    """Say who does what; what is refused stands among it."""
    policy, capabilities = cursor.policy, backend.capabilities
    if policy.asks_devices and not capabilities.edge:
        return [Part("rings of devices", How.REFUSED, "it has no devices that could be asked", _NO_RINGS, "edge")]
    found = [_split(backend, cursor)] if _shares(policy) else []
    if policy.copies:
        found.append(_copies(backend, cursor))
    if policy.key or policy.strategy is Strategy.AB_TEST:
        found.append(_key(capabilities, policy))
    found.append(Part("steps and soak", How.OURS, "a process must drive them; if it ends, traffic stays as it is"))
    if policy.gates:
        found.append(_gates(capabilities, policy))
    if capabilities.edge:
        found += _devices(capabilities, policy)
    elif _shares(policy):
        found.append(_failures(capabilities))
    return found


def _devices(capabilities: Capabilities, policy: RolloutPolicy) -> list[Part]:
    """Say what devices do by themselves, and whether they are asked."""
    votes = Part("votes of the devices", How.SKIPPED, "only RolloutPolicy.rings(...) asks them")
    if policy.asks_devices:
        said = f"{policy.min_devices} must answer in each ring, and {policy.max_failed} may fail"
        votes = Part("votes of the devices", How.OURS, said)
    return [votes, self_test(capabilities, "failed self-tests", "the device goes on with what it had, by itself")]


def self_test(capabilities: Capabilities, what: str, native: str) -> Part:
    """Say that a device proves a revision before it gives the one before up; or why it cannot."""
    why = capabilities.why_not.get("self_test")
    return Part(what, How.NATIVE, native) if why is None else Part(what, How.SKIPPED, why)


def _shares(policy: RolloutPolicy) -> bool:
    return any(0 < percent < WHOLE for percent in policy.steps)


def _split(backend: Backend, cursor: RolloutCursor) -> Part:
    if cursor.baseline is None:
        edge = backend.capabilities.edge
        return Part("share of the devices" if edge else "traffic split", How.SKIPPED, _FIRST_OF_ALL if edge else _FIRST)
    split = [table for table in tables(cursor) if len(table.live) > 1]
    reason = _refusal(backend, [Traffic(weights=table.weights) for table in split])
    if reason is None and backend.capabilities.edge:
        return Part("share of the devices", How.NATIVE, "by the place of each in its fleet, which never changes")
    if reason is None:
        return Part("traffic split", How.NATIVE)
    return Part("traffic split", How.REFUSED, reason, _NO_SPLIT, "split")


def _copies(backend: Backend, cursor: RolloutCursor) -> Part:
    baseline = cursor.baseline
    if baseline is None:
        return Part("shadow copies", How.SKIPPED, _FIRST)
    if not baseline.live and not cursor.policy.promotes:
        why = "no revision takes traffic that could be copied"
        return Part("shadow copies", How.REFUSED, why, "roll the model out without shadow")
    copying = [_unkeyed(table) for table in tables(cursor) if table.copies]
    reason = _refusal(backend, copying)
    if reason is None:
        return Part("shadow copies", How.NATIVE, "the caller's answer is stable's")
    return Part("shadow copies", How.REFUSED, reason, _NO_SHADOW, "shadow")


def _unkeyed(table: Traffic) -> Traffic:
    """Give the table without its key, which is a part of its own."""
    return Traffic(weights=table.weights, shadow=table.shadow)


def _refusal(backend: Backend, wanted: Iterable[Traffic]) -> str | None:
    """Ask the capabilities about every table; the reason of the first refusal."""
    try:
        for table in wanted:
            backend.capabilities.check_traffic(table, backend=backend.name)
    except UnsupportedError as error:
        return error.message.partition(": ")[2] or error.message
    return None


def _key(capabilities: Capabilities, policy: RolloutPolicy) -> Part:
    what = "sticky assignment"
    if not policy.key:
        return Part(what, How.REFUSED, "an A/B test needs to know who asks", "name a key: key='header:x-user-id'")
    if capabilities.sticky:
        return Part(what, How.NATIVE, f"by {policy.key}")
    if capabilities.pinned_invoke:
        return Part(what, How.OURS, "in Endpoint.predict(key=...) only; other callers are assigned anew each time")
    why = capabilities.why_not.get("sticky", "neither its router keeps keys nor can a call name its revision")
    return Part(what, How.REFUSED, why, _NO_KEY, "sticky")


def _gates(capabilities: Capabilities, policy: RolloutPolicy) -> Part:
    if not capabilities.meters:
        why = capabilities.why_not.get("meters", "it does not measure its revisions")
        return Part("gates", How.REFUSED, why, _NO_METERS, "meters")
    if not (policy.bake or any(percent < WHOLE for percent in policy.steps)):
        why = f"policy {policy.strategy.value} has gates and no time in which they could look"
        return Part("gates", How.REFUSED, why, "use canary, linear, or blue_green(bake=...)")
    if not capabilities.compares and any(gate.metric is Metric.DISAGREEMENT for gate in policy.gates):
        why = capabilities.why_not.get("compares", "it does not hold the answers of copies against the callers'")
        return Part("gates", How.REFUSED, why, _NO_COMPARISON, "compares")
    return Part("gates", How.OURS, "on the backend's metrics")


def _failures(capabilities: Capabilities) -> Part:
    if capabilities.safe_canary:
        return Part("failed canary answers", How.NATIVE, "answered again by stable, and counted against the canary")
    return Part("failed canary answers", How.SKIPPED, "they reach the caller")
