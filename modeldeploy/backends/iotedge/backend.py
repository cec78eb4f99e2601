"""The IoT Edge backend: models on the devices of an Azure IoT hub, by the same verbs as endpoints.

This object holds no state but what is named by its content. A revision is an automatic deployment (a *configuration*) of its own, whose
target condition names the devices below a place. The newest has the highest priority, so a share is one number in one condition, and going
back is one request.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from modeldeploy.backends.cloud import rings
from modeldeploy.backends.cloud.naming import is_name
from modeldeploy.backends.iotedge import changes, manifest
from modeldeploy.backends.iotedge.capabilities import CAPABILITIES, MOST_REVISIONS
from modeldeploy.backends.iotedge.client import Access, Client
from modeldeploy.backends.iotedge.described import owner
from modeldeploy.backends.iotedge.devices import Fleet
from modeldeploy.backends.iotedge.manifest import AGENT_IMAGE, HUB_IMAGE, Defaults
from modeldeploy.backends.iotedge.options import IoTEdgeOptions
from modeldeploy.backends.iotedge.pace import Pace
from modeldeploy.backends.iotedge.sas import Policy
from modeldeploy.backends.iotedge.settings import CONNECTION_STRING, arguments
from modeldeploy.errors import ConfigurationError, InvalidRequestError, UnsupportedError
from modeldeploy.spi import Identity
from modeldeploy.values.capability import Capabilities
from modeldeploy.values.codec import to_json
from modeldeploy.values.edge import Device
from modeldeploy.values.names import check_name
from modeldeploy.values.serving import EndpointSpec, EndpointState, Revision, Traffic
from modeldeploy.values.ticket import Action, Ticket

if TYPE_CHECKING:
    from modeldeploy.backends.iotedge.rehearsal import Rehearsal

_FOREIGN_CHECK = 'check the condition with: az iot hub query -q "SELECT * FROM devices WHERE ..."'


class IoTEdge:
    """Puts models on devices with the Azure IoT Edge runtime.

    ``hub`` is the hub's host name; who asks is ``connection_string`` (of a shared access policy; also the variable
    ``IOTHUB_CONNECTION_STRING``) or ``credential`` of azure-identity, by default its usual chain. ``image`` is the container image of the
    module, with ``{model}``, ``{version}`` and ``{digest}`` filled in. ``devices`` is the condition that a target's devices fulfil, with
    ``{target}`` filled in. ``layered`` deploys over a base deployment of yours. ``registries`` are credentials for pulling images,
    ``environment`` is for every module.
    """

    name = "iotedge"

    def __init__(  # noqa: PLR0913 - what a hub has, all optional and named
        self,
        *,
        hub: str = "",
        connection_string: str | None = None,
        credential: Any = None,
        image: str = "",
        devices: str = "tags.fleet = '{target}'",
        module: str = "",
        layered: bool = False,
        agent_image: str = AGENT_IMAGE,
        hub_image: str = HUB_IMAGE,
        environment: Mapping[str, str] | None = None,
        registries: Mapping[str, Mapping[str, str]] | None = None,
        base_priority: int = 100,
        base_url: str = "",
        pace: Pace | None = None,
        durable: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self.capabilities: Capabilities = attrs.evolve(CAPABILITIES, durable=durable)
        self._pace = pace or Pace()
        if module:
            check_name(module, "module name")
        defaults = Defaults(
            image, devices, module, layered, agent_image, hub_image, dict(environment or {}), dict(registries or {}), base_priority,
        )  # fmt: skip
        self._client = Client(_access(hub, connection_string, credential, base_url))
        fleet = Fleet(self._client, defaults, self._pace.offline)
        self._tools = changes.Tools(self._client, defaults, fleet, self._pace, clock)

    @classmethod
    def configure(cls, home: Path, settings: Mapping[str, str]) -> Self:
        """Make one from settings: ``hub``, ``image``, ``devices``, ``module``, ``layered`` and others."""
        found = arguments(settings)
        if found.pop("rehearsal", False):
            from modeldeploy.backends.iotedge.rehearsal import shared

            return shared(home)  # type: ignore[return-value]  # a subclass
        return cls(**found)

    def check(self) -> Identity:
        """Say which hub we are at; CredentialsError when it does not know us."""
        self._client.check_condition("*")
        return Identity(self.name, self._client.access.host.partition(".")[0], self._client.access.host)

    def close(self) -> None:
        """Close connections; devices go on with what they run."""
        self._client.close()

    # Starting: validate, write nothing

    def put_revision(self, endpoint: EndpointSpec, revision: Revision) -> Ticket:
        """Ask for a revision to be there; everything that can be seen to be wrong is refused, and nothing is written."""
        if endpoint.options:
            message = f"backend 'iotedge' knows no endpoint option {min(endpoint.options)!r}"
            raise ConfigurationError(message, hint="it takes options of revisions: IoTEdgeOptions")
        IoTEdgeOptions.read(revision.options, "revision")
        self._refuse_wrong(endpoint.name, revision)
        seen = self._tools.seen(endpoint.name)
        if seen is not None:
            changes.refuse_impostor(seen, revision)
            if seen.find(revision.id) is None and len(seen.configs) >= MOST_REVISIONS:
                message = f"target {endpoint.name!r} has {len(seen.configs)} revisions"
                raise UnsupportedError(message, capability="split", hint="drop revisions that no device runs")
        return Ticket(
            Action.PUT_REVISION, endpoint.name, {"endpoint": to_json(endpoint), "revision": to_json(revision)}
        )

    def _refuse_wrong(self, target: str, revision: Revision) -> None:
        refuse_faults(manifest.content(target, revision, self._tools.defaults))
        said = self._client.check_condition(self._tools.defaults.devices.replace("{target}", target))
        if said:
            message = f"the hub does not understand devices={self._tools.defaults.devices!r}: {said}"
            raise InvalidRequestError(message, field="devices", hint=_FOREIGN_CHECK)

    def set_traffic(self, endpoint: str, traffic: Traffic, *, expect: str | None = None) -> Ticket:
        """Ask for another share of the devices for each revision."""
        self.capabilities.check_traffic(traffic, backend=self.name)
        seen = self._tools.existing(endpoint)
        rings.refuse_table(seen.target, seen.ranked, traffic, backend="iotedge")
        if not traffic.live:
            message = f"target {endpoint!r} cannot be left without a revision"
            raise UnsupportedError(
                message, capability="split", hint="delete the target; its devices keep what they run"
            )
        return Ticket(Action.SET_TRAFFIC, endpoint, {"traffic": to_json(traffic), "expect": expect})

    def drop_revision(self, endpoint: str, revision: str) -> Ticket:
        """Ask for a revision to be gone that no device is told to run."""
        seen = self._tools.seen(endpoint)
        if seen is not None:
            rings.refuse_used(seen.target, seen.traffic, revision)
        return Ticket(Action.DROP_REVISION, endpoint, {"revision": revision})

    def drop_endpoint(self, endpoint: str) -> Ticket:
        """Ask for a target to be gone, with all of its deployments; the devices go on with the modules that they have."""
        return Ticket(Action.DROP_ENDPOINT, endpoint)

    # Moving on

    def advance(self, ticket: Ticket) -> Ticket:
        """Do the next step of a ticket."""
        if ticket.phase.ended:
            return ticket
        return _CHANGES[ticket.action](self._tools, ticket).advance()

    def cancel(self, ticket: Ticket) -> Ticket:
        """Refuse: what is published cannot be stopped, only replaced."""
        if ticket.phase.ended:
            return ticket
        self.capabilities.require("cancel", backend=self.name)
        return ticket

    # Looking

    def observe(self, endpoint: str) -> EndpointState | None:
        """Read the target as it is now."""
        seen = self._tools.seen(endpoint) if is_name(endpoint) else None
        return seen.state(f"https://{self._client.access.host}") if seen else None

    def endpoints(self) -> list[str]:
        """Name every target of ours."""
        return sorted({name for each in self._client.configurations() if (name := owner(each))})

    def devices(self, target: str) -> Sequence[Device]:
        """Read every device of a target, as its edge agent last reported."""
        return self._tools.fleet.read(self._tools.existing(target), self._clock())

    def apply(self, device: str, target: str, revision: Revision) -> None:
        """Give a revision to one device alone, at once, for trying it out; the next deployment that aims at the device replaces it.

        Sends one request, which may be repeated. A device that automatic deployments aim at must not be given anything by hand.
        """
        content = manifest.content(target, revision, attrs.evolve(self._tools.defaults, layered=False))
        refuse_faults(content)
        self._client.apply(device, content)

    def manifest(self, target: str, revision: Revision) -> dict[str, Any]:
        """Write the deployment manifest of a revision, as it would be sent; sends nothing."""
        return manifest.content(target, revision, self._tools.defaults)

    @classmethod
    def rehearsal(cls, **options: Any) -> Rehearsal:
        """Give a backend on a simulated hub in this process, with simulated devices; ``close`` ends it.

        ``speed=`` says how many of the service's seconds pass in one of this machine's, ``image=`` what the modules are said to run. The
        other options are the simulator's, such as ``faults=``.
        """
        from modeldeploy.backends.iotedge.rehearsal import start

        return start(**options)


_CHANGES: Mapping[Action, type[changes.Change]] = {
    Action.PUT_REVISION: changes.PutRevision,
    Action.SET_TRAFFIC: changes.SetTraffic,
    Action.DROP_REVISION: changes.DropRevision,
    Action.DROP_ENDPOINT: changes.DropTarget,
}


def refuse_faults(content: Mapping[str, Any]) -> None:
    """Refuse a manifest that is not one; ConfigurationError names every fault."""
    from modeldeploy.simulate.iothub.schema import faults

    found = faults(content)
    if found:
        message = f"the deployment manifest has {len(found)} faults: {'; '.join(found)}"
        raise ConfigurationError(message, hint="correct the options of the revision or the backend")


def _access(hub: str, connection_string: str | None, credential: Any, base_url: str) -> Access:
    text = connection_string or ("" if credential is not None else os.environ.get(CONNECTION_STRING, ""))
    policy = Policy.parse(text) if text else None
    host = hub or (policy.host if policy else "")
    if not host:
        message = "backend 'iotedge' needs to know which hub"
        raise ConfigurationError(message, hint=f"pass hub='NAME.azure-devices.net', or set {CONNECTION_STRING}")
    if policy is not None and policy.host.lower() != host.lower():
        message = f"hub={host!r}, and the connection string is of {policy.host!r}"
        raise ConfigurationError(message, hint="leave one of them out")
    return Access(host, policy, credential, base_url)
