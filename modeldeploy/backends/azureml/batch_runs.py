"""Jobs of a batch endpoint as the runs of a batch job of ours: a folder of files in, a folder of files out."""

from __future__ import annotations

import enum
import json
from typing import Any

import attrs

from modeldeploy.backends.azureml.blobs import Blobs
from modeldeploy.backends.azureml.client import Client, none_if_missing
from modeldeploy.backends.azureml.errors import BusyError, of_answer, said
from modeldeploy.backends.azureml.invoke import PIN
from modeldeploy.backends.azureml.keys import AAD_SCOPE
from modeldeploy.backends.azureml.terms import Terms
from modeldeploy.backends.cloud.runs import Order
from modeldeploy.errors import BackendError, ConflictError, InvalidRequestError, NotFoundError, UnavailableError

_VERSION = {"api-version": "2024-01-01-preview"}
_CREATED = 201
SCORER = "scorer"
"""The one deployment of the endpoint of a job of ours."""
_TIMEOUT_S = 60.0


class Status(enum.StrEnum):
    """Where a job stands, in the service's words; one that is not known here goes on."""

    RUNNING = "Running"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELED = "Canceled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self is not Status.RUNNING


@attrs.frozen
class Seen:
    """A job as it is shown."""

    name: str
    status: Status
    reason: str = ""

    @property
    def blames_rows(self) -> bool:
        """Whether files that gave nothing are to blame: a job that completed without them has tried each of them."""
        return self.status is Status.COMPLETED

    @classmethod
    def of(cls, document: Any) -> Seen:
        """Read a job."""
        text = str(document["properties"].get("status", ""))
        status = Status(text) if text in set(Status) else Status.RUNNING
        reason = "some files could not be scored" if status is Status.COMPLETED else f"the service says {text}"
        return cls(str(document["name"]), status, reason)


@attrs.frozen
class EndpointRuns:
    """The jobs of the batch endpoint that was made for one job of ours."""

    client: Client
    blobs: Blobs
    terms: Terms
    word: str = "batch job"

    def prepare(self, order: Order) -> None:
        """Gather the files of the run in a folder of its own: the service takes a folder."""
        there = {each.key for each in self.blobs.below(f"{order.listing}/")}
        for name in order.names:
            key = f"{order.listing}/{name}"
            if key not in there:
                self.blobs.put(key, self.blobs.get(f"{order.source}/{name}"), kind="application/jsonlines")

    def create(self, order: Order) -> Seen:
        """Ask for a job under the run's own name, so that a second request for it is refused."""
        asked = {
            "name": order.name,
            "inputData": {"rows": {"jobInputType": "UriFolder", "uri": self.blobs.uri(order.listing)}},
            "outputData": {"score": {"jobOutputType": "UriFolder", "uri": self.blobs.uri(order.output)}},
        }
        document = self._post(self._address(order.model), asked)
        if document is None:
            found = self.see(order.name)
            if found is None:
                message = f"there is a batch job {order.name!r} for other work"
                raise ConflictError(message, hint="the next number is tried")
            return found
        if document["name"] != order.name:
            message = f"the service calls job {order.name!r} {document['name']!r}, and so it would not be found again"
            raise BackendError(message, hint="cancel it, and score the table on this machine: backend='local'")
        return Seen.of(document)

    def _address(self, endpoint: str) -> str:
        found = self.client.call(lambda sdk: sdk.batch_endpoints.get(endpoint), endpoint=endpoint)
        if not found.scoring_uri:
            message = f"batch endpoint {endpoint!r} has no address yet"
            raise UnavailableError(message)
        return str(found.scoring_uri)

    def _post(self, address: str, properties: dict[str, Any]) -> Any:
        """Send the request that begins a job; None when there is one of this name."""
        import urllib3

        token = self.client.credential.get_token(AAD_SCOPE).token
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json", PIN: SCORER}
        body = json.dumps({"properties": properties}).encode()
        try:
            with urllib3.PoolManager(retries=False) as pool:
                answer = pool.request("POST", address, body=body, headers=headers, timeout=_TIMEOUT_S, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            message = f"the batch endpoint gave no answer: {type(error).__name__}"
            raise UnavailableError(message) from error
        if answer.status == _CREATED:
            return json.loads(answer.data)
        refused = of_answer(said(_document(answer.data), answer.status), {})
        if isinstance(refused, BusyError | ConflictError):
            return None
        raise refused

    def see(self, name: str) -> Seen | None:
        """Look at a job; None when there is none."""
        path = f"{self.client.place}/jobs/{name}"
        document = none_if_missing(lambda: self.client.ask("GET", path, query=_VERSION))
        return Seen.of(document) if document else None

    def stop(self, name: str) -> None:
        """Ask a job to stop; one that is gone or has ended is fine."""
        try:
            self.client.ask("POST", f"{self.client.place}/jobs/{name}/cancel", query=_VERSION)
        except (NotFoundError, InvalidRequestError):
            return

    def lines(self, name: str) -> list[str]:
        """Give the last lines of a job's log: none, for they lie in a container that this library does not read."""
        del name
        return []


def _document(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
