"""The local backend: endpoints that really serve, on this machine.

This object holds no state. What is wanted lies in ``home/local/state.json``; what runs belongs to the supervisor, which is asked over a
private socket and started when nobody answers.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from modeldeploy.backends.local.client import IDLE_EXIT_S, Control, gone, idle_exit, refuse_windows
from modeldeploy.backends.local.options import LOOPBACK, EndpointOptions, RevisionOptions, read
from modeldeploy.backends.local.passes import Address, Passes
from modeldeploy.backends.local.paths import Paths
from modeldeploy.errors import (
    ConfigurationError,
    ConflictError,
    IntegrityError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from modeldeploy.serving.access import Access, check_exposed
from modeldeploy.spi import Identity
from modeldeploy.values.capability import Capabilities, Shadow
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.metrics import Window
from modeldeploy.values.serving import EndpointSpec, EndpointState, LogLine, Payload, Revision, Traffic
from modeldeploy.values.ticket import Action, Phase, Ticket

if TYPE_CHECKING:
    from modeldeploy.backends.local.batch import LocalBatch
    from modeldeploy.backends.local.invoke import Caller
    from modeldeploy.serving.keyring import Keyring
    from modeldeploy.values.batch import BatchSpec, BatchState

_SETTINGS = ("host", "idle_exit", "api_key")
_POLL_S = 0.02
# A look at a revision that loads is answered as soon as there is something to see, or after this; meanwhile nobody heeds an abort.
_OUTCOME_S = 0.2
_ENDED_S = 30.0
# What a request is given at least, when finding its endpoint took all of its time.
_LEAST_S = 0.001

CAPABILITIES = Capabilities(
    serving=True,
    durable=True,
    split=100,
    shadow=Shadow(),
    compares=True,
    pinned_invoke=True,
    expect_is_atomic=True,
    safe_canary=True,
    sticky=True,
    cancel=True,
    meters=True,
    meters_by_share=True,
    meter_resolution=1.0,
    logs=True,
    batch=True,
    why_not={
        "edge": "this machine is no device; EdgeTarget.fleet(...) puts models on devices",
        "scale_to_zero": "idle workers cost memory only; delete the endpoint to free it",
        "server_side_guard": "the supervisor does not judge; a rollout needs a process that drives it (modeldeploy drive)",
    },
)


class LocalBackend:
    """Serves on this machine.

    ``home`` is the state directory, ``host`` the address that new endpoints listen on (loopback unless you say otherwise), ``idle_exit`` the
    seconds after which a supervisor with nothing to serve ends. ``api_key`` is shown to endpoints that ask for one; left out, this user's own
    ticket is.
    """

    name = "local"
    capabilities = CAPABILITIES

    def __init__(
        self, home: Path, *, host: str = LOOPBACK, idle_exit: float = IDLE_EXIT_S, api_key: str | None = None
    ) -> None:
        self.home = Path(home).absolute()
        self.host = host
        self._paths = Paths(self.home)
        self._control = Control(self._paths, idle_exit)
        self._addresses: dict[str, Address] = {}
        self._passes = Passes(self._paths.owner, api_key)

    @classmethod
    def configure(cls, home: Path, settings: Mapping[str, str]) -> Self:
        """Make one from settings: ``host``, ``idle_exit`` and ``api_key``."""
        unknown = sorted(set(settings) - set(_SETTINGS))
        if unknown:
            message = f"backend 'local' knows no setting {unknown[0]!r}"
            raise ConfigurationError(message, hint=f"known are {list(_SETTINGS)}")
        host, key = settings.get("host", LOOPBACK), settings.get("api_key") or None
        return cls(home, host=host, idle_exit=idle_exit(settings), api_key=key)

    def check(self) -> Identity:
        """Say who and where we are; UnsupportedError on a system that it cannot run on."""
        refuse_windows()
        return Identity(self.name, str(os.getuid()), str(self.home))

    def close(self) -> None:
        """Close connections; endpoints go on serving."""
        if "_caller" in vars(self):
            self._caller.close()

    def shutdown(self) -> None:
        """End the supervisor and all workers; the endpoints come back with the next call that needs them."""
        self._addresses.clear()
        pid = self._control.shut_down()
        deadline = time.monotonic() + _ENDED_S
        while pid is not None and not gone(pid):
            if time.monotonic() > deadline:
                message = f"the local supervisor (pid {pid}) did not end within {_ENDED_S:g} s"
                raise UnavailableError(message, hint=f"see {str(self._paths.supervisor_log)!r}")
            time.sleep(_POLL_S)

    @property
    def keys(self) -> Keyring:
        """The API keys of this home: ``create``, ``list`` and ``revoke``."""
        from modeldeploy.serving.keyring import Keyring

        return Keyring(self._paths.keys)

    def warm(self, flavour: str) -> None:
        """Start loading the libraries of a flavour now, so that a deploy that follows finds them loaded."""
        self.check()
        self._control.ask("warm", python=sys.executable, flavour=flavour)

    def expect(self, revision: Revision) -> None:
        """Begin to start what a deployment of this revision will need, while whoever asks for it still looks at the bundle."""
        self.check()
        forks = read(RevisionOptions, revision.options, "revision").forks
        self._control.expect(revision.model.flavour if forks else "")

    def processes(self) -> dict[str, Any]:
        """Name the processes that run for this home; empty when there are none."""
        return self._control.ask_if_there("processes") or {}

    # Starting: validate, write nothing

    def put_revision(self, endpoint: EndpointSpec, revision: Revision) -> Ticket:
        """Ask for a revision to be ready; the bundle is looked at, nothing is written."""
        self.check()
        access = read(EndpointOptions, self._host_option | dict(endpoint.options), "endpoint").access(self._paths)
        read(RevisionOptions, revision.options, "revision")
        self._paths.log(endpoint.name, revision.id)  # refuses an id that is no name
        note = self._inspect(revision)
        state = self.observe(endpoint.name)
        if state is None:
            self._check_exposed(access)
        known = state.revision(revision.id) if state else None
        if known is not None and known.revision != revision:
            message = f"endpoint {endpoint.name!r} has another revision {revision.id!r}"
            raise ConflictError(message, hint="an id stands for one content; use Revision.of")
        wanted = {"endpoint": to_json(endpoint), "revision": to_json(revision)}
        return Ticket(Action.PUT_REVISION, endpoint.name, wanted, note=note)

    @property
    def _host_option(self) -> dict[str, str]:
        return {} if self.host == LOOPBACK else {"host": self.host}

    def _check_exposed(self, access: Access) -> None:
        import shlex

        remedy = f"modeldeploy keys create NAME --home {shlex.quote(str(self.home))}"
        check_exposed(access, remedy=remedy, waiver="""endpoint_options={"auth": "none"}""")

    def _inspect(self, revision: Revision) -> str:
        """Look at the bundle; give a warning when this environment differs from the one that it was made in."""
        from modeldeploy.packaging.bundle import Bundle
        from modeldeploy.packaging.requirements import mismatches

        bundle = Bundle.open(Path(revision.model.uri), expect=revision.model.digest)
        if bundle.manifest.pickled and not self._trusted(revision):
            message = f"{revision.model} holds pickled code and nobody here vouched for {bundle.digest}"
            raise IntegrityError(message, hint=f"if you know where it comes from, pass trust={bundle.digest!r}")
        found = mismatches(bundle.manifest)
        return f"the environment differs: {'; '.join(found)}" if found else ""

    def _trusted(self, revision: Revision) -> tuple[str, ...]:
        from modeldeploy.packaging.store import Store

        digest = revision.model.digest
        named = revision.options.get("trust") == digest
        return (digest,) if named or digest in Store(self.home / "store").trusted() else ()

    def set_traffic(self, endpoint: str, traffic: Traffic, *, expect: str | None = None) -> Ticket:
        """Ask for a whole new table."""
        from modeldeploy.backends.local import state as wanted

        self.capabilities.check_traffic(traffic, backend=self.name)
        # Looked up on disk, where the supervisor writes first; it is asked once, by the step that moves the traffic.
        record = wanted.load(self._paths.state).endpoints.get(endpoint)
        if record is None:
            raise self._not_there(endpoint)
        for revision in {**traffic.live, **traffic.copies}:
            record.check_has(revision)
        return Ticket(Action.SET_TRAFFIC, endpoint, {"traffic": to_json(traffic), "expect": expect})

    def drop_revision(self, endpoint: str, revision: str) -> Ticket:
        """Ask for a revision to be gone, after it has answered what it was given."""
        from modeldeploy.backends.local.state import check_unused

        state = self.observe(endpoint)
        if state is not None:
            check_unused(endpoint, state.traffic, revision)
        return Ticket(Action.DROP_REVISION, endpoint, {"revision": revision})

    def drop_endpoint(self, endpoint: str) -> Ticket:
        """Ask for an endpoint to be gone, after it has answered what it was given."""
        return Ticket(Action.DROP_ENDPOINT, endpoint)

    # Moving on: look, do at most one step

    def advance(self, ticket: Ticket) -> Ticket:
        """Do the next step of a ticket."""
        if ticket.phase.ended:
            return ticket
        moves = {
            Action.PUT_REVISION: self._advance_put,
            Action.SET_TRAFFIC: self._advance_traffic,
            Action.DROP_REVISION: self._advance_drop,
            Action.DROP_ENDPOINT: self._advance_drop_endpoint,
            Action.PUT_JOB: self._advance_job,
        }
        return moves[ticket.action](ticket)

    def _advance_put(self, ticket: Ticket) -> Ticket:
        endpoint = from_json(EndpointSpec, ticket.wanted["endpoint"])
        revision = from_json(Revision, ticket.wanted["revision"])
        if ticket.step == "start":
            self._put(endpoint, revision)
            return attrs.evolve(ticket, step="loading", poll_after=_POLL_S)
        seen = self._control.ask("observe", endpoint=endpoint.name, revision=revision.id, within=_OUTCOME_S)
        state = from_json(EndpointState, seen["state"]) if seen else None
        found = state.revision(revision.id) if state else None
        if state is None or found is None or found.revision != revision:
            return ticket.failed(f"revision {revision.id!r} is not there any more: somebody else dropped it")
        failed = seen["failed"].get(revision.id)
        if failed:
            return ticket.failed(f"revision {revision.id!r} could not be loaded: {failed}")
        return ticket.done() if found.ready and seen["told"] else ticket

    def _put(self, endpoint: EndpointSpec, revision: Revision) -> None:
        deployed = {"revision": to_json(revision), "python": sys.executable, "trust": self._trusted(revision)}
        self._addresses.pop(endpoint.name, None)  # it may come back elsewhere
        self._control.ask(
            "put", endpoint=endpoint.name, options={**self._host_option, **endpoint.options}, deployed=deployed
        )

    def _advance_traffic(self, ticket: Ticket) -> Ticket:
        wanted = from_json(Traffic, ticket.wanted["traffic"])
        if ticket.step == "start":
            ask = {"endpoint": ticket.target, "traffic": ticket.wanted["traffic"], "expect": ticket.wanted["expect"]}
            seen = self._control.ask("traffic", **ask)
        else:
            seen = self._control.ask("observe", endpoint=ticket.target)
        state = from_json(EndpointState, seen["state"]) if seen else None
        if state is None or not state.traffic.same_as(wanted):
            now = state.traffic.live if state else "gone with its endpoint"
            return ticket.failed(f"traffic is {now}: somebody else changed it")
        return ticket.done() if seen["told"] else attrs.evolve(ticket, step="applying", poll_after=_POLL_S)

    def _advance_drop(self, ticket: Ticket) -> Ticket:
        if not self._wanted_endpoints() and not self._control.ask_if_there("ping"):
            return ticket.done()
        gone = self._control.ask("drop", endpoint=ticket.target, revision=ticket.wanted["revision"])
        return ticket.done() if gone else attrs.evolve(ticket, step="draining", poll_after=_POLL_S)

    def _advance_drop_endpoint(self, ticket: Ticket) -> Ticket:
        self._addresses.pop(ticket.target, None)
        if not self._wanted_endpoints() and not self._control.ask_if_there("ping"):
            return ticket.done()
        gone = self._control.ask("drop_endpoint", endpoint=ticket.target)
        return ticket.done() if gone else attrs.evolve(ticket, step="draining", poll_after=_POLL_S)

    def _advance_job(self, ticket: Ticket) -> Ticket:
        return self._batch.advance(ticket)

    def cancel(self, ticket: Ticket) -> Ticket:
        """Stop a revision that is being loaded; a table or a drop is done at once and cannot be stopped."""
        if ticket.phase.ended:
            return ticket
        if ticket.action is Action.PUT_JOB:
            return self._batch.cancel(ticket)
        if ticket.action is not Action.PUT_REVISION:
            message = f"{ticket.action.value} cannot be stopped"
            raise UnsupportedError(
                message, capability="cancel", hint="it is done in a moment; ask for the opposite instead"
            )
        name = ticket.wanted["revision"]["id"]
        state = self.observe(ticket.target)
        found = state.revision(name) if state else None
        if found is not None and not found.ready:
            self._control.ask("drop", endpoint=ticket.target, revision=name)
        return attrs.evolve(ticket, phase=Phase.CANCELLED)

    # Looking

    def observe(self, endpoint: str) -> EndpointState | None:
        """Read the endpoint as it is now; a supervisor that should run and does not is started."""
        # What is wanted is on disk before anybody acts, so an endpoint that is not there is nowhere.
        if endpoint not in self._wanted_endpoints():
            return None
        seen = self._control.ask("observe", endpoint=endpoint)
        return from_json(EndpointState, seen["state"]) if seen else None

    def _not_there(self, endpoint: str) -> NotFoundError:
        message = f"there is no endpoint {endpoint!r}"
        return NotFoundError(message, hint=f"there are {self.endpoints()}", context={"backend": self.name})

    def endpoints(self) -> list[str]:
        """Name every endpoint."""
        return sorted(self._wanted_endpoints())

    def _wanted_endpoints(self) -> Iterable[str]:
        try:
            document = json.loads(self._paths.state.read_bytes())
            return list(document["body"]["endpoints"])
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError) as error:
            message = f"state file {str(self._paths.state)!r} cannot be read: {error}"
            raise ConfigurationError(message, hint="move it away to start with no endpoints") from error

    def window(self, endpoint: str, revision: str, since: float, until: float, *, share: int | None = None) -> Window:
        """Count what the revision answered; to the second, for the last hour, since the front was last started."""
        if endpoint not in self._wanted_endpoints():
            return Window(revision, since, until)
        asked = {"endpoint": endpoint, "revision": revision, "since": since, "until": until, "share": share}
        return from_json(Window, self._control.ask("window", **asked))

    def lines(self, endpoint: str, revision: str, *, since: float, limit: int) -> Iterable[LogLine]:
        """Give the last lines that the workers of a revision wrote."""
        from modeldeploy.backends.local import logs

        return logs.read(self._paths.log(endpoint, revision), revision, since=since, limit=limit)

    # Batch jobs: processes of their own, which no supervisor watches

    @functools.cached_property
    def _batch(self) -> LocalBatch:
        from modeldeploy.backends.local.batch import LocalBatch

        return LocalBatch(self.home)

    def put_job(self, job: BatchSpec) -> Ticket:
        """Ask for a table to be scored on this machine."""
        return self._batch.put_job(job)

    def observe_job(self, name: str) -> BatchState | None:
        """Read a job as it is now."""
        return self._batch.observe_job(name)

    def jobs(self) -> Iterable[str]:
        """Name every job."""
        return self._batch.jobs()

    # Calling

    @functools.cached_property
    def _caller(self) -> Caller:
        from modeldeploy.backends.local.invoke import Caller

        return Caller()

    def invoke(self, endpoint: str, payload: Payload, *, revision: str | None = None, timeout: float) -> Payload:
        """Send one request over loopback HTTP; a supervisor that is gone is started once."""
        from modeldeploy.backends.local.invoke import StaleAddressError

        if not timeout > 0:
            message = f"timeout is {timeout!r}"
            raise InvalidRequestError(message, field="timeout", hint="use a number of seconds above 0")
        until = time.monotonic() + timeout
        call = functools.partial(self._call, endpoint=endpoint, payload=payload, revision=revision)
        known = self._addresses.get(endpoint)
        if known is not None:
            with contextlib.suppress(StaleAddressError):
                return call(known, timeout=timeout)
        found = self._addresses[endpoint] = self._address(endpoint)
        try:
            return call(found, timeout=max(until - time.monotonic(), _LEAST_S))
        except StaleAddressError as error:
            del self._addresses[endpoint]
            message = f"endpoint {endpoint!r} does not answer at {found.url}"
            raise UnavailableError(message, retry_after=0.1, hint="try again, or look at its logs") from error

    def _call(
        self, address: Address, *, endpoint: str, payload: Payload, revision: str | None, timeout: float
    ) -> Payload:
        return self._caller.call(
            address.url,
            endpoint,
            payload,
            revision=revision,
            timeout=timeout,
            repeatable=lambda: self._repeatable(endpoint, revision),
            shown=self._passes.of(endpoint) if address.keyed else None,
        )

    def _repeatable(self, endpoint: str, revision: str | None) -> bool:
        """Whether every model that may have had a request allows it to be sent once more."""
        state = self.observe(endpoint)
        asked = [each.revision for each in state.revisions if revision in {None, each.revision.id}] if state else []
        allowed = [read(RevisionOptions, each.options, "revision").retry_on_crash for each in asked]
        return bool(allowed) and all(allowed)

    def _address(self, endpoint: str) -> Address:
        seen = self._control.ask("observe", endpoint=endpoint) if endpoint in self._wanted_endpoints() else None
        if seen is None:
            raise self._not_there(endpoint)
        return Address(seen["state"]["url"], keyed=seen["keyed"])
