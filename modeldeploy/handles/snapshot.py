"""An endpoint as it is observed, and what goes on with it: where every change and every plan of one starts from."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from modeldeploy.engine.record import Kind, Record
from modeldeploy.engine.rollout import RolloutCursor
from modeldeploy.errors import ConflictError, NotFoundError
from modeldeploy.handles.session import Session
from modeldeploy.values.codec import from_json
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.serving import WHOLE, EndpointSpec, EndpointState, Revision
from modeldeploy.values.tolerance import Tolerance


@attrs.frozen
class Snapshot:
    """What was observed of one endpoint just now, and the operation that changes it."""

    session: Session
    name: str
    state: EndpointState | None
    active: Record | None
    options: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """What the endpoint is asked to be, beside its revisions and traffic."""

    @classmethod
    def of(cls, session: Session, name: str, options: Mapping[str, object] | None = None) -> Snapshot:
        """Look; writes nothing."""
        found = session.journal.unfinished(backend=session.backend.name, target=name)
        # A number says itself; whoever reads an option knows what kind it is.
        asked = {option: str(value) for option, value in (options or {}).items()}
        return cls(session, name, session.rollable.observe(name), found[0] if found else None, asked)

    @property
    def rollout(self) -> RolloutCursor | None:
        """The rollout that goes on, if one does."""
        if self.active is None or self.active.kind is not Kind.ROLLOUT:
            return None
        return from_json(RolloutCursor, self.active.cursor)

    @property
    def stable(self) -> Revision:
        """The revision with the most traffic; while a rollout goes on, the one that it started from."""
        state, rollout = self.existing(), self.rollout
        name = rollout.stable if rollout is not None and rollout.stable else state.stable
        found = state.revision(name) if name else None
        if found is None:
            message = f"endpoint {self.name!r} has no revision with traffic"
            raise NotFoundError(message, hint="deploy a model to it, or wait for the deployment that goes on")
        return found.revision

    def existing(self) -> EndpointState:
        """Give the state; NotFoundError names the endpoints that there are."""
        return existing(self.session, self.name, self.state)

    def cursor(
        self, revision: Revision, policy: RolloutPolicy, *, keep: int, golden: bool, tolerance: Tolerance
    ) -> RolloutCursor:
        """Make the cursor of a rollout that begins now."""
        sticky = self.session.backend.capabilities.sticky
        return RolloutCursor(
            EndpointSpec(self.name, self.options),
            revision,
            policy,
            keep=keep,
            golden=golden,
            tolerance=tolerance,
            sticky=sticky,
        )

    def serves(self, revision: Revision) -> bool:
        """Whether a revision is ready and has all traffic, and nothing changes that."""
        state = self.state
        found = state.revision(revision.id) if state else None
        whole = state is not None and state.traffic.live == {revision.id: WHOLE}
        return self.active is None and found is not None and found.ready and whole

    def brings(self, revision: Revision) -> bool:
        """Whether a rollout of this very revision goes on."""
        rollout = self.rollout
        return rollout is not None and rollout.revision == revision

    def refuse_other_policy(self, policy: RolloutPolicy | None) -> None:
        """Refuse to take the rollout that goes on for one that was asked for by another policy; ConflictError names both."""
        rollout, active = self.rollout, self.active
        if policy is None or rollout is None or active is None:
            return
        known = rollout.asked or rollout.policy
        if _alike(policy) == _alike(known):
            return
        message = f"{active.id} brings {rollout.revision.id} to {self.name!r} already, by another policy: {known}"
        hint = f"Rollout.get({active.id!r}) is the one that goes on; abort() it first to begin again by {policy}"
        raise ConflictError(message, hint=hint, context={"operation": active.id})

    def target(self, to: str | None) -> Revision:
        """Find where a rollback goes: ``to`` (a revision id or model version), or the revision before stable.

        The start of a rollout that goes on, if there is one. NotFoundError when there is nothing to go back to.
        """
        state = self.existing()
        if to is None and (start := self._start(state)) is not None:
            return start
        there = [each.revision for each in state.revisions if to in {each.revision.id, each.revision.model.version}]
        if there:
            return there[-1]
        lines = self.session.journal.history(backend=self.session.backend.name, target=self.name)
        from modeldeploy.engine import rollback

        if to is not None or rollback.served(lines):
            return rollback.target(lines, endpoint=self.name, stable=state.stable, to=to)
        return self._only_other(state)

    def _start(self, state: EndpointState) -> Revision | None:
        """Give the revision that a rollout which goes on started from, if it is there."""
        cursor = self.rollout
        if cursor is None or self.active is None:
            return None
        # One that has not begun has changed nothing yet.
        name = cursor.stable if cursor.begun else state.stable
        if name is None:
            message = f"{self.active.id} deploys the first revision of {self.name!r}; there is nothing to go back to"
            raise ConflictError(message, hint="wait for it, or delete the endpoint")
        found = state.revision(name)
        return found.revision if found else None

    def _only_other(self, state: EndpointState) -> Revision:
        others = [each.revision for each in state.revisions if each.revision.id != state.stable and each.ready]
        if len(others) != 1:
            message = f"the journal of this machine knows no earlier revision of endpoint {self.name!r}"
            raise NotFoundError(message, hint=f"name one: to= one of {[each.id for each in others]}")
        return others[0]


def existing(session: Session, name: str, state: EndpointState | None) -> EndpointState:
    """Give the state; NotFoundError names the nearest of the endpoints that there are."""
    if state is not None:
        return state
    names = sorted(session.rollable.endpoints())
    import difflib

    close = difflib.get_close_matches(name, names, n=1)
    asked = f"did you mean {close[0]!r}? " if close else ""
    message = f"there is no endpoint {name!r} on {session.backend.name!r}"
    raise NotFoundError(message, hint=f"{asked}there are {names}")


def named(state: EndpointState, wanted: str) -> Revision:
    """Find a revision of an endpoint by its id or model version; the latest of several."""
    found = [each.revision for each in state.revisions if wanted in {each.revision.id, each.revision.model.version}]
    if not found:
        message = f"endpoint {state.name!r} has no revision {wanted!r}"
        raise NotFoundError(message, hint=f"it has {[each.revision.id for each in state.revisions]}")
    return found[-1]


def _alike(policy: RolloutPolicy) -> RolloutPolicy:
    """Leave the numbers of functions out, which grow whenever a notebook's cell runs again."""
    gates = [attrs.evolve(gate, function=gate.function.partition("#")[0]) for gate in policy.gates]
    return attrs.evolve(policy, gates=gates)
