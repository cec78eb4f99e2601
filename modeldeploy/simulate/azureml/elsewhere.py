"""A storage account that is not the simulator's own: Azurite, for the semantics of the real thing."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import attrs

from modeldeploy.simulate.azureml.blobs import target


@attrs.frozen
class Account:
    """A storage account: the URL with its name as the path, its name, and its key in base64."""

    url: str
    name: str
    key: str = attrs.field(repr=False)


@attrs.define(eq=False)
class Elsewhere:
    """Containers and block blobs of such an account, as the simulator itself needs them."""

    account: Account

    def has(self, container: str) -> bool:
        """Say whether a container is there."""
        with self._client() as client:
            return bool(client.get_container_client(container).exists())

    def create(self, container: str, now: float) -> None:
        """Create a container."""
        from azure.core.exceptions import ResourceExistsError

        del now
        with self._client() as client:
            try:
                client.create_container(container)
            except ResourceExistsError:
                return

    def write(self, container: str, name: str, stream: IO[bytes], now: float) -> None:
        """Put a blob in place of the one of its name."""
        del now
        with self._client() as client:
            client.get_blob_client(container, name).upload_blob(stream, overwrite=True)

    def fetch(self, container: str, prefix: str, into: Path) -> int:
        """Copy the blob of that name, or all below it, and say how many."""
        folder, count = prefix.rstrip("/"), 0
        with self._client() as client:
            there = client.get_container_client(container)
            for name in list(there.list_blob_names(name_starts_with=folder)):
                if name == folder or name.startswith(f"{folder}/"):
                    place = target(name, folder, into)
                    place.write_bytes(there.download_blob(name).readall())
                    count += 1
        return count

    def _client(self) -> Any:
        from azure.core.credentials import AzureNamedKeyCredential
        from azure.storage.blob import BlobServiceClient

        credential = AzureNamedKeyCredential(self.account.name, self.account.key)
        return BlobServiceClient(self.account.url, credential=credential, retry_total=2)
