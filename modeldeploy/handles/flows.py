"""Records to flows: what any process needs to go on with an operation that it finds in the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from modeldeploy.engine.effects import Flow
from modeldeploy.engine.record import Kind, Record
from modeldeploy.engine.single import SingleCursor, SingleFlow
from modeldeploy.spi import Backend, Rollable, Serving
from modeldeploy.values.codec import from_json
from modeldeploy.values.serving import Revision

if TYPE_CHECKING:
    from modeldeploy.engine.rollout import Check, RolloutCursor, StagedCheck


def of_record(record: Record, backend: Backend) -> Flow[Any]:
    """Make the flow that goes on where the record stands."""
    if record.kind is Kind.ROLLOUT:
        return _rollout(record, cast("Rollable", backend))
    if record.kind is Kind.ROLLBACK:
        return _rollback(record, cast("Rollable", backend))
    return SingleFlow(backend, from_json(SingleCursor, record.cursor)).run()


# Who scores a table waits for no engine of rollouts.


def _rollout(record: Record, backend: Rollable) -> Flow[Any]:
    from modeldeploy.engine.rollout import RolloutCursor, RolloutFlow

    cursor = from_json(RolloutCursor, record.cursor)
    return RolloutFlow(backend, cursor, golden_check(backend, cursor), staged_check(backend, cursor)).run()


def _rollback(record: Record, backend: Rollable) -> Flow[Any]:
    from modeldeploy.engine.rollback import RollbackCursor, RollbackFlow

    return RollbackFlow(backend, from_json(RollbackCursor, record.cursor)).run()


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
