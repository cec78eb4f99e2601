"""Online endpoints: create, update, show, list, delete, keys and tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import attrs

from modeldeploy.simulate.azureml.endpoint import (
    CREATING,
    DELETING,
    FAILED,
    IN_PROGRESS,
    SUCCEEDED,
    UPDATING,
    Endpoint,
    endpoint_told,
    new_key,
)
from modeldeploy.simulate.azureml.errors import ServiceError, bad_request, conflict, not_found
from modeldeploy.simulate.azureml.exchange import Answer, Json, Request, answer
from modeldeploy.simulate.azureml.lro import Operations
from modeldeploy.simulate.azureml.memory import Memory
from modeldeploy.simulate.azureml.resources import Born
from modeldeploy.simulate.azureml.tokens import Tokens
from modeldeploy.simulate.azureml.world import World

NAME = re.compile(r"[a-zA-Z](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?")
_WHOLE = 100
_MOST_MIRRORED = 50


@attrs.define(eq=False)
class Endpoints:
    """All online endpoints of the workspace."""

    world: World
    operations: Operations
    tokens: Tokens
    memory: Memory
    items: dict[str, Endpoint] = attrs.field(factory=dict)
    ended: Callable[[Endpoint], None] = lambda _endpoint: None
    """Ends what runs for an endpoint that is deleted."""
    taken: Callable[[str], bool] = lambda _name: False
    """Whether a batch endpoint has a name: they share the region's."""
    _held: dict[str, float] = attrs.field(factory=dict)
    """Until when names of deleted endpoints cannot be taken."""

    def get(self, name: str) -> Endpoint:
        """Find an endpoint; the service's error when it is not there."""
        with self.world.lock:
            found = self.items.get(name.lower())
        if found is None:
            raise not_found(f"Online endpoint {name} could not be found in workspace {self.world.site.workspace}.")
        return found

    def put(self, request: Request, endpoint: str) -> Answer:
        """Create an endpoint, or replace what is asked of it."""
        asked = request.json()
        with self.world.lock:
            found = self.items.get(endpoint.lower())
            _check(endpoint, asked, found)
            self.memory.keep(None if found is None else endpoint_told(self.world, found), endpoint.lower())
            if found is None:
                self._check_held(endpoint)
                found = Endpoint(endpoint, asked, Born.now(self.world))
                self.items[endpoint.lower()] = found
                return self._begin(found, CREATING, asked, self.world.timings.endpoint)
            check_free(found)
            return self._begin(found, UPDATING, asked, self.world.timings.traffic)

    def _check_held(self, name: str) -> None:
        if self.taken(name) or self._held.get(name.lower(), 0.0) > self.world.clock.now():
            raise bad_request("There is already an endpoint with this name", "InferencingClientCallFailed")

    def _begin(self, endpoint: Endpoint, state: str, asked: Json, takes: float) -> Answer:
        endpoint.state = state

        def work() -> None:
            self.world.wait(takes)
            with self.world.lock:
                self._apply(endpoint, asked)

        operation = self.operations.begin(
            "OnlineEndpoints_CreateOrUpdate",
            state,
            work,
            failed=_fail(endpoint),
            result=lambda: endpoint_told(self.world, endpoint),
        )
        endpoint.operation = self.operations.status_url(operation)
        return answer(201, endpoint_told(self.world, endpoint), self.operations.headers(operation))

    def _apply(self, endpoint: Endpoint, asked: Json) -> None:
        properties = asked["properties"]
        endpoint.asked = asked
        endpoint.traffic = dict(properties.get("traffic") or {})
        endpoint.mirror = dict(properties.get("mirrorTraffic") or {})
        endpoint.born.modified = self.world.clock.now()
        endpoint.state = SUCCEEDED
        endpoint.settled = self.world.clock.after(self.world.faults.settling_s)

    def show(self, _request: Request, endpoint: str) -> Answer:
        """Answer an endpoint."""
        with self.world.lock:
            stale, told = self.memory.old(endpoint.lower())
            if stale:
                return _as_it_was(told, endpoint)
            found = self.get(endpoint)
            return answer(200, endpoint_told(self.world, found))

    def page(self, _request: Request) -> Answer:
        """Answer all endpoints."""
        with self.world.lock:
            return answer(200, {"value": [endpoint_told(self.world, each) for each in self.items.values()]})

    def delete(self, _request: Request, endpoint: str) -> Answer:
        """Delete an endpoint with all its deployments; 204 when there is none."""
        with self.world.lock:
            found = self.items.get(endpoint.lower())
            if found is None:
                return Answer(204)
            check_free(found)
            self.memory.keep(endpoint_told(self.world, found), endpoint.lower())
            found.state = DELETING
        operation = self.operations.begin(
            "OnlineEndpoints_Delete", DELETING, lambda: self._delete(found), failed=_fail(found)
        )
        return Answer(202, {"Content-Type": "application/json", **self.operations.headers(operation)}, b"null")

    def _delete(self, endpoint: Endpoint) -> None:
        self.world.wait(self.world.timings.delete)
        self.ended(endpoint)
        with self.world.lock:
            self.items.pop(endpoint.name.lower(), None)
            self._held[endpoint.name.lower()] = self.world.clock.after(self.world.faults.held_s)

    def keys(self, _request: Request, endpoint: str) -> Answer:
        """Answer the keys of an endpoint that takes keys."""
        found = self._with_auth(endpoint, "Key")
        with self.world.lock:
            return answer(200, {"primaryKey": found.keys["primary"], "secondaryKey": found.keys["secondary"]})

    def regenerate(self, request: Request, endpoint: str) -> Answer:
        """Begin to replace one of the keys."""
        found = self._with_auth(endpoint, "Key")
        asked = request.json()
        which = str(asked.get("keyType", "Primary")).lower()
        if which not in found.keys:
            raise bad_request(f"{which} is not a type of keys.")

        def work() -> None:
            self.world.wait(self.world.timings.keys)
            with self.world.lock:
                # The SDK sends the key that is to be replaced as the value (azure-ai-ml 1.35.2), and gets another.
                given = asked.get("keyValue")
                found.keys[which] = new_key() if given in {None, found.keys[which]} else str(given)

        operation = self.operations.begin("OnlineEndpoints_RegenerateKeys", UPDATING, work, failed=lambda _error: None)
        return Answer(202, {"Content-Type": "application/json", **self.operations.headers(operation)}, b"null")

    def token(self, _request: Request, endpoint: str) -> Answer:
        """Answer a token of an endpoint that takes the workspace's tokens."""
        found = self._with_auth(endpoint, "AMLToken")
        token = self.tokens.issue(f"endpoint:{found.name}", self.world.clock.after(self.world.timings.token))
        told = {
            "accessToken": token.text,
            "tokenType": "Bearer",
            "expiryTimeUtc": int(token.until),
            "refreshAfterTimeUtc": int(token.refresh),
        }
        return answer(200, told)

    def _with_auth(self, name: str, mode: str) -> Endpoint:
        found = self.get(name)
        if found.auth_mode.lower() != mode.lower():
            raise bad_request(f"The endpoint {name} has the authentication mode {found.auth_mode}, not {mode}.")
        return found


def _as_it_was(told: Json | None, name: str) -> Answer:
    if told is None:
        raise not_found(f"Online endpoint {name} could not be found.")
    return answer(200, told)


def check_free(endpoint: Endpoint) -> None:
    """Raise the service's error while an operation of the endpoint, or of one of its deployments, goes on."""
    if endpoint.state in IN_PROGRESS:
        raise conflict(
            f"The endpoint {endpoint.name} cannot be changed because it is in {endpoint.state} provisioning state."
        )
    for deployment in endpoint.deployments.values():
        if deployment.state in IN_PROGRESS:
            raise conflict(
                f"The endpoint {endpoint.name} cannot be changed because its deployment {deployment.name} is in {deployment.state} "
                "provisioning state."
            )


def _fail(endpoint: Endpoint) -> Callable[[ServiceError], None]:
    def failed(_error: ServiceError) -> None:
        endpoint.state = FAILED

    return failed


def check_name(name: str) -> None:
    """Raise the service's error for a name of an endpoint or a deployment that cannot be."""
    if not NAME.fullmatch(name) or not 3 <= len(name) <= 32:  # noqa: PLR2004 - the documented bounds
        raise bad_request(
            f"The name {name} is not valid: 3 to 32 letters, digits and hyphens; a letter first, no hyphen last."
        )


def _check(name: str, asked: Json, found: Endpoint | None) -> None:
    check_name(name)
    properties = asked.get("properties") or {}
    if properties.get("authMode") is None:
        raise bad_request("The property authMode is required.")
    there = frozenset() if found is None else frozenset(found.deployments)
    _check_traffic(properties, there)


def _check_traffic(properties: Mapping[str, Json], there: frozenset[str]) -> None:
    traffic, mirror = properties.get("traffic") or {}, properties.get("mirrorTraffic") or {}
    for name, percent in (*traffic.items(), *mirror.items()):
        if not isinstance(percent, int) or not 0 <= percent <= _WHOLE:
            raise bad_request(f"The traffic of {name} is {percent}: whole percents from 0 to 100 are possible.")
        if name not in there:
            raise bad_request(f"The deployment {name} in the traffic of the endpoint does not exist.")
    if sum(traffic.values()) not in {0, _WHOLE}:
        raise bad_request(f"The traffic sums up to {sum(traffic.values())}: 0 and 100 are possible.")
    _check_mirror(traffic, mirror)


def _check_mirror(traffic: Mapping[str, int], mirror: Mapping[str, int]) -> None:
    shadows = [name for name, percent in mirror.items() if percent]
    if len(shadows) > 1 or sum(mirror.values()) > _MOST_MIRRORED:
        raise bad_request("Traffic can be mirrored to one deployment, and up to 50 percent of it.")
    if any(traffic.get(name) for name in shadows):
        raise bad_request(f"The deployment {shadows[0]} has live traffic, so that none can be mirrored to it.")
