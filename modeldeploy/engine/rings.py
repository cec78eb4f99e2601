"""What the devices of a fleet say of a new revision: the vote that decides whether the next ring gets it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from modeldeploy.engine.cursor import RolloutCursor
from modeldeploy.engine.effects import Flow, attempt, call
from modeldeploy.engine.looking import BlindError
from modeldeploy.errors import FencedError, ModelDeployError, OperationFailed
from modeldeploy.spi import Edge, Rollable
from modeldeploy.values.edge import Device, DeviceHealth, Ring
from modeldeploy.values.gate import GateResult, Verdict
from modeldeploy.values.rollout import RolloutPolicy

GATE = "devices"
_NAMED = 3
"""How many of the devices that failed are named with what they say."""
_NOTE = 200
"""How much of what one says is told; all of it is there with the device."""


def fleet(backend: Rollable, name: str) -> Flow[Sequence[Device]]:
    """Read the devices, however long that takes."""
    edge = _edge(backend)
    return (yield from call("read devices", lambda: edge.devices(name)))


def ask(backend: Rollable, cursor: RolloutCursor) -> Flow[GateResult]:
    """Look at the devices once; BlindError when they cannot be read."""
    edge, name = _edge(backend), cursor.endpoint.name
    try:
        devices = yield from attempt("read devices", lambda: edge.devices(name))
    except FencedError:
        raise
    except ModelDeployError as error:
        raise BlindError(str(error)) from error
    return judge(devices, cursor.revision.id, cursor.policy, cursor.percent)


def judge(devices: Sequence[Device], revision: str, policy: RolloutPolicy, percent: int) -> GateResult:
    """Count the devices that want the revision: too many failed is a failure; enough answers, and none outstanding, let it pass.

    A fleet that has fewer devices than ``min_devices`` needs all of them to answer.
    """
    concerned = [device for device in devices if device.wanted == revision]
    ring = Ring.of(percent, concerned)
    needed = min(policy.min_devices, len(devices))
    if ring.failed > policy.max_failed:
        verdict, reason = Verdict.FAIL, _failures(ring, concerned)
    elif ring.pending or ring.answered < needed:
        verdict, reason = Verdict.INCONCLUSIVE, _outstanding(ring, needed)
    else:
        verdict, reason = Verdict.PASS, f"{ring.ok} of {_devices(ring.devices)} run it and are well{_aside(ring)}"
    rate = ring.failed / ring.answered if ring.answered else None
    return GateResult(GATE, verdict, rate, None, ring.answered, reason, bad=ring.failed)


def _failures(ring: Ring, devices: Iterable[Device]) -> str:
    failed = [device for device in devices if device.health is DeviceHealth.FAILED]
    said = [f"{device.id}: {_short(device.note)}" if device.note else device.id for device in failed[:_NAMED]]
    more = [f"and {len(failed) - _NAMED} more"] if len(failed) > _NAMED else []
    whole = f"{ring.failed} of {_devices(ring.devices)} with a share of {ring.percent} % failed"
    return f"{whole} ({'; '.join([*said, *more])})"


def _short(note: str) -> str:
    return note if len(note) <= _NOTE else f"{note[:_NOTE].rstrip()}..."


def _outstanding(ring: Ring, needed: int) -> str:
    waits = f"{ring.answered} of {_devices(ring.devices)} answered, {ring.pending} can be reached and did not yet"
    return f"{waits}, {ring.offline} offline; at least {needed} must answer"


def _aside(ring: Ring) -> str:
    said = [f"{count} {word}" for count, word in ((ring.failed, "failed"), (ring.offline, "offline")) if count]
    return f", {' and '.join(said)}" if said else ""


def _devices(count: int) -> str:
    return f"{count} device" if count == 1 else f"{count} devices"


def _edge(backend: Rollable) -> Edge:
    if not backend.capabilities.edge:
        message = f"backend {backend.name!r} has no devices that could be asked"
        raise OperationFailed(message, hint="use RolloutPolicy.canary(...) for an endpoint")
    return cast("Edge", backend)
