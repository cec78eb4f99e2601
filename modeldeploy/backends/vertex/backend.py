"""The Vertex AI backend: endpoints of a project in one region, by the same verbs as on this machine.

This object holds no state but what is named by its content. What is wanted lies in tickets, what is there is read from the service. A
revision is a deployed model of its own, so traffic is a table of whole percents and a rollback is one write.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from modeldeploy import config as configuration
from modeldeploy.backends.cloud.naming import is_name
from modeldeploy.backends.cloud.steps import Step, waiting
from modeldeploy.backends.vertex import entry, logs, metrics, translate
from modeldeploy.backends.vertex import settings as configured
from modeldeploy.backends.vertex.capabilities import CAPABILITIES, MOST_DEPLOYED
from modeldeploy.backends.vertex.change import Change, Tools, not_there
from modeldeploy.backends.vertex.client import Access, Client
from modeldeploy.backends.vertex.described import Seen
from modeldeploy.backends.vertex.drop import DropEndpoint, DropRevision, refuse_used
from modeldeploy.backends.vertex.entry import Container
from modeldeploy.backends.vertex.invoke import Caller, check_timeout
from modeldeploy.backends.vertex.names import check_labels
from modeldeploy.backends.vertex.options import VertexEndpointOptions, VertexOptions
from modeldeploy.backends.vertex.pace import Pace
from modeldeploy.backends.vertex.provider import Provider
from modeldeploy.backends.vertex.put import BEFORE_DEPLOYMENT, READY, PutRevision, refuse_impostor
from modeldeploy.backends.vertex.terms import Terms
from modeldeploy.backends.vertex.traffic import SetTraffic, refuse_table
from modeldeploy.backends.vertex.translate import DEFAULT_MACHINE, Defaults
from modeldeploy.errors import UnsupportedError
from modeldeploy.spi import Identity
from modeldeploy.values.batch import BatchSpec, BatchState
from modeldeploy.values.capability import Capabilities
from modeldeploy.values.codec import to_json
from modeldeploy.values.metrics import Window
from modeldeploy.values.serving import EndpointSpec, EndpointState, LogLine, Payload, Revision, Traffic
from modeldeploy.values.ticket import Action, Phase, Ticket

if TYPE_CHECKING:
    from modeldeploy.backends.vertex.batch import PredictionBatch
    from modeldeploy.backends.vertex.rehearsal import Rehearsal
    from modeldeploy.packaging.bundle import Bundle

_WAITS = "what was asked for takes effect at once, or cannot be stopped; ask for the opposite"


class Vertex:
    """Serves on Vertex AI.

    ``project``, ``location`` and ``bucket`` say where; the first two are also read from Google's own environment variables, and nothing is
    guessed by asking the network. ``credentials`` are of google-auth (application default credentials when left out); keys are never taken.
    ``service_account`` is what replicas run as. ``machine_type``, ``accelerator``, ``image``, ``base_image``, ``service_account`` and ``spot``
    are also options of a revision. ``labels`` are put on all that is made; ``batch_terms`` say on what machines batch jobs run.
    ``golden="staging"`` tries each new revision on a short-lived endpoint of its own before it shares one; ``"skip"`` does not.
    """

    name = "vertex"

    def __init__(  # noqa: PLR0913 - what a project has, all optional and named
        self,
        *,
        project: str = "",
        location: str = "",
        bucket: str = "",
        credentials: Any = None,
        service_account: str = "",
        machine_type: str = DEFAULT_MACHINE,
        accelerator: str = "",
        image: str = "",
        base_image: str = "",
        spot: bool = False,
        labels: Mapping[str, str] | None = None,
        golden: str = "staging",
        home: Path | str | None = None,
        pace: Pace | None = None,
        transport_factory: Callable[[str], Any] | None = None,
        rest_url: str = "",
        batch_terms: Terms | None = None,
        capabilities: Capabilities = CAPABILITIES,
    ) -> None:
        self._where = configured.where({"project": project, "location": location, "bucket": bucket})
        self._pace = pace or Pace()
        self.capabilities = attrs.evolve(
            capabilities,
            meter_resolution=self._pace.slot,
            meter_delay=self._pace.settling,
            staging=configured.check_golden(golden) == "staging",
        )
        self._home = Path(home) if home is not None else None
        self._batch_terms = batch_terms or Terms()
        access = Access(**self._where, credentials=credentials, transport_factory=transport_factory, rest_url=rest_url)
        self._client = Client(access)
        given = VertexOptions(
            machine_type=machine_type, accelerator=accelerator, image=image, base_image="" if image else base_image
        )
        defaults = Defaults(
            given.machine_type or DEFAULT_MACHINE,
            given.accelerator,
            given.image,
            given.base_image,
            service_account,
            spot,
            check_labels(labels or {}),
        )
        self._provider = Provider(self._client, defaults)
        self._tail = logs.Tail(self._client, self._pace.grace)
        self._tools = Tools(self._provider, self._pace, self._tail.of)
        self._caller = Caller(self._provider, self._tail.of, self._is_idempotent)

    @classmethod
    def configure(cls, home: Path, settings: Mapping[str, str]) -> Self:
        """Make one from settings: ``project``, ``location``, ``bucket``, ``service_account``, ``machine_type`` and others."""
        found = configured.arguments(settings)
        if found.pop("rehearsal", False):
            from modeldeploy.backends.vertex.rehearsal import shared

            return shared(home)  # type: ignore[return-value]  # a subclass
        return cls(home=home, **found)

    def check(self) -> Identity:
        """Say where we are; CredentialsError when Google does not know us, AccessDeniedError when we may not look at endpoints."""
        access = self._client.access
        asked = {"parent": access.parent, "page_size": 1}
        configured.refuse_incomplete(self._where, "project", "location")
        self._client.call("endpoint", "list_endpoints", asked)
        return Identity(self.name, access.project, access.location)

    def close(self) -> None:
        """Close connections; endpoints go on serving, and cost."""
        self._client.close()

    @property
    def native(self) -> Any:
        """The generated ``EndpointServiceClient``, for what this library does not do; pass ``timeout=`` to each of its calls."""
        return self._client.service("endpoint")

    # Starting: validate, write nothing

    def put_revision(self, endpoint: EndpointSpec, revision: Revision) -> Ticket:
        """Ask for a revision to be ready; everything that can be seen to be wrong is refused, and nothing is written."""
        configured.refuse_incomplete(self._where, "project", "location", "bucket")
        VertexEndpointOptions.read(endpoint.options, "endpoint")
        translate.machine(revision, self._provider.defaults)
        translate.record(revision)
        bundle = self._bundle(revision)
        self._container(bundle, revision)
        trusted = self._trusted(revision)
        entry.variables(bundle, trusted)
        seen = self._provider.seen(endpoint.name)
        if seen is not None:
            self._provider.refuse_foreign(seen)
            refuse_impostor(seen, revision)
            _refuse_full(seen, revision)
        wanted = {"endpoint": to_json(endpoint), "revision": to_json(revision), "trust": list(trusted)}
        return Ticket(Action.PUT_REVISION, endpoint.name, wanted)

    def _bundle(self, revision: Revision) -> Bundle:
        from modeldeploy.packaging.bundle import Bundle

        return Bundle.open(Path(revision.model.uri), expect=revision.model.digest)

    def _container(self, bundle: Bundle, revision: Revision) -> Container:
        options, defaults = VertexOptions.read(revision.options, "revision"), self._provider.defaults
        image = options.image or ("" if options.base_image else defaults.image)
        if image:
            return entry.contained(image)
        return entry.generated(bundle, options.base_image or defaults.base_image)

    def _default_container(self, bundle: Bundle) -> Container:
        defaults = self._provider.defaults
        return entry.contained(defaults.image) if defaults.image else entry.generated(bundle, defaults.base_image)

    def _trusted(self, revision: Revision) -> tuple[str, ...]:
        from modeldeploy.packaging.store import Store

        home = self._home or configuration.load().home
        digest = revision.model.digest
        return (digest,) if digest in Store(home / "store").trusted() else ()

    def set_traffic(self, endpoint: str, traffic: Traffic, *, expect: str | None = None) -> Ticket:
        """Ask for a whole new table, in whole percents; it is written over the very state that was read, or not at all."""
        self.capabilities.check_traffic(traffic, backend=self.name)
        seen = self._provider.seen(endpoint)
        if seen is None:
            raise not_there(endpoint)
        refuse_table(seen, traffic)
        return Ticket(Action.SET_TRAFFIC, endpoint, {"traffic": to_json(traffic), "expect": expect})

    def drop_revision(self, endpoint: str, revision: str) -> Ticket:
        """Ask for a revision to be gone; the last one takes the endpoint along."""
        seen = self._provider.seen(endpoint)
        if seen is not None and seen.find(revision) is not None:
            self._provider.refuse_foreign(seen)
            refuse_used(endpoint, seen, revision)
        return Ticket(Action.DROP_REVISION, endpoint, {"revision": revision})

    def drop_endpoint(self, endpoint: str) -> Ticket:
        """Ask for an endpoint to be gone with what is deployed to it; versions of models stay registered."""
        seen = self._provider.seen(endpoint)
        if seen is not None:
            self._provider.refuse_foreign(seen)
        return Ticket(Action.DROP_ENDPOINT, endpoint)

    # Batch jobs

    @functools.cached_property
    def batch(self) -> PredictionBatch:
        """The batch family, by batch prediction jobs."""
        from modeldeploy.backends.vertex.batch import PredictionBatch

        home = self._home or configuration.load().home
        return PredictionBatch(
            home, self._provider, terms=self._batch_terms, pace=self._pace, container=self._default_container
        )

    def put_job(self, job: BatchSpec) -> Ticket:
        """Ask for a table to be scored."""
        configured.refuse_incomplete(self._where, "project", "location", "bucket")
        return self.batch.put_job(job)

    def observe_job(self, name: str) -> BatchState | None:
        """Read a job as it is now."""
        return self.batch.observe_job(name)

    def jobs(self) -> Iterable[str]:
        """Name every job of this state directory."""
        return self.batch.jobs()

    # Moving on

    def advance(self, ticket: Ticket) -> Ticket:
        """Do the next step of a ticket."""
        if ticket.phase.ended:
            return ticket
        if ticket.action is Action.PUT_JOB:
            return self.batch.advance(ticket)
        return self._change(ticket).advance()

    def _change(self, ticket: Ticket) -> Change:
        if ticket.action is Action.PUT_REVISION:
            return PutRevision(self._tools, ticket, self._container)
        kinds = {
            Action.SET_TRAFFIC: SetTraffic,
            Action.DROP_REVISION: DropRevision,
            Action.DROP_ENDPOINT: DropEndpoint,
        }
        return kinds[ticket.action](self._tools, ticket)

    def cancel(self, ticket: Ticket) -> Ticket:
        """Stop a batch job, or a revision that is not deployed yet; a deployment that is under way is asked to stop, and ends by itself."""
        if ticket.phase.ended:
            return ticket
        if ticket.action is Action.PUT_JOB:
            return self.batch.cancel(ticket)
        step = Step.of(ticket)
        if ticket.action is Action.PUT_REVISION and step.name in BEFORE_DEPLOYMENT:
            return attrs.evolve(ticket, phase=Phase.CANCELLED, note="nothing runs of it; what was registered stays")
        operation = step.about.rpartition(":")[2]
        if ticket.action is Action.PUT_REVISION and step.name == READY and operation:
            self._client.stop(operation)
            return waiting(ticket, self._pace.poll(0), "the deployment was asked to stop")
        message = f"{ticket.action.value} of {ticket.target!r} cannot be stopped"
        raise UnsupportedError(message, capability="cancel", hint=_WAITS)

    # Looking

    def observe(self, endpoint: str) -> EndpointState | None:
        """Read the endpoint as it is now."""
        seen = self._provider.seen(endpoint)
        if seen is None:
            return None
        self._provider.refuse_foreign(seen)
        host = seen.dns or f"{self._client.access.location}-aiplatform.googleapis.com"
        return translate.state(seen, f"https://{host}/v1/{seen.resource}")

    def endpoints(self) -> list[str]:
        """Name every endpoint of ours."""
        return sorted(self._provider.endpoints())

    def window(self, endpoint: str, revision: str, since: float, until: float, *, share: int | None = None) -> Window:  # noqa: ARG002 - it cannot tell
        """Count what the revision answered, as Cloud Monitoring has it: by the minute, and some minutes late."""
        if not (is_name(endpoint) and is_name(revision)):
            return Window(revision, since, until)
        return metrics.window(self._client, endpoint, revision, since, until, slot=self._pace.slot)

    def lines(self, endpoint: str, revision: str, *, since: float, limit: int) -> Iterable[LogLine]:
        """Give the last lines that the containers of a revision wrote."""
        if not (is_name(endpoint) and is_name(revision)):
            return []
        return logs.read(self._client, endpoint, revision, since=since, limit=limit)

    # Calling

    def invoke(self, endpoint: str, payload: Payload, *, revision: str | None = None, timeout: float) -> Payload:
        """Send one request as it is; UnsupportedError for a pinned one, which nothing of the API can do."""
        check_timeout(timeout)
        if revision is not None:
            self.capabilities.require("pinned_invoke", backend=self.name)
        return self._caller.call(endpoint, payload, timeout=timeout)

    def _is_idempotent(self, endpoint: str) -> bool:
        """Whether every model that may have had a request allows it to be sent once more."""
        state = self.observe(endpoint)
        asked = [each.revision for each in state.revisions] if state else []
        return bool(asked) and all(VertexOptions.read(each.options, "revision").idempotent for each in asked)

    # Rehearsal

    @classmethod
    def rehearsal(cls, **options: Any) -> Rehearsal:
        """Give a backend on a simulator in this process: no project, no network, real model servers; ``close`` ends all of it.

        ``home=`` is the state directory, ``speed=`` says how many of the service's seconds pass in one of this machine's (240), ``image=`` a
        container to run in place of the generated start. The other options are the simulator's, such as ``faults=`` and ``images=``.
        """
        from modeldeploy.backends.vertex.rehearsal import start

        return start(**options)


def _refuse_full(seen: Seen, revision: Revision) -> None:
    """Refuse a revision for which the endpoint has no room."""
    if seen.find(revision.id) is None and len(seen.deployed) >= MOST_DEPLOYED:
        message = f"endpoint {seen.name!r} has {len(seen.deployed)} revisions, and is given no more here"
        raise UnsupportedError(message, capability="split", hint="drop revisions that take no traffic")
