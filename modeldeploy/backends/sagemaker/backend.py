"""The SageMaker backend: endpoints of an AWS account, by the same verbs as on this machine.

This object holds no state but what is named by its content. What is wanted lies in tickets, what is there is read from the service. A
revision is a Model and a production variant of its own, so traffic is a table of weights and a rollback is one call.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from modeldeploy import config
from modeldeploy.backends.cloud.steps import Step
from modeldeploy.backends.sagemaker import entry, guarded, images, logs, metrics, names, scaling, translate
from modeldeploy.backends.sagemaker.capabilities import CAPABILITIES, MOST_VARIANTS
from modeldeploy.backends.sagemaker.change import START, Change, Tools
from modeldeploy.backends.sagemaker.client import Access, Client
from modeldeploy.backends.sagemaker.described import Config, Seen, Status
from modeldeploy.backends.sagemaker.drop import DropEndpoint, DropRevision, refuse_used
from modeldeploy.backends.sagemaker.guard import GUARDED, ServerGuard, refuse_unguarded
from modeldeploy.backends.sagemaker.invoke import Caller
from modeldeploy.backends.sagemaker.options import SageMakerEndpointOptions, SageMakerOptions
from modeldeploy.backends.sagemaker.pace import Pace
from modeldeploy.backends.sagemaker.provider import Provider
from modeldeploy.backends.sagemaker.put import MODEL, SHIP, PutRevision, refuse_impostor
from modeldeploy.backends.sagemaker.queue import Queue
from modeldeploy.backends.sagemaker.settings import arguments, network
from modeldeploy.backends.sagemaker.traffic import SetTraffic, not_there, refuse_guarded, refuse_table
from modeldeploy.backends.sagemaker.translate import DEFAULT_INSTANCE, Defaults
from modeldeploy.errors import (
    AccessDeniedError,
    ConfigurationError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from modeldeploy.spi import Identity
from modeldeploy.values.batch import BatchSpec, BatchState
from modeldeploy.values.capability import Capabilities
from modeldeploy.values.codec import to_json
from modeldeploy.values.metrics import Window
from modeldeploy.values.serving import EndpointSpec, EndpointState, LogLine, Payload, Revision, Traffic
from modeldeploy.values.ticket import Action, Phase, Ticket

if TYPE_CHECKING:
    from modeldeploy.backends.sagemaker.batch import TransformBatch
    from modeldeploy.backends.sagemaker.rehearsal import Rehearsal
    from modeldeploy.backends.sagemaker.terms import Terms
    from modeldeploy.packaging.bundle import Bundle

_WAITS = "SageMaker has no call that stops an update; it ends by itself, and the opposite can be asked for then"


class SageMaker:
    """Serves on Amazon SageMaker.

    ``region``, ``profile`` and ``session`` (of boto3, or of the sagemaker package) say who asks and where, by the caller's own chain of
    credentials; keys are never taken. ``role`` is the ARN of the execution role, ``bucket`` where models go (default: the account's
    ``sagemaker-REGION-ACCOUNT``). ``instance_type``, ``image``, ``kms_key``, ``vpc`` (``{"Subnets": [...], "SecurityGroupIds": [...]}``) and
    ``tags`` are for all that is made; ``instance_type`` and ``image`` are also options of a revision. ``batch_terms`` says how batch jobs
    are done.
    """

    name = "sagemaker"

    def __init__(  # noqa: PLR0913 - what an account has, all optional and named
        self,
        *,
        region: str | None = None,
        role: str = "",
        bucket: str = "",
        profile: str | None = None,
        session: Any = None,
        endpoint_url: str | None = None,
        instance_type: str = DEFAULT_INSTANCE,
        image: str = "",
        kms_key: str = "",
        vpc: Mapping[str, Iterable[str]] | None = None,
        tags: Mapping[str, str] | None = None,
        guard: ServerGuard | None = None,
        home: Path | str | None = None,
        pace: Pace | None = None,
        durable: bool = True,
        batch_terms: Terms | None = None,
    ) -> None:
        self._pace = pace or Pace()
        slot, settling = self._pace.slot, self._pace.settling
        able = attrs.evolve(GUARDED if guard else CAPABILITIES, durable=durable)
        self.capabilities: Capabilities = attrs.evolve(able, meter_resolution=slot, meter_delay=settling)
        self._home = Path(home) if home is not None else None
        self._batch_terms = batch_terms
        self._client = Client(Access(region, profile, session, endpoint_url))
        defaults = Defaults(role, bucket, instance_type, image, kms_key, network(vpc), dict(tags or {}))
        self._provider = Provider(self._client, defaults)
        self._guard = guard
        self._tail = logs.Tail(self._client, self._pace.grace)
        self._tools = Tools(self._provider, self._pace, self._tail.of)
        self._queue = Queue(self._provider, self._pace)
        self._asynchronous: dict[str, bool] = {}
        self._caller = Caller(self._client, self._tail.of, self._is_idempotent)

    @classmethod
    def configure(cls, home: Path, settings: Mapping[str, str]) -> Self:
        """Make one from settings: ``region``, ``role``, ``bucket``, ``profile``, ``instance_type``, ``image``, ``kms_key`` and others."""
        found = arguments(settings)
        if found.pop("rehearsal", False):
            from modeldeploy.backends.sagemaker.rehearsal import shared

            return shared(home)  # type: ignore[return-value]  # a subclass
        return cls(home=home, **found)

    def check(self) -> Identity:
        """Say who and where we are; CredentialsError when AWS does not know us."""
        return Identity(self.name, self._client.account(), self._client.region)

    def close(self) -> None:
        """Close connections; endpoints go on serving, and cost."""
        self._client.close()

    @property
    def native(self) -> Any:
        """The boto3 client of SageMaker, for what this library does not do."""
        return self._client.service("sagemaker")

    # Starting: validate, write nothing

    def put_revision(self, endpoint: EndpointSpec, revision: Revision) -> Ticket:
        """Ask for a revision to be ready; everything that can be seen to be wrong is refused, and nothing is written."""
        wanted_endpoint = SageMakerEndpointOptions.read(endpoint.options, "endpoint")
        kind = translate.instance_type(revision, self._provider.defaults)
        self._refuse_without_role()
        bundle, trusted = self._bundle(revision), self._trusted(revision)
        self._image(bundle, revision)
        entry.environment(bundle, trusted)  # refuses pickled content that nobody vouched for
        seen = self._provider.seen(endpoint.name)
        found = self._provider.config_of(seen) if seen else None
        scaling.refuse(revision, asynchronous=found.asynchronous if found else wanted_endpoint.asynchronous)
        if self._guard is not None:
            refuse_unguarded(revision, kind)
        if found is not None:
            self._refuse_beside(endpoint.name, found, revision)
        wanted = {"endpoint": to_json(endpoint), "revision": to_json(revision), "trust": list(trusted)}
        return Ticket(Action.PUT_REVISION, endpoint.name, wanted)

    def _refuse_beside(self, endpoint: str, found: Config, revision: Revision) -> None:
        """Refuse a revision that the endpoint, as it is, does not take."""
        if self._guard is not None:
            guarded.refuse_beside(self._provider, endpoint, found, revision)
            return
        refuse_guarded(endpoint, found)
        refuse_impostor(found, revision, endpoint)
        serverless = SageMakerOptions.read(revision.options, "revision").serverless
        _refuse_neighbours(endpoint, found, revision, serverless=serverless)

    def _refuse_without_role(self) -> None:
        if not self._provider.defaults.role:
            message = "backend 'sagemaker' needs the execution role that containers run as"
            raise ConfigurationError(message, hint="pass role='arn:aws:iam::…', or set MODELDEPLOY_SAGEMAKER_ROLE")

    def _bundle(self, revision: Revision) -> Bundle:
        from modeldeploy.packaging.bundle import Bundle

        return Bundle.open(Path(revision.model.uri), expect=revision.model.digest)

    def _image(self, bundle: Bundle, revision: Revision) -> images.Image:
        options = SageMakerOptions.read(revision.options, "revision")
        named = options.image or self._provider.defaults.image or None
        machine = translate.instance_type(revision, self._provider.defaults)
        gpu, arm = images.is_gpu(machine), images.is_arm(machine)
        return images.choose(bundle.manifest, region=self._client.region, image=named, gpu=gpu, arm=arm)

    def _trusted(self, revision: Revision) -> tuple[str, ...]:
        from modeldeploy.packaging.store import Store

        home = self._home or config.load().home
        digest = revision.model.digest
        return (digest,) if digest in Store(home / "store").trusted() else ()

    def set_traffic(self, endpoint: str, traffic: Traffic, *, expect: str | None = None) -> Ticket:
        """Ask for a whole new table."""
        self.capabilities.check_traffic(traffic, backend=self.name)
        _seen, found = self._existing(endpoint)
        if self._guard is None:
            refuse_guarded(endpoint, found)
            refuse_table(endpoint, traffic, found)
        else:
            guarded.refuse_unknown(self._provider, endpoint, found, traffic)
        return Ticket(Action.SET_TRAFFIC, endpoint, {"traffic": to_json(traffic), "expect": expect})

    def drop_revision(self, endpoint: str, revision: str) -> Ticket:
        """Ask for a revision to be gone; the last one takes the endpoint along."""
        state = self.observe(endpoint)
        if state is not None:
            refuse_used(endpoint, state.traffic, revision)
        return Ticket(Action.DROP_REVISION, endpoint, {"revision": revision})

    def drop_endpoint(self, endpoint: str) -> Ticket:
        """Ask for an endpoint to be gone, and all that was made for it."""
        self._asynchronous.pop(endpoint, None)
        seen = self._provider.seen(endpoint)
        if seen is not None and seen.status is not Status.DELETING:
            self._provider.refuse_foreign(seen)
        return Ticket(Action.DROP_ENDPOINT, endpoint)

    # Batch jobs

    @functools.cached_property
    def batch(self) -> TransformBatch:
        """The batch family, by Batch Transform."""
        from modeldeploy.backends.sagemaker.batch import TransformBatch

        home = self._home or config.load().home
        return TransformBatch(home, self._provider, terms=self._batch_terms, pace=self._pace)

    def put_job(self, job: BatchSpec) -> Ticket:
        """Ask for a table to be scored."""
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
        if self._guard is not None:
            return self._guarded(ticket, self._guard)
        if ticket.action is Action.PUT_REVISION:
            return PutRevision(self._tools, ticket, self._image)
        kinds = {
            Action.SET_TRAFFIC: SetTraffic,
            Action.DROP_REVISION: DropRevision,
            Action.DROP_ENDPOINT: DropEndpoint,
        }
        return kinds[ticket.action](self._tools, ticket)

    def _guarded(self, ticket: Ticket, guard: ServerGuard) -> Change:
        if ticket.action is Action.PUT_REVISION:
            return guarded.GuardedPut(self._tools, ticket, self._image)
        if ticket.action is Action.SET_TRAFFIC:
            return guarded.GuardedTraffic(self._tools, ticket, guard)
        return (guarded.GuardedDrop if ticket.action is Action.DROP_REVISION else DropEndpoint)(self._tools, ticket)

    def cancel(self, ticket: Ticket) -> Ticket:
        """Stop a batch job, or a revision that the service was not asked for yet; its update cannot be stopped."""
        if ticket.phase.ended:
            return ticket
        if ticket.action is Action.PUT_JOB:
            return self.batch.cancel(ticket)
        if ticket.action is not Action.PUT_REVISION:
            message = f"{ticket.action.value} cannot be stopped"
            raise UnsupportedError(message, capability="cancel", hint=_WAITS)
        if Step.of(ticket).name not in {START, SHIP, MODEL}:
            message = f"{ticket.action.value} of {ticket.target!r} was asked for already"
            raise UnsupportedError(message, capability="cancel", hint=_WAITS)
        revision = ticket.wanted["revision"]["id"]
        self._remove_begun(ticket.target, revision)
        return attrs.evolve(ticket, phase=Phase.CANCELLED)

    def _remove_begun(self, endpoint: str, revision: str) -> None:
        seen = self._provider.seen(endpoint)
        found = self._provider.config_of(seen) if seen else None
        if found is None or found.find(revision) is None:
            for name in list(self._provider.models_of(endpoint, revision)):
                self._provider.delete_model(name)
            self._provider.sweep(names.place(endpoint, revision))

    # Looking

    def observe(self, endpoint: str) -> EndpointState | None:
        """Read the endpoint as it is now."""
        seen = self._provider.seen(endpoint)
        if seen is None:
            return None
        found = self._provider.config_of(seen)
        if self._guard is not None:
            return guarded.state(self._provider, seen, found, url=self._url(endpoint))
        refuse_guarded(endpoint, found)
        return translate.state(seen, found, self._provider.revisions(found), url=self._url(endpoint))

    def _url(self, endpoint: str) -> str:
        base = self._client.service("sagemaker-runtime").meta.endpoint_url
        return f"{base}/endpoints/{endpoint}"

    def _existing(self, endpoint: str) -> tuple[Seen, Config]:
        seen = self._provider.seen(endpoint)
        if seen is None:
            raise not_there(endpoint)
        return seen, self._provider.config_of(seen)

    def endpoints(self) -> list[str]:
        """Name every endpoint of ours."""
        return sorted(self._provider.endpoints())

    def window(self, endpoint: str, revision: str, since: float, until: float, *, share: int | None = None) -> Window:  # noqa: ARG002 - it cannot tell
        """Count what the revision answered, as CloudWatch has it: by the minute, a minute or two late, pinned calls included."""
        self.capabilities.require("meters", backend=self.name)
        if not (names.is_name(endpoint) and names.is_name(revision)):
            return Window(revision, since, until)
        return metrics.window(self._client, endpoint, revision, since, until, slot=self._pace.slot)

    def lines(self, endpoint: str, revision: str, *, since: float, limit: int) -> Iterable[LogLine]:
        """Give the last lines that the containers of a revision wrote."""
        self.capabilities.require("logs", backend=self.name)
        if not (names.is_name(endpoint) and names.is_name(revision)):
            return []
        return logs.read(self._client, endpoint, revision, since=since, limit=limit)

    # Calling

    def invoke(self, endpoint: str, payload: Payload, *, revision: str | None = None, timeout: float) -> Payload:
        """Send one request by InvokeEndpoint; ``revision`` names the variant that is to answer it."""
        if not timeout > 0:
            message = f"timeout is {timeout!r}"
            raise InvalidRequestError(message, field="timeout", hint="use a number of seconds above 0")
        if revision is not None:
            self.capabilities.require("pinned_invoke", backend=self.name)
        way = self._queue if self._is_asynchronous(endpoint) else self._caller
        try:
            return way.call(endpoint, payload, revision=revision, timeout=timeout)
        except NotFoundError as error:
            self._refuse_unready(endpoint, error)
            raise

    def _refuse_unready(self, endpoint: str, error: NotFoundError) -> None:
        """Tell an endpoint that is not in service yet, of which the runtime says that there is none, from one that is not there."""
        seen = self._provider.seen(endpoint)
        if seen is not None and not (seen.status.serves and seen.production):
            message = f"endpoint {endpoint!r} is {seen.status.value} and takes no requests"
            raise UnavailableError(message, retry_after=self._pace.poll(0), context={"endpoint": endpoint}) from error

    def _is_asynchronous(self, endpoint: str) -> bool:
        """Whether requests go by way of the queue, which an endpoint is made for; whoever may only invoke is taken not to know."""
        known = self._asynchronous.get(endpoint)
        if known is None:
            try:
                seen = self._provider.seen(endpoint)
                found = self._provider.config(seen.config) if seen else None
            except AccessDeniedError:
                found = None
            known = found is not None and found.asynchronous
            if found is not None:
                self._asynchronous[endpoint] = known
        return known

    def _is_idempotent(self, endpoint: str, revision: str | None) -> bool:
        """Whether every model that may have had a request allows it to be sent once more."""
        state = self.observe(endpoint)
        asked = [each.revision for each in state.revisions if revision in {None, each.revision.id}] if state else []
        allowed = [SageMakerOptions.read(each.options, "revision").idempotent for each in asked]
        return bool(allowed) and all(allowed)

    # Rehearsal

    @classmethod
    def rehearsal(cls, **options: Any) -> Rehearsal:
        """Give a backend on a simulator in this process: no account, no network, real containers; ``close`` ends all of it.

        ``speed=`` says how many of the service's seconds pass in one of this machine's (60), ``image=`` what containers run (this
        library's model server). The other options are the simulator's, such as ``faults=`` and ``images=``.
        """
        from modeldeploy.backends.sagemaker.rehearsal import start

        return start(**options)


def _refuse_neighbours(endpoint: str, found: Config, revision: Revision, *, serverless: bool) -> None:
    """Refuse a revision beside others that it cannot stand beside."""
    if found.find(revision.id) is not None:
        return
    if serverless or found.serverless:
        message = f"endpoint {endpoint!r} cannot hold {revision.id!r} beside its revision: SageMaker runs a serverless variant alone"
        raise UnsupportedError(message, capability="split", hint="deploy it under another endpoint name")
    if len(found.variants) >= MOST_VARIANTS:
        message = f"endpoint {endpoint!r} has {len(found.variants)} revisions, and SageMaker takes no more"
        raise UnsupportedError(message, capability="split", hint="drop revisions that take no traffic")
    if found.shadow:
        message = f"endpoint {endpoint!r} copies requests, and SageMaker takes no third revision meanwhile"
        raise UnsupportedError(message, capability="shadow", hint="end the shadow first")
