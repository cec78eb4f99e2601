"""The Greengrass v2 backend: models on the core devices of an AWS account, by the same verbs as endpoints.

This object holds no state but what is named by its content. A revision is a version of the target's component and a thing group of the
devices that are to run it; a share is one attribute of that group, by which devices are moved into it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from modeldeploy import config
from modeldeploy.backends.cloud import rings
from modeldeploy.backends.cloud.naming import is_name
from modeldeploy.backends.greengrass import artifact, changes, names, recipe
from modeldeploy.backends.greengrass.capabilities import CAPABILITIES, MOST_REVISIONS
from modeldeploy.backends.greengrass.client import Access, Client
from modeldeploy.backends.greengrass.devices import Fleet
from modeldeploy.backends.greengrass.options import GreengrassOptions
from modeldeploy.backends.greengrass.pace import Pace
from modeldeploy.backends.greengrass.provider import Provider
from modeldeploy.backends.greengrass.recipe import Limits
from modeldeploy.backends.greengrass.settings import arguments
from modeldeploy.backends.greengrass.storage import Storage
from modeldeploy.errors import ConfigurationError, UnsupportedError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.spi import Identity
from modeldeploy.values.capability import Capabilities
from modeldeploy.values.codec import to_json
from modeldeploy.values.edge import Device
from modeldeploy.values.serving import EndpointSpec, EndpointState, Revision, RevisionState, Traffic
from modeldeploy.values.ticket import Action, Ticket

if TYPE_CHECKING:
    from modeldeploy.backends.greengrass.rehearsal import Rehearsal


class Greengrass:
    """Puts models on devices with the AWS IoT Greengrass v2 nucleus, the classic one or *lite*.

    ``region``, ``profile`` and ``session`` (of boto3) say who asks and where, by the caller's own chain of credentials; keys are never
    taken. ``bucket`` is where the devices fetch models; they need ``s3:GetObject`` there. ``thing_group`` names the group whose things are a
    target's devices, with ``{target}`` filled in. ``limits`` is how fast deployments spread and when the service stops them; ``tags`` are
    for all that is made.
    """

    name = "greengrass"

    def __init__(  # noqa: PLR0913 - what an account has, all optional and named
        self,
        *,
        region: str | None = None,
        bucket: str = "",
        thing_group: str = "{target}",
        profile: str | None = None,
        session: Any = None,
        endpoint_url: str | None = None,
        limits: Limits | None = None,
        tags: Mapping[str, str] | None = None,
        home: Path | str | None = None,
        pace: Pace | None = None,
        durable: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self.capabilities: Capabilities = attrs.evolve(CAPABILITIES, durable=durable)
        self._client = Client(Access(region, profile, session, endpoint_url))
        pace = pace or Pace()
        self._provider = Provider(
            client=self._client,
            storage=Storage(self._client, bucket),
            fleet=Fleet(self._client, thing_group, pace.offline, pace.silent),
            limits=limits or Limits(),
            pace=pace,
            home=Path(home) if home is not None else config.load().home,
            tags=dict(tags or {}),
            clock=clock,
        )

    @classmethod
    def configure(cls, home: Path, settings: Mapping[str, str]) -> Self:
        """Make one from settings: ``region``, ``bucket``, ``thing_group``, ``profile`` and others."""
        found = arguments(settings)
        if found.pop("rehearsal", False):
            from modeldeploy.backends.greengrass.rehearsal import shared

            return shared(home)  # type: ignore[return-value]  # a subclass
        return cls(home=home, **found)

    def check(self) -> Identity:
        """Say who and where we are; CredentialsError when AWS does not know us."""
        return Identity(self.name, self._client.account, self._client.region)

    def close(self) -> None:
        """Close connections; devices go on with what they run."""
        self._client.close()

    # Starting: validate, write nothing

    def put_revision(self, endpoint: EndpointSpec, revision: Revision) -> Ticket:
        """Ask for a revision to be there; everything that can be seen to be wrong is refused, and nothing is written."""
        if endpoint.options:
            message = f"backend 'greengrass' knows no endpoint option {min(endpoint.options)!r}"
            raise ConfigurationError(message, hint="it takes options of revisions: GreengrassOptions")
        GreengrassOptions.read(revision.options, "revision")
        if not self._provider.storage.bucket:
            message = "backend 'greengrass' needs the bucket from which the devices fetch models"
            raise ConfigurationError(message, hint="pass bucket=, or set MODELDEPLOY_GREENGRASS_BUCKET")
        artifact.refuse_pickled(Bundle.open(Path(revision.model.uri), expect=revision.model.digest))
        refuse_faults(self.recipe(endpoint.name, revision))
        seen = self._provider.seen(endpoint.name)
        if seen is not None:
            changes.refuse_impostor(seen, revision)
            if seen.find(revision.id) is None and len(seen.groups) >= MOST_REVISIONS:
                message = f"target {endpoint.name!r} has {len(seen.groups)} revisions"
                raise UnsupportedError(message, capability="split", hint="drop revisions that no device runs")
        return Ticket(
            Action.PUT_REVISION, endpoint.name, {"endpoint": to_json(endpoint), "revision": to_json(revision)}
        )

    def set_traffic(self, endpoint: str, traffic: Traffic, *, expect: str | None = None) -> Ticket:
        """Ask for another share of the devices for each revision."""
        self.capabilities.check_traffic(traffic, backend=self.name)
        seen = self._provider.existing(endpoint)
        rings.refuse_table(seen.target, seen.ranked, traffic, backend="greengrass")
        if not traffic.live:
            message = f"target {endpoint!r} cannot be left without a revision"
            raise UnsupportedError(
                message, capability="split", hint="delete the target; its devices keep what they run"
            )
        return Ticket(Action.SET_TRAFFIC, endpoint, {"traffic": to_json(traffic), "expect": expect})

    def drop_revision(self, endpoint: str, revision: str) -> Ticket:
        """Ask for a revision to be gone that no device is to run."""
        seen = self._provider.seen(endpoint)
        if seen is not None:
            rings.refuse_used(seen.target, seen.traffic, revision)
        return Ticket(Action.DROP_REVISION, endpoint, {"revision": revision})

    def drop_endpoint(self, endpoint: str) -> Ticket:
        """Ask for a target to be gone, with its deployments, components and archives; the devices keep what they run."""
        return Ticket(Action.DROP_ENDPOINT, endpoint)

    # Moving on

    def advance(self, ticket: Ticket) -> Ticket:
        """Do the next step of a ticket."""
        if ticket.phase.ended:
            return ticket
        return _CHANGES[ticket.action](self._provider, ticket).advance()

    def cancel(self, ticket: Ticket) -> Ticket:
        """Refuse: what devices have begun cannot be stopped, only replaced."""
        if ticket.phase.ended:
            return ticket
        self.capabilities.require("cancel", backend=self.name)
        return ticket

    # Looking

    def observe(self, endpoint: str) -> EndpointState | None:
        """Read the target as it is now."""
        seen = self._provider.seen(endpoint) if is_name(endpoint) else None
        if seen is None:
            return None
        revisions = tuple(RevisionState(self._provider.revision(each), ready=True) for each in reversed(seen.groups))
        url = f"{self._client.service('greengrassv2').meta.endpoint_url}#{names.component(endpoint)}"
        return EndpointState(endpoint, url, revisions, seen.traffic, seen.version, settled=True)

    def endpoints(self) -> list[str]:
        """Name every target of ours."""
        listed = self._client.pages("iot", "list_thing_groups", "thingGroups", namePrefixFilter="modeldeploy_")
        return sorted({found[0] for each in listed if (found := names.parse(each["groupName"]))})

    def devices(self, target: str) -> Sequence[Device]:
        """Read every device of a target, as Greengrass last heard of it."""
        return self._provider.fleet.read(self._provider.existing(target), self._clock())

    def enrol(self, target: str) -> int:
        """Give devices that joined the target since its last change the revision of their places; how many there were.

        Sends one request for each such device, which may be repeated. A change of the target does the same.
        """
        moves = list(self._provider.fleet.moves(self._provider.existing(target)))
        for move in moves:
            self._provider.fleet.move(move)
        return len(moves)

    def recipe(self, target: str, revision: Revision, *, url: str = "") -> dict[str, Any]:
        """Write the recipe of a revision, as it would be sent; sends nothing. ``url`` is that of its archive."""
        place = url or self._provider.storage.url(f"{names.place(target, revision.id)}{artifact.FILE}")
        return recipe.component(target, revision, place)

    @classmethod
    def rehearsal(cls, **options: Any) -> Rehearsal:
        """Give a backend on a simulated account in this process, with simulated devices; ``close`` ends it.

        ``speed=`` says how many of the service's seconds pass in one of this machine's. The other options are the simulator's, such as
        ``faults=``.
        """
        from modeldeploy.backends.greengrass.rehearsal import start

        return start(**options)


_CHANGES: Mapping[Action, type[changes.Change]] = {
    Action.PUT_REVISION: changes.PutRevision,
    Action.SET_TRAFFIC: changes.SetTraffic,
    Action.DROP_REVISION: changes.DropRevision,
    Action.DROP_ENDPOINT: changes.DropTarget,
}


def refuse_faults(document: Mapping[str, Any]) -> None:
    """Refuse a recipe that is not one; ConfigurationError names every fault."""
    from modeldeploy.simulate.greengrass.recipes import faults

    found = faults(document)
    if found:
        message = f"the recipe has {len(found)} faults: {'; '.join(found)}"
        raise ConfigurationError(message, hint="correct the options of the revision")
