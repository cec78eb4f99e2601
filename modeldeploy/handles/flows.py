"""Records to flows: what any process needs to go on with an operation that it finds in the journal."""

from __future__ import annotations

from typing import Any, cast

from modeldeploy.engine.effects import Flow
from modeldeploy.engine.record import Kind, Record
from modeldeploy.engine.rollback import RollbackCursor, RollbackFlow
from modeldeploy.engine.rollout import Check, RolloutCursor, RolloutFlow, StagedCheck
from modeldeploy.engine.single import SingleCursor, SingleFlow
from modeldeploy.spi import Backend, Rollable, Serving
from modeldeploy.values.codec import from_json
from modeldeploy.values.serving import Revision


def of_record(record: Record, backend: Backend) -> Flow[Any]:
    """Make the flow that goes on where the record stands."""
    if record.kind is Kind.ROLLOUT:
        cursor = from_json(RolloutCursor, record.cursor)
        rollable = cast("Rollable", backend)
        return RolloutFlow(rollable, cursor, golden_check(rollable, cursor), staged_check(rollable, cursor)).run()
    if record.kind is Kind.ROLLBACK:
        return RollbackFlow(cast("Rollable", backend), from_json(RollbackCursor, record.cursor)).run()
    return SingleFlow(backend, from_json(SingleCursor, record.cursor)).run()


def golden_check(backend: Rollable, cursor: RolloutCursor) -> Check | None:
    """Make the check that holds a running revision against its golden outputs; None where it was declined, or each device makes it."""
    if not cursor.golden or not backend.capabilities.serving:
        return None
    pinned = backend.capabilities.pinned_invoke

    def check(revision: Revision) -> None:
        from modeldeploy.handles import golden

        golden.check(
            cast("Serving", backend), cursor.endpoint.name, revision, pinned=pinned, tolerance=cursor.tolerance
        )

    return check


def staged_check(backend: Rollable, cursor: RolloutCursor) -> StagedCheck:
    """Make the same check for an endpoint that the revision has alone."""

    def check(revision: Revision, endpoint: str) -> None:
        from modeldeploy.handles import golden

        golden.check(cast("Serving", backend), endpoint, revision, pinned=False, tolerance=cursor.tolerance)

    return check
