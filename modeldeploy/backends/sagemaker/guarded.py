"""Changes of an endpoint that the service guards: one variant of a constant name, and a Model for each revision that waits.

Blue/green needs the same variant name before and after, so a revision here is a Model. One that is ready has no instances yet: they start
when it is given the traffic, which the service moves as the guard says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from modeldeploy.backends.cloud.steps import Step, moved
from modeldeploy.backends.sagemaker import names, translate
from modeldeploy.backends.sagemaker.change import START, TIDY, Change, Tools, refuse_failed
from modeldeploy.backends.sagemaker.described import Config, Seen, Variant
from modeldeploy.backends.sagemaker.drop import DropRevision
from modeldeploy.backends.sagemaker.guard import ServerGuard
from modeldeploy.backends.sagemaker.provider import Provider
from modeldeploy.backends.sagemaker.put import SHIP, PutRevision
from modeldeploy.backends.sagemaker.traffic import not_there
from modeldeploy.backends.sagemaker.verdicts import MOVING
from modeldeploy.errors import ConflictError, NotFoundError
from modeldeploy.values.codec import from_json
from modeldeploy.values.serving import EndpointState, Revision, RevisionState, Traffic
from modeldeploy.values.ticket import Ticket

_COLD = "its instances start when it is given the traffic"


def refuse_side_by_side(endpoint: str, config: Config) -> None:
    """Refuse an endpoint that was made without a guard: its revisions are variants of their own."""
    if [each.name for each in config.variants] != [names.PRIMARY]:
        message = f"endpoint {endpoint!r} was made without a guard"
        raise ConflictError(message, hint="use a backend without guard= for it, or deploy under another endpoint name")


def waiting_models(provider: Provider, endpoint: str) -> dict[str, Revision]:
    """Find every revision of an endpoint, by the name of its Model."""
    return {name: provider.revision(Variant(names.PRIMARY, name, 0.0)) for name in provider.models_of(endpoint)}


def state(provider: Provider, seen: Seen, config: Config, *, url: str) -> EndpointState:
    """Show a guarded endpoint as any provider is shown."""
    refuse_side_by_side(seen.name, config)
    live, found = config.production[0].model, waiting_models(provider, seen.name)
    serves = seen.status.serves and bool(seen.production)
    ordered = sorted(found, key=lambda name: name != live)
    return EndpointState(
        name=seen.name,
        url=url,
        revisions=tuple(
            RevisionState(found[name], ready=serves or name != live, note="" if name == live else _COLD)
            for name in ordered
        ),
        traffic=Traffic.all_to(found[live].id) if serves and live in found else Traffic(),
        version=names.digest([seen.version, sorted(found)])[:16],
        settled=seen.status.settled,
    )


class GuardedPut(PutRevision):
    """The first revision makes the endpoint; a later one is a Model that waits."""

    def _start(self, step: Step) -> Ticket:
        seen, config = self._look()
        if seen is None or config is None:
            return super()._start(step)
        refuse_side_by_side(self.name, config)
        refuse_impostor(self._provider, self.name, self._revision)
        broken = refuse_failed(seen)
        if self._in(config):
            return self._ask(seen.config)
        return self.ticket.failed(broken) if broken else moved(self.ticket, Step(SHIP), note="sends the model")

    def _prepare(self, step: Step) -> Ticket:
        if self._provider.seen(self.name) is None:
            return super()._prepare(step)
        return attrs.evolve(self.ticket.done(), note=_COLD)

    def _wanted(self, seen: Seen | None, config: Config | None) -> Config | None:
        if seen is not None and config is not None:
            # Somebody made it meanwhile: this revision waits beside theirs.
            refuse_side_by_side(self.name, config)
            return None
        wanted = super()._wanted(None, None)
        return wanted and attrs.evolve(wanted, production=(attrs.evolve(wanted.production[0], name=names.PRIMARY),))

    def _in(self, config: Config) -> bool:
        return any(each.model == self._model for each in config.production)

    def _holds(self, seen: Seen) -> bool:
        config = self._provider.config(seen.config)
        return config is not None and self._in(config) and bool(seen.production)


class GuardedTraffic(Change):
    """All traffic to another revision: guarded when a rollout asks, at once when somebody goes back."""

    at_once = True

    def __init__(self, tools: Tools, ticket: Ticket, guard: ServerGuard) -> None:
        super().__init__(tools, ticket)
        self._guard = guard
        self._table = from_json(Traffic, ticket.wanted["traffic"])
        self._expect: str | None = ticket.wanted.get("expect")

    def _steps(self) -> dict[str, Callable[[Step], Ticket]]:
        return {START: self._start}

    def _start(self, step: Step) -> Ticket:
        seen, config = self._look()
        if seen is None or config is None:
            raise not_there(self.name)
        refuse_side_by_side(self.name, config)
        self._model()
        if not seen.status.settled:
            return moved(self.ticket, Step(MOVING, at=seen.changed)) if self._brings(seen) else self._busy(seen)
        broken = refuse_failed(seen)
        if broken:
            return self.ticket.failed(broken)
        return self._ask("") if self._in(config) else self._prepare(step)

    def _model(self) -> tuple[str, Revision]:
        (wanted,) = self._table.live
        found = waiting_models(self._provider, self.name)
        for name, revision in found.items():
            if revision.id == wanted:
                return name, revision
        message = f"endpoint {self.name!r} has no revision {wanted!r}"
        raise NotFoundError(message, hint=f"it has {[each.id for each in found.values()]}")

    def _wanted(self, seen: Seen | None, config: Config | None) -> Config | None:
        if seen is None or config is None:
            raise not_there(self.name)
        if self._in(config):
            return None
        self._refuse_other_version(seen, config)
        _name, revision = self._model()
        variant = translate.variant(self.name, revision, 100.0, self._provider.defaults)
        return attrs.evolve(config, production=(attrs.evolve(variant, name=names.PRIMARY),))

    def _refuse_other_version(self, seen: Seen, config: Config) -> None:
        version = state(self._provider, seen, config, url="").version
        if self._expect is not None and self._expect != version:
            message = f"endpoint {self.name!r} is at version {version!r}, not {self._expect!r}"
            raise ConflictError(message, hint="observe it again and decide anew")

    def _update(self, config: str) -> None:
        client, guarded = self._provider.client, self._expect is not None
        if guarded and self._guard.max_errors:
            client.call("cloudwatch", "put_metric_alarm", **self._guard.alarm(self.name, config))
        policy: dict[str, Any] = {"DeploymentConfig": self._guard.deployment(config)} if guarded else {}
        client.sagemaker("update_endpoint", EndpointName=self.name, EndpointConfigName=config, **policy)

    def _in(self, config: Config) -> bool:
        return config.production[0].model == self._model()[0]

    def _holds(self, seen: Seen) -> bool:
        config = self._provider.config(seen.config)
        return config is not None and self._in(config)


class GuardedDrop(DropRevision):
    """A Model that waits goes at once; the one that serves goes with its endpoint."""

    def _begin(self, _step: Step) -> Ticket:
        if not (names.is_name(self.name) and names.is_name(self._revision)):
            return self.ticket.done()
        seen, config = self._look()
        if seen is not None and config is not None:
            refuse_side_by_side(self.name, config)
            if not seen.status.settled:
                return self._busy(seen)
            refuse_live(self._provider, self.name, config, self._revision)
        return moved(self.ticket, Step(TIDY))

    def _tidy(self, step: Step) -> Ticket:
        seen, config = self._look()
        if seen is None or config is None:
            return super()._tidy(step)
        refuse_live(self._provider, self.name, config, self._revision)
        self._remove_revision()
        return self.ticket.done()


def refuse_live(provider: Provider, endpoint: str, config: Config, revision: str) -> None:
    """Refuse to drop the revision that serves."""
    live = config.production[0].model
    if live in provider.models_of(endpoint, revision):
        message = f"revision {revision!r} of {endpoint!r} takes traffic"
        raise ConflictError(message, hint="give its traffic to another revision first")


def refuse_unknown(provider: Provider, endpoint: str, config: Config, traffic: Traffic) -> None:
    """Refuse a table for a revision that is not there, or for none."""
    refuse_side_by_side(endpoint, config)
    known = [each.id for each in waiting_models(provider, endpoint).values()]
    if not traffic.live or set(traffic.live) - set(known):
        message = f"endpoint {endpoint!r} has no revisions {sorted(traffic.live)}"
        raise NotFoundError(message, hint=f"it has {known}")


def refuse_beside(provider: Provider, endpoint: str, config: Config, revision: Revision) -> None:
    """Refuse a revision for an endpoint that was made without a guard, or under an id that it has for other content."""
    refuse_side_by_side(endpoint, config)
    refuse_impostor(provider, endpoint, revision)


def refuse_impostor(provider: Provider, endpoint: str, revision: Revision) -> None:
    """Refuse another content under an id that the endpoint has."""
    others = set(provider.models_of(endpoint, revision.id)) - {names.model_name(endpoint, revision)}
    if others:
        message = f"endpoint {endpoint!r} has another revision {revision.id!r}"
        raise ConflictError(message, hint="an id stands for one content; use Revision.of")
