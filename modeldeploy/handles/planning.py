"""Making plans: the same looks and refusals as the change itself, and nothing that writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from modeldeploy.engine.rollout import RolloutCursor
from modeldeploy.engine.rollout_golden import staging_name
from modeldeploy.errors import ModelDeployError
from modeldeploy.handles import plan_warnings, support
from modeldeploy.handles.parts import How, Part
from modeldeploy.handles.plans import Call, Diff, Plan
from modeldeploy.handles.snapshot import Snapshot
from modeldeploy.values.edge import raised
from modeldeploy.values.forecast import rough_duration
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.serving import WHOLE, EndpointSpec, EndpointState, Revision, RevisionState, Traffic

if TYPE_CHECKING:
    from modeldeploy.packaging.golden import Golden

_GOLDEN = "golden outputs"
_STAGED = "through a short-lived endpoint of its own, a second deployment that is paid for while it is there"
# For an endpoint, and for a fleet of devices.
_SWITCH = ("all traffic at once", "all devices at once; each that is offline when it is back")
_GONE = (
    "it takes traffic: its callers find nobody any more, and nothing brings it back but deploying again",
    "devices run it: they keep what they have, and nothing changes it but deploying again",
)


def of_rollout(verb: str, snapshot: Snapshot, begun: RolloutCursor) -> Plan:
    """Plan a rollout (or deployment) whose cursor is ``begun``; reads the endpoint, its metrics and the model's bundle."""
    revision, state = begun.revision, snapshot.state
    cursor, devices = _ringed(snapshot, attrs.evolve(begun, baseline=state.traffic if state else None))
    if snapshot.brings(revision) or (verb == "deploy" and snapshot.serves(revision)):
        return _nothing(verb, snapshot, cursor)
    golden = _golden(snapshot, cursor)
    staged = state is not None and not snapshot.session.backend.capabilities.pinned_invoke
    calls, diff = _acts(cursor, state, asked=golden.how is How.OURS, staged=staged)
    refused, note = _startable(snapshot, revision)
    forecast = plan_warnings.forecast(snapshot, cursor.policy)
    return Plan(
        verb=verb,
        endpoint=snapshot.name,
        backend=snapshot.session.backend.name,
        subject=str(revision.model),
        policy=cursor.policy,
        calls=tuple(calls),
        diff=diff,
        parts=(*refused, *support.parts(snapshot.session.backend, cursor), golden),
        warnings=(*plan_warnings.of_rollout(snapshot, cursor), *devices, *note, *plan_warnings.late(forecast)),
        forecast=forecast,
    )


def _ringed(snapshot: Snapshot, cursor: RolloutCursor) -> tuple[RolloutCursor, list[str]]:
    """Raise the steps as the rollout would, by the devices as they are now; with what there is to say of that."""
    policy, session = cursor.policy, snapshot.session
    if not (policy.asks_devices and session.backend.capabilities.edge and snapshot.state):
        return cursor, []
    devices = session.edge.devices(snapshot.name)
    larger = attrs.evolve(policy, steps=raised(policy.steps, devices, policy.min_devices))
    return attrs.evolve(cursor, policy=larger), list(plan_warnings.of_rings(policy, larger, devices))


def of_rollback(snapshot: Snapshot, revision: Revision) -> Plan:
    """Plan a rollback to a revision."""
    state = snapshot.existing()
    known = state.revision(revision.id)
    warm = known is not None and known.ready
    table = Traffic.all_to(revision.id)
    calls = [] if warm else [Call("put_revision", revision.id)]
    if not state.traffic.same_as(table):
        calls.append(Call("set_traffic", snapshot.name, table))
    warnings = plan_warnings.ends(snapshot)
    if not warm:
        warnings.append(f"{revision.id} is not warm: it is made ready first, which takes as long as deploying it did")
    if not calls:
        warnings.append(f"{revision.id} takes all traffic already; nothing would change")
    refused = [] if warm else _startable(snapshot, revision, active=False)[0]
    return Plan(
        verb="rollback",
        endpoint=snapshot.name,
        backend=snapshot.session.backend.name,
        subject=str(revision.model),
        calls=tuple(calls),
        diff=_diff(state, _with(state, revision), table),
        parts=(*refused, Part("switch", How.NATIVE, _SWITCH[snapshot.session.backend.capabilities.edge])),
        warnings=tuple(warnings),
    )


def of_delete(snapshot: Snapshot) -> Plan:
    """Plan the end of an endpoint; one that is gone already is no work."""
    state = snapshot.state
    names = tuple(each.revision.id for each in state.revisions) if state else ()
    warnings = plan_warnings.ends(snapshot)
    if state is None:
        warnings.append(f"there is no endpoint {snapshot.name!r}; nothing would change")
    elif state.traffic.live:
        warnings.append(_GONE[snapshot.session.backend.capabilities.edge])
    return Plan(
        verb="delete",
        endpoint=snapshot.name,
        backend=snapshot.session.backend.name,
        subject=", ".join(names) or "nothing",
        calls=(Call("drop_endpoint", snapshot.name),) if state else (),
        diff=Diff(state.traffic if state else Traffic(), Traffic(), dropped=names),
        parts=(Part("removal", How.NATIVE, "what was asked before is answered first"),) if state else (),
        warnings=tuple(warnings),
    )


# What is called, and what is there in the end


def _acts(cursor: RolloutCursor, state: EndpointState | None, *, asked: bool, staged: bool) -> tuple[list[Call], Diff]:
    """List what a rollout calls while everything goes well, and what is there afterwards."""
    revision = cursor.revision
    there = state is not None and state.revision(revision.id) is not None
    calls = [Call("put_revision", revision.id, note="it is there already" if there else "")]
    if asked:
        calls += _asking(cursor) if staged else [Call(_GOLDEN, revision.id)]
    if state is None:
        return calls, _diff(None, (RevisionState(revision, ready=True),), Traffic.all_to(revision.id))
    if state.traffic.share(revision.id) == WHOLE:
        return calls, Diff(state.traffic, state.traffic)
    before = state.traffic
    for table in support.tables(cursor):
        if not before.same_as(table):
            calls.append(Call("set_traffic", state.name, table, _pace(cursor.policy, table, revision.id)))
        before = table
    after = attrs.evolve(state, revisions=_with(state, revision), traffic=before)
    dropped = cursor.superfluous(after) if cursor.policy.promotes else []
    calls += [Call("drop_revision", name) for name in dropped]
    left = tuple(each for each in after.revisions if each.revision.id not in dropped)
    return calls, _diff(state, left, before)


def _asking(cursor: RolloutCursor) -> list[Call]:
    """List what is called to ask a revision on an endpoint of its own."""
    name, revision = staging_name(cursor.endpoint.name, cursor.revision.id), cursor.revision.id
    there = f"to the staging endpoint {name!r}"
    return [Call("put_revision", revision, note=there), Call(_GOLDEN, revision), Call("drop_endpoint", name)]


def _pace(policy: RolloutPolicy, table: Traffic, name: str) -> str:
    """Say how long a table lasts, and what ends it."""
    share = table.share(name)
    span = policy.soak if share < WHOLE else policy.bake
    if not (share or table.copies):
        return "the copies end"
    if policy.asks_devices:
        return f"until its devices are well for {rough_duration(span)}" if span else "until its devices are well"
    gates = "until the gates pass" if share < WHOLE else "while the gates watch"
    words = [f"for {rough_duration(span)}"] if span else []
    return " and ".join([*words, *([gates] if policy.gates and (share < WHOLE or span) else [])])


def _with(state: EndpointState, revision: Revision) -> tuple[RevisionState, ...]:
    return state.revisions if state.revision(revision.id) else (*state.revisions, RevisionState(revision, ready=True))


def _diff(before: EndpointState | None, after: tuple[RevisionState, ...], traffic: Traffic) -> Diff:
    was = [each.revision.id for each in before.revisions] if before else []
    becomes = [each.revision.id for each in after]
    return Diff(
        before=before.traffic if before else Traffic(),
        after=traffic,
        added=tuple(name for name in becomes if name not in was),
        dropped=tuple(name for name in was if name not in becomes),
    )


def _nothing(verb: str, snapshot: Snapshot, cursor: RolloutCursor) -> Plan:
    traffic = cursor.baseline or Traffic()
    doing = (
        f"{snapshot.active.id} does it already"
        if snapshot.active
        else f"{cursor.revision.model} is what serves already"
    )
    return Plan(
        verb=verb,
        endpoint=snapshot.name,
        backend=snapshot.session.backend.name,
        subject=str(cursor.revision.model),
        policy=cursor.policy,
        calls=(),
        diff=Diff(traffic, traffic),
        warnings=(f"{doing}; nothing would change",),
    )


# Who does it, and what is refused


def _startable(snapshot: Snapshot, revision: Revision, *, active: bool = True) -> tuple[list[Part], list[str]]:
    """Ask for the revision, which checks everything and writes nothing; gives what is refused and what the backend remarks."""
    found = []
    if snapshot.active is not None and active:
        why = f"{snapshot.active.id} on endpoint {snapshot.name!r} is not finished"
        found.append(Part("start", How.REFUSED, why, "wait for it, or end it by abort() or rollback()"))
    notes: list[str] = []
    spec = EndpointSpec(snapshot.name, snapshot.options)
    error = _refusal(lambda: notes.append(snapshot.session.rollable.put_revision(spec, revision).note))
    if error is not None:
        found.append(Part("revision", How.REFUSED, error.message, error.hint or ""))
    return found, [note for note in notes if note]


def _golden(snapshot: Snapshot, cursor: RolloutCursor) -> Part:
    """Say whether the running revision is held against its golden outputs."""
    if snapshot.session.backend.capabilities.edge:
        proof = "each device must reproduce them before it runs the revision"
        return support.self_test(snapshot.session.backend.capabilities, _GOLDEN, proof)
    if not cursor.golden:
        return Part(_GOLDEN, How.SKIPPED, "you said golden=False")
    capabilities = snapshot.session.backend.capabilities
    if snapshot.state is not None and not capabilities.pinned_invoke:
        if capabilities.staging:
            return _examples(cursor, _STAGED)
        why = "a call cannot name its revision here, and others answer beside it"
        return Part(_GOLDEN, How.SKIPPED, why, "let the gates watch it, from a small share on")
    return _examples(cursor)


def _examples(cursor: RolloutCursor, where: str = "through the endpoint, before it takes traffic") -> Part:
    from modeldeploy.handles.golden import WITHOUT, examples

    found: list[Golden] = []
    error = _refusal(lambda: found.append(examples(cursor.revision.model)))
    if error is not None:
        return Part(_GOLDEN, How.REFUSED, error.message, error.hint or "")
    if not found[0].rows:
        return Part(_GOLDEN, How.REFUSED, "the model was packaged without any", WITHOUT)
    return Part(_GOLDEN, How.OURS, f"{found[0].rows} rows {where}")


def _refusal(act: Callable[[], object]) -> ModelDeployError | None:
    """Give the error for which something would be refused; what may pass by itself is raised, for then nothing is known."""
    try:
        act()
    except ModelDeployError as error:
        if error.transient:
            raise
        return error
    return None
