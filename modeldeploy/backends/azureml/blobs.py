"""The workspace's own blob store, as the place of a job's rows and answers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import attrs

from modeldeploy.backends.azureml.client import Client
from modeldeploy.backends.azureml.errors import translated

STORE = "workspaceblobstore"
"""The datastore that every workspace has."""
_SECRET_S = 900.0
"""How long a signature of the datastore is used."""


@attrs.frozen
class Stored:
    """A blob as a listing shows it."""

    key: str


class Blobs:
    """The container of a datastore; keys are names of blobs."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._made: Any = None
        self._at = float("-inf")

    @staticmethod
    def uri(key: str) -> str:
        """Give the address of a key as jobs name it."""
        return f"azureml://datastores/{STORE}/paths/{key}"

    @property
    def _container(self) -> Any:
        """The container's client, made anew before the secret of the datastore can have ended."""
        if time.monotonic() - self._at > _SECRET_S:
            self.close()
            self._made, self._at = self._connect(), time.monotonic()
        return self._made

    def _connect(self) -> Any:
        from azure.ai.ml.constants import _common
        from azure.storage.blob import ContainerClient

        store = self._client.call(lambda sdk: sdk.datastores.get(STORE, include_secrets=True))
        # The SDK's own template, so that what it uploads and what is read here is in the same place.
        address = _common.STORAGE_ACCOUNT_URLS["AzureBlob"].format(store.account_name, store.endpoint)
        secret = getattr(store.credentials, "sas_token", None) or getattr(store.credentials, "account_key", None)
        return ContainerClient(
            address, store.container_name, credential=secret or self._client.credential, retry_total=0
        )

    def put(self, key: str, data: bytes, *, kind: str = "application/octet-stream") -> None:
        """Write a blob whole."""
        from azure.storage.blob import ContentSettings

        with translated(blob=key):
            self._container.upload_blob(key, data, overwrite=True, content_settings=ContentSettings(content_type=kind))

    def get(self, key: str) -> bytes:
        """Read a blob whole."""
        with translated(blob=key):
            data: bytes = self._container.download_blob(key).readall()
        return data

    def below(self, prefix: str) -> Iterator[Stored]:
        """Give the blobs below a prefix."""
        with translated(blob=prefix):
            names = list(self._container.list_blob_names(name_starts_with=prefix))
        yield from map(Stored, names)

    def delete(self, keys: list[str]) -> None:
        """Delete blobs; those that are gone are no error."""
        from azure.core.exceptions import ResourceNotFoundError

        for key in keys:
            with translated(blob=key), contextlib.suppress(ResourceNotFoundError):
                self._container.delete_blob(key)

    def close(self) -> None:
        """Close connections."""
        if self._made is not None:
            self._made.close()
        self._made, self._at = None, float("-inf")
