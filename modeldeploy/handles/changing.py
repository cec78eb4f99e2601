"""How a change of an endpoint or of a fleet begins: held against the backend, journalled, and driven."""

from __future__ import annotations

import time
from typing import Any

import attrs

from modeldeploy.engine.record import Kind
from modeldeploy.handles import support
from modeldeploy.handles.coerce import begun
from modeldeploy.handles.operation import Operation
from modeldeploy.handles.rollout import Rollout
from modeldeploy.handles.snapshot import Snapshot
from modeldeploy.values.codec import to_json
from modeldeploy.values.events import Event, Level, Name
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.serving import Revision
from modeldeploy.values.tolerance import ToleranceLike


def roll_out(
    snapshot: Snapshot,
    revision: Revision,
    policy: RolloutPolicy | None,
    *,
    keep: int,
    golden: ToleranceLike,
    always: bool,
) -> Rollout | None:
    """Begin a rollout, or find the one that brings this very revision; None when there is nothing to do, unless ``always``."""
    session, cursor = snapshot.session, begun(snapshot, revision, policy, keep=keep, golden=golden)
    if snapshot.brings(revision) and snapshot.active is not None:
        snapshot.refuse_other_policy(policy)
        return Rollout(session, Operation(session, snapshot.active.id).start())
    if not always and snapshot.serves(revision):
        return None
    baseline = snapshot.state.traffic if snapshot.state else None
    support.refuse_unsupported(session.backend, attrs.evolve(cursor, baseline=baseline))
    session.expect(revision)
    # Starting writes nothing and checks everything: what is wrong is told here, not by an operation that failed.
    ticket = session.rollable.put_revision(cursor.endpoint, revision)
    record = session.begin(Kind.ROLLOUT, snapshot.name, to_json(attrs.evolve(cursor, ticket=ticket)))
    if baseline is not None and baseline.live:
        _warn_ungated(snapshot, cursor.policy, record.id)
    return Rollout(session, Operation(session, record.id).start())


def supersede(kind: Kind, snapshot: Snapshot, cursor: Any, reason: str) -> Operation:
    """Begin what ends whatever goes on."""
    active = snapshot.active.id if snapshot.active else None
    record = snapshot.session.begin(kind, snapshot.name, to_json(cursor), reason=reason, supersede=active)
    return Operation(snapshot.session, record.id).start()


def _warn_ungated(snapshot: Snapshot, policy: RolloutPolicy, operation: str) -> None:
    """Tell once when nothing watches this rollout."""
    from modeldeploy.handles import plan_warnings

    if not plan_warnings.ungated(policy):
        return
    fields = {"note": plan_warnings.UNGATED, "target": snapshot.name}
    snapshot.session.sinks(Event(Name.OPERATION_PROGRESS, time.time(), operation, Level.WARNING, fields))
