"""What a plan warns of, and what its gates can be expected to do at the present rate of requests."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from modeldeploy.engine.rollout import RolloutCursor
from modeldeploy.handles.snapshot import Snapshot
from modeldeploy.values.capability import Capabilities
from modeldeploy.values.edge import Device, DeviceHealth
from modeldeploy.values.forecast import Forecast, rough_duration
from modeldeploy.values.gate import Gate, Metric
from modeldeploy.values.model import Field, Signature
from modeldeploy.values.rollout import RolloutPolicy, Strategy
from modeldeploy.values.serving import WHOLE

UNGATED = "no gates: the new revision is promoted however it behaves"
_MEASURED_S = 300.0


def ungated(policy: RolloutPolicy) -> bool:
    """Whether a policy takes its time and nothing watches meanwhile."""
    if policy.asks_devices:
        return False
    return not policy.gates and (bool(policy.bake) or any(step < WHOLE for step in policy.steps))


def ends(snapshot: Snapshot) -> list[str]:
    """Warn that what goes on will be ended."""
    return [f"{snapshot.active.id} goes on and is ended by this"] if snapshot.active is not None else []


def of_rollout(snapshot: Snapshot, cursor: RolloutCursor) -> Iterable[str]:
    """Warn of what is allowed and may surprise."""
    policy, state = cursor.policy, snapshot.state
    if state is None or not state.traffic.live:
        if policy.asks_devices:
            yield "nothing is wanted of these devices yet: all of them are given the revision at once, and have a say then"
        elif policy.strategy is not Strategy.ALL_AT_ONCE:
            yield "nobody takes traffic yet: the revision takes all of it at once, without steps or gates"
    else:
        yield from _against_stable(snapshot, cursor)
    if ungated(policy):
        yield UNGATED if policy.promotes else "no gates: nothing looks at the answers of the shadow"
    if policy.gates:
        yield from _of_gates(snapshot.session.backend.capabilities, policy)


def of_rings(asked: RolloutPolicy, policy: RolloutPolicy, devices: Sequence[Device]) -> Iterable[str]:
    """Warn of rings that are larger than asked for, and of devices that have no say."""
    if policy.steps != asked.steps:
        steps = " > ".join(f"{step} %" for step in policy.steps)
        yield f"the steps are raised to {steps}, so that each ring holds {policy.min_devices} devices that can be reached"
    offline = sum(device.health is DeviceHealth.OFFLINE for device in devices)
    if not devices:
        yield "no device has reported yet: nobody has a say"
    elif offline:
        yield f"{offline} of {len(devices)} devices are offline: they have no say, and catch up when they are back"


def _against_stable(snapshot: Snapshot, cursor: RolloutCursor) -> Iterable[str]:
    state = snapshot.existing()
    found = state.revision(state.stable) if state.stable else None
    stable = found.revision.model if found else None
    model = cursor.revision.model
    if stable is not None and stable.digest == model.digest:
        yield f"{model} is what serves already; nothing would change"
    elif stable is not None:
        yield from _differences(stable.signature, model.signature)
    if cursor.policy.promotes and not cursor.keep:
        yield "keep=0: no earlier revision stays warm, so that going back takes as long as deploying it did"


def _of_gates(capabilities: Capabilities, policy: RolloutPolicy) -> Iterable[str]:
    slot = capabilities.meter_resolution
    if slot > policy.interval:
        late = f" and soak={policy.soak:g} ends before the first is whole" if policy.soak < slot else ""
        yield f"the backend keeps metrics in slots of {rough_duration(slot)}: gates see something new that often{late}"
    if capabilities.meters and not capabilities.meters_by_share:
        yield "the backend cannot tell calls that name their revision from others: the gates count them too"
    elif policy.key and not capabilities.sticky and capabilities.pinned_invoke:
        yield "requests that Endpoint.predict(key=) assigns name their revision: the gates do not count them"
    yield from (_homeless(gate) for gate in policy.gates if _is_homeless(gate))


def _is_homeless(gate: Gate) -> bool:
    return gate.metric is Metric.CUSTOM and (gate.function.startswith("__main__:") or "<" in gate.function)


def _homeless(gate: Gate) -> str:
    return f"gate '{gate}' is a function of this process: another one that takes the rollout up cannot ask it"


def _differences(old: Signature, new: Signature) -> list[str]:
    found = []
    for side, before, after in (("input", old.inputs, new.inputs), ("output", old.outputs, new.outputs)):
        was, becomes = {field.name: field for field in before}, {field.name: field for field in after}
        found += [f"{side} {name!r} is gone in the new model" for name in was if name not in becomes]
        found += [f"{side} {name!r} is new in the new model" for name in becomes if name not in was]
        changed = [name for name in was if name in becomes and was[name] != becomes[name]]
        found += [f"{side} {name!r} changes from {_type(was[name])} to {_type(becomes[name])}" for name in changed]
    return found


def _type(field: Field) -> str:
    """Write a field's type, with its shape and whether it may be missing where that says something."""
    shape = f" of {field.shape}" if field.shape else ""
    return f"{field.dtype.value}{shape}{' or nothing' if field.nullable else ''}"


def late(forecast: Forecast | None) -> list[str]:
    """Give the warnings of a forecast with the rate that they hold for."""
    if forecast is None:
        return []
    rate = f"at {forecast.rps:.3g} requests/s, as in the last {rough_duration(_MEASURED_S)}"
    return [f"{rate}: {warning}" for warning in forecast.warnings]


def forecast(snapshot: Snapshot, policy: RolloutPolicy) -> Forecast | None:
    """Foresee the gates at the rate of the last five minutes; None without gates, metrics or requests."""
    capabilities, state = snapshot.session.backend.capabilities, snapshot.state
    if not (policy.gates and capabilities.meters and state is not None and state.traffic.live):
        return None
    slot = capabilities.meter_resolution
    until = time.time() if not slot else time.time() // slot * slot
    windows = [
        snapshot.session.meters.window(snapshot.name, each.revision.id, until - _MEASURED_S, until)
        for each in state.revisions
    ]
    requests, errors = sum(window.requests for window in windows), sum(window.errors for window in windows)
    if not requests:
        return None
    return policy.forecast(rps=requests / _MEASURED_S, base_rate=min(errors / requests, 0.999))
