"""A whole backend: a shelf of endpoints in one JSON file. It splits no traffic and answers every request in the same way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import attrs

from modeldeploy.errors import ConfigurationError, ConflictError, InvalidRequestError, NotFoundError, UnavailableError
from modeldeploy.spi import Identity
from modeldeploy.values.capability import Capabilities
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.serving import EndpointSpec, EndpointState, Payload, Revision, RevisionState, Traffic
from modeldeploy.values.ticket import Action, Phase, Ticket

_ONE = "a shelf shows one revision at a time; roll out with RolloutPolicy.all_at_once()"


class ShelfBackend:
    """Keeps what it is told in ``file``."""

    name = "shelf"
    capabilities = Capabilities(serving=True, durable=True, why_not={"split": _ONE})

    def __init__(self, file: Path) -> None:
        self._file = file

    @classmethod
    def configure(cls, home: Path, settings: Mapping[str, str]) -> Self:
        unknown = sorted(set(settings) - {"file"})
        if unknown:
            message = f"backend 'shelf' has no settings {unknown}"
            raise ConfigurationError(message, hint="the only setting is file")
        return cls(Path(settings.get("file", home / "shelf.json")))

    def check(self) -> Identity:
        return Identity(self.name, "nobody", str(self._file))

    def close(self) -> None:
        pass

    # Starting: refuse what is wrong, write nothing.

    def put_revision(self, endpoint: EndpointSpec, revision: Revision) -> Ticket:
        self._refuse_other_content(endpoint.name, revision)
        return Ticket(
            Action.PUT_REVISION, endpoint.name, {"endpoint": to_json(endpoint), "revision": to_json(revision)}
        )

    def set_traffic(self, endpoint: str, traffic: Traffic, *, expect: str | None = None) -> Ticket:
        self.capabilities.check_traffic(traffic, backend=self.name)
        self._refuse_unknown(endpoint, traffic)
        return Ticket(Action.SET_TRAFFIC, endpoint, {"traffic": to_json(traffic), "expect": expect})

    def drop_revision(self, endpoint: str, revision: str) -> Ticket:
        self._refuse_used(endpoint, revision)
        return Ticket(Action.DROP_REVISION, endpoint, {"revision": revision})

    def drop_endpoint(self, endpoint: str) -> Ticket:
        return Ticket(Action.DROP_ENDPOINT, endpoint)

    # One step, which finds itself done when it is repeated. A file is written at once, so one step is all there is; what is
    # wanted is then read back.

    def advance(self, ticket: Ticket) -> Ticket:
        if ticket.phase.ended:
            return ticket
        steps = {
            Action.PUT_REVISION: self._put,
            Action.SET_TRAFFIC: self._set,
            Action.DROP_REVISION: self._drop,
            Action.DROP_ENDPOINT: self._clear,
        }
        steps[ticket.action](ticket.target, ticket.wanted)
        return attrs.evolve(ticket, step="written", phase=Phase.SUCCEEDED)

    def cancel(self, ticket: Ticket) -> Ticket:
        self.capabilities.require("cancel", backend=self.name)
        return ticket

    def _put(self, name: str, wanted: Mapping[str, Any]) -> None:
        self._refuse_other_content(name, from_json(Revision, wanted["revision"]))
        shelf, revision = self._read(), wanted["revision"]
        first = {"revisions": {}, "traffic": to_json(Traffic.all_to(revision["id"]))}
        shelf.setdefault(name, first)["revisions"][revision["id"]] = revision
        self._write(shelf)

    def _set(self, name: str, wanted: Mapping[str, Any]) -> None:
        traffic = from_json(Traffic, wanted["traffic"])
        self._refuse_unknown(name, traffic)
        shelf = self._read()
        if from_json(Traffic, shelf[name]["traffic"]).same_as(traffic):
            return
        if wanted["expect"] not in {None, _version(shelf[name])}:
            message = f"endpoint {name!r} was changed by somebody else"
            raise ConflictError(message, hint="observe it again")
        shelf[name]["traffic"] = wanted["traffic"]
        self._write(shelf)

    def _drop(self, name: str, wanted: Mapping[str, Any]) -> None:
        self._refuse_used(name, wanted["revision"])
        shelf = self._read()
        if name in shelf and shelf[name]["revisions"].pop(wanted["revision"], None):
            self._write(shelf)

    def _clear(self, name: str, _wanted: Mapping[str, Any]) -> None:
        shelf = self._read()
        if shelf.pop(name, None):
            self._write(shelf)

    # Looking

    def observe(self, endpoint: str) -> EndpointState | None:
        found = self._read().get(endpoint)
        if found is None:
            return None
        revisions = (from_json(Revision, each) for each in found["revisions"].values())
        return EndpointState(
            name=endpoint,
            url=f"{self._file.as_uri()}#{endpoint}",
            revisions=tuple(RevisionState(revision, ready=True) for revision in revisions),
            traffic=from_json(Traffic, found["traffic"]),
            version=_version(found),
            settled=True,
        )

    def endpoints(self) -> Iterable[str]:
        return sorted(self._read())

    def invoke(self, endpoint: str, payload: Payload, *, revision: str | None = None, timeout: float) -> Payload:
        if revision is not None:
            self.capabilities.require("pinned_invoke", backend=self.name)
        if not timeout > 0:
            message = f"timeout is {timeout!r}"
            raise InvalidRequestError(message, field="timeout")
        state = self.observe(endpoint)
        if state is None:
            raise self._no_endpoint(endpoint)
        if state.stable is None:
            message = f"endpoint {endpoint!r} has no traffic"
            raise UnavailableError(message)
        return Payload(b'{"shelf": 42}', {"modeldeploy-revision": state.stable})

    # Refusals

    def _refuse_other_content(self, name: str, revision: Revision) -> None:
        state = self.observe(name)
        known = state.revision(revision.id) if state else None
        if known is not None and known.revision != revision:
            message = f"endpoint {name!r} has another revision {revision.id!r}"
            raise ConflictError(message)

    def _refuse_unknown(self, name: str, traffic: Traffic) -> None:
        state = self.observe(name)
        if state is None:
            raise self._no_endpoint(name)
        unknown = [revision for revision in traffic.weights if state.revision(revision) is None]
        if unknown:
            message = f"endpoint {name!r} has no revisions {unknown}"
            raise NotFoundError(message)

    def _refuse_used(self, name: str, revision: str) -> None:
        state = self.observe(name)
        if state is not None and revision in state.traffic.live:
            message = f"revision {revision!r} of {name!r} takes traffic"
            raise ConflictError(message)

    def _no_endpoint(self, name: str) -> NotFoundError:
        return NotFoundError(f"there is no endpoint {name!r}", context={"backend": self.name})

    # The file

    def _read(self) -> dict[str, Any]:
        return json.loads(self._file.read_text()) if self._file.exists() else {}

    def _write(self, shelf: Mapping[str, Any]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(shelf))
        fresh.replace(self._file)


def _version(found: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]
