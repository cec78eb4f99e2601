"""The Azure ML backend: managed online endpoints of a workspace, by the same verbs as on this machine.

This object holds no state but what is named by its content. What is wanted lies in tickets, what is there is read from the service. A
revision is a deployment of its own, so traffic is a table of whole percents and a rollback is one write.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from modeldeploy import config as configuration
from modeldeploy.backends.azureml import entry, logs, metrics, scaling, settings, translate
from modeldeploy.backends.azureml.capabilities import CAPABILITIES, MOST_DEPLOYMENTS
from modeldeploy.backends.azureml.change import Change, Tools, not_there
from modeldeploy.backends.azureml.client import Access, Client, Cloud
from modeldeploy.backends.azureml.described import Seen, State
from modeldeploy.backends.azureml.drop import DropEndpoint, DropRevision, refuse_used
from modeldeploy.backends.azureml.entry import Environment
from modeldeploy.backends.azureml.invoke import Caller, check_timeout
from modeldeploy.backends.azureml.options import AzureMLEndpointOptions, AzureMLOptions, check_auth_mode
from modeldeploy.backends.azureml.pace import Pace
from modeldeploy.backends.azureml.provider import Provider
from modeldeploy.backends.azureml.put import BEFORE_DEPLOYMENT, PutRevision, refuse_impostor
from modeldeploy.backends.azureml.settings import arguments
from modeldeploy.backends.azureml.terms import Terms
from modeldeploy.backends.azureml.traffic import SetTraffic, refuse_table
from modeldeploy.backends.azureml.translate import DEFAULT_INSTANCE, Defaults
from modeldeploy.backends.cloud.naming import is_name
from modeldeploy.backends.cloud.steps import Step
from modeldeploy.errors import UnsupportedError
from modeldeploy.spi import Identity
from modeldeploy.values.batch import BatchSpec, BatchState
from modeldeploy.values.capability import Capabilities
from modeldeploy.values.codec import to_json
from modeldeploy.values.metrics import Window
from modeldeploy.values.serving import EndpointSpec, EndpointState, LogLine, Payload, Revision, Traffic
from modeldeploy.values.ticket import Action, Phase, Ticket

if TYPE_CHECKING:
    from modeldeploy.backends.azureml.batch import EndpointBatch
    from modeldeploy.backends.azureml.rehearsal import Rehearsal
    from modeldeploy.packaging.bundle import Bundle

_WAITS = "the service stops no operation; it ends by itself, and the opposite can be asked for then"


class AzureML:
    """Serves on Azure Machine Learning.

    ``subscription_id``, ``resource_group`` and ``workspace`` say where; what is left out is read from the nearest ``config.json`` (or the one
    that ``config`` names). ``credential`` is one of azure-identity (its default chain when left out); keys are never taken.
    ``instance_type`` and ``image`` are also options of a revision, ``auth_mode`` (``key``, ``aml_token``, ``aad_token``) of an endpoint.
    ``tags`` are put on all that is made; ``batch_terms`` say on which cluster batch jobs run.
    """

    name = "azureml"

    def __init__(  # noqa: PLR0913 - what a workspace has, all optional and named
        self,
        *,
        subscription_id: str = "",
        resource_group: str = "",
        workspace: str = "",
        credential: Any = None,
        config: Path | str | None = None,
        instance_type: str = DEFAULT_INSTANCE,
        auth_mode: str = "key",
        image: str = "",
        tags: Mapping[str, str] | None = None,
        home: Path | str | None = None,
        pace: Pace | None = None,
        cloud: Cloud | None = None,
        batch_terms: Terms | None = None,
        capabilities: Capabilities = CAPABILITIES,
    ) -> None:
        named = {"subscription_id": subscription_id, "resource_group": resource_group, "workspace": workspace}
        self._where = settings.workspace(named, config)
        self._pace = pace or Pace()
        self.capabilities = attrs.evolve(
            capabilities, meter_resolution=self._pace.slot, meter_delay=self._pace.settling
        )
        self._home = Path(home) if home is not None else None
        self._batch_terms = batch_terms or Terms()
        self._client = Client(Access(**self._where, credential=credential, cloud=cloud))
        defaults = Defaults(instance_type, check_auth_mode(auth_mode), image, dict(tags or {}))
        self._provider = Provider(self._client, defaults)
        self._tail = logs.Tail(self._client, self._pace.grace)
        self._tools = Tools(self._provider, self._pace, self._tail.of)
        self._caller = Caller(self._client, self._provider.seen, self._tail.of, self._is_idempotent)

    @classmethod
    def configure(cls, home: Path, settings: Mapping[str, str]) -> Self:
        """Make one from settings: ``subscription_id``, ``resource_group``, ``workspace``, ``config``, ``instance_type`` and others."""
        found = arguments(settings)
        if found.pop("rehearsal", False):
            from modeldeploy.backends.azureml.rehearsal import shared

            return shared(home)  # type: ignore[return-value]  # a subclass
        return cls(home=home, **found)

    def check(self) -> Identity:
        """Say where we are; CredentialsError when Azure does not know us, NotFoundError when there is no such workspace."""
        found = self._client.call(lambda sdk: sdk.workspaces.get(self._where["workspace"]))
        return Identity(self.name, self._where["subscription_id"], f"{found.location}/{found.name}")

    def close(self) -> None:
        """Close connections; endpoints go on serving, and cost."""
        self._caller.close()
        if "batch" in self.__dict__:
            self.batch.close()
        self._client.close()

    @property
    def native(self) -> Any:
        """The ``MLClient`` of azure-ai-ml, for what this library does not do; its ``begin_*`` begin and do not poll."""
        return self._client.sdk

    # Starting: validate, write nothing

    def put_revision(self, endpoint: EndpointSpec, revision: Revision) -> Ticket:
        """Ask for a revision to be ready; everything that can be seen to be wrong is refused, and nothing is written."""
        settings.refuse_incomplete(self._where)
        AzureMLEndpointOptions.read(endpoint.options, "endpoint")
        translate.instance_type(revision, self._provider.defaults)
        translate.record(revision)
        scaling.refuse(revision)
        bundle = self._bundle(revision)
        self._environment(bundle, revision)
        trusted = self._trusted(revision)
        entry.variables(bundle, trusted)
        seen = self._provider.seen(endpoint.name)
        if seen is not None and seen.state is not State.DELETING:
            self._provider.refuse_foreign(seen)
            refuse_impostor(seen, revision)
            _refuse_full(seen, revision)
        wanted = {"endpoint": to_json(endpoint), "revision": to_json(revision), "trust": list(trusted)}
        return Ticket(Action.PUT_REVISION, endpoint.name, wanted)

    def _bundle(self, revision: Revision) -> Bundle:
        from modeldeploy.packaging.bundle import Bundle

        return Bundle.open(Path(revision.model.uri), expect=revision.model.digest)

    def _environment(self, bundle: Bundle, revision: Revision) -> Environment:
        options = AzureMLOptions.read(revision.options, "revision")
        image = options.image or ("" if options.base_image else self._provider.defaults.image)
        return entry.contained(image) if image else entry.generated(bundle, options.base_image)

    def _trusted(self, revision: Revision) -> tuple[str, ...]:
        from modeldeploy.packaging.store import Store

        home = self._home or configuration.load().home
        digest = revision.model.digest
        return (digest,) if digest in Store(home / "store").trusted() else ()

    def set_traffic(self, endpoint: str, traffic: Traffic, *, expect: str | None = None) -> Ticket:
        """Ask for a whole new table, in whole percents: the SDK drops fractions in silence, and so they never reach it."""
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
            refuse_used(endpoint, seen.traffic, revision)
        return Ticket(Action.DROP_REVISION, endpoint, {"revision": revision})

    def drop_endpoint(self, endpoint: str) -> Ticket:
        """Ask for an endpoint to be gone with its deployments; models and environments stay registered."""
        seen = self._provider.seen(endpoint)
        if seen is not None and seen.state is not State.DELETING:
            self._provider.refuse_foreign(seen)
        return Ticket(Action.DROP_ENDPOINT, endpoint)

    # Batch jobs

    @functools.cached_property
    def batch(self) -> EndpointBatch:
        """The batch family, by batch endpoints."""
        from modeldeploy.backends.azureml.batch import EndpointBatch

        home = self._home or configuration.load().home
        return EndpointBatch(home, self._provider, terms=self._batch_terms, pace=self._pace)

    def put_job(self, job: BatchSpec) -> Ticket:
        """Ask for a table to be scored."""
        settings.refuse_incomplete(self._where)
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
            return PutRevision(self._tools, ticket, self._environment)
        kinds = {
            Action.SET_TRAFFIC: SetTraffic,
            Action.DROP_REVISION: DropRevision,
            Action.DROP_ENDPOINT: DropEndpoint,
        }
        return kinds[ticket.action](self._tools, ticket)

    def cancel(self, ticket: Ticket) -> Ticket:
        """Stop a batch job, or a revision that the service was not asked for yet; its operations cannot be stopped."""
        if ticket.phase.ended:
            return ticket
        if ticket.action is Action.PUT_JOB:
            return self.batch.cancel(ticket)
        begun = Step.of(ticket).name not in BEFORE_DEPLOYMENT
        if ticket.action is not Action.PUT_REVISION or begun:
            message = f"{ticket.action.value} of {ticket.target!r} cannot be stopped"
            raise UnsupportedError(message, capability="cancel", hint=_WAITS)
        return attrs.evolve(ticket, phase=Phase.CANCELLED, note="nothing runs of it; what was registered stays")

    # Looking

    def observe(self, endpoint: str) -> EndpointState | None:
        """Read the endpoint as it is now."""
        seen = self._provider.seen(endpoint)
        if seen is None:
            return None
        self._provider.refuse_foreign(seen)
        return translate.state(seen, self._provider.revisions(seen))

    def endpoints(self) -> list[str]:
        """Name every endpoint of ours."""
        return sorted(self._provider.endpoints())

    def window(self, endpoint: str, revision: str, since: float, until: float, *, share: int | None = None) -> Window:  # noqa: ARG002 - it cannot tell
        """Count what the revision answered, as Azure Monitor has it: by the minute, a minute or two late, pinned calls included."""
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
        """Send one request to the scoring address; ``revision`` names the deployment that is to answer it."""
        check_timeout(timeout)
        return self._caller.call(endpoint, payload, revision=revision, timeout=timeout)

    def _is_idempotent(self, endpoint: str, revision: str | None) -> bool:
        """Whether every model that may have had a request allows it to be sent once more."""
        state = self.observe(endpoint)
        asked = [each.revision for each in state.revisions if revision in {None, each.revision.id}] if state else []
        allowed = [AzureMLOptions.read(each.options, "revision").idempotent for each in asked]
        return bool(allowed) and all(allowed)

    # Rehearsal

    @classmethod
    def rehearsal(cls, **options: Any) -> Rehearsal:
        """Give a backend on a simulator in this process: no subscription, no network, real model servers; ``close`` ends all of it.

        ``speed=`` says how many of the service's seconds pass in one of this machine's (120), ``image=`` a container to run in place of the
        generated script. The other options are the simulator's, such as ``faults=`` and ``images=``.
        """
        from modeldeploy.backends.azureml.rehearsal import start

        return start(**options)


def _refuse_full(seen: Seen, revision: Revision) -> None:
    """Refuse a revision for which the endpoint has no room."""
    if seen.find(revision.id) is None and len(seen.deployments) >= MOST_DEPLOYMENTS:
        message = f"endpoint {seen.name!r} has {len(seen.deployments)} deployments, and Azure ML takes no more"
        raise UnsupportedError(message, capability="split", hint="drop revisions that take no traffic")
