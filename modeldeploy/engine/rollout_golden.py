"""How a new revision is held against its golden outputs: on its endpoint where it can be asked alone there, else on one of its own.

Where a call cannot name who answers it, a revision that shares an endpoint cannot be asked. A backend that declares ``staging`` then gets it twice for a
while: on the endpoint, without traffic, and on a short-lived one, which answers by it alone. Each act is found done when it is repeated, so
whoever takes the rollout over leaves no staging endpoint behind.
"""

from __future__ import annotations

from collections.abc import Callable

from modeldeploy.engine.cursor import RolloutCursor
from modeldeploy.engine.effects import Emit, Flow, call
from modeldeploy.engine.rollout_walk import RolloutWalk
from modeldeploy.errors import FencedError, ModelDeployError
from modeldeploy.spi import Rollable
from modeldeploy.values.events import Level, Name
from modeldeploy.values.names import short_hash
from modeldeploy.values.serving import EndpointSpec, Revision
from modeldeploy.values.ticket import Action

Check = Callable[[Revision], None]
"""Holds the running revision against its golden outputs; raises when it does not reproduce them."""
StagedCheck = Callable[[Revision, str], None]
"""Holds a revision against them on the endpoint of this name, which it has alone."""
_KEPT = 17
"""Characters of the endpoint's name that its staging endpoint keeps; a name has 32."""


def staging_name(endpoint: str, revision: str) -> str:
    """Name the staging endpoint of a revision: the same whoever asks.

    >>> staging_name("recommendations-of-the-day", "v1-0-0-aaaa0000")
    'recommendations-o-try-21b6d653'
    """
    return f"{endpoint[:_KEPT].rstrip('-')}-try-{short_hash(endpoint, revision)}"


class RolloutGolden(RolloutWalk):
    """The part of a rollout that asks for golden outputs."""

    def __init__(
        self, backend: Rollable, cursor: RolloutCursor, check: Check | None, on_staging: StagedCheck | None = None
    ) -> None:
        super().__init__(backend, cursor)
        self._check = check
        self._on_staging = on_staging

    def _ask_golden(self) -> Flow[bool]:
        """Hold the revision against its golden outputs where that is possible, and say whether it was."""
        check, revision = self._askable(), self.cursor.revision
        if check is not None:
            yield from call("check golden outputs", lambda: check(revision))
            return True
        if not self._staged:
            return False
        yield from self._ask_on_staging()
        return True

    def _askable(self) -> Check | None:
        """Give the check, unless the new revision shares an endpoint on which a call cannot name who answers it."""
        alone = self.cursor.baseline is None
        return self._check if alone or self._backend.capabilities.pinned_invoke else None

    @property
    def _staged(self) -> bool:
        """Whether the revision is asked on an endpoint of its own."""
        able = self._backend.capabilities.staging and self._on_staging is not None
        return able and self._check is not None and self._askable() is None

    @property
    def _staging(self) -> EndpointSpec:
        endpoint = self.cursor.endpoint
        return EndpointSpec(staging_name(endpoint.name, self.cursor.revision.id), endpoint.options)

    def _ask_on_staging(self) -> Flow[None]:
        staging, revision, ask = self._staging, self.cursor.revision, self._on_staging
        held = self.cursor.ticket
        # A ticket to drop it is begun only when the answers were right.
        if ask is not None and (held is None or held.action is Action.PUT_REVISION):
            yield from self._carry(lambda: self._backend.put_revision(staging, revision))
            yield from self._save(ticket=None)
            yield from call("check golden outputs", lambda: ask(revision, staging.name))
        try:
            yield from self._carry(lambda: self._backend.drop_endpoint(staging.name))
        except FencedError:
            raise
        except ModelDeployError as error:
            # It answered as it should; what is left over costs money, and no promotion.
            yield Emit(Name.OPERATION_PROGRESS, {"left_over": staging.name, "error": str(error)}, Level.WARNING)

    def _leave_staging(self) -> Flow[None]:
        """Take the staging endpoint away, if one was made or may have been."""
        if self._staged:
            yield from self._carry(lambda: self._backend.drop_endpoint(self._staging.name), attend=False)
            yield from self._save(ticket=None)
