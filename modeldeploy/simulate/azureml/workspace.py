"""The workspace itself, its datastores and their secrets, and where code is uploaded to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from modeldeploy.simulate.azureml import resources
from modeldeploy.simulate.azureml.errors import not_found
from modeldeploy.simulate.azureml.exchange import Answer, Json, Request, answer
from modeldeploy.simulate.azureml.resources import Born
from modeldeploy.simulate.azureml.sas import Key
from modeldeploy.simulate.azureml.storage import blob_url
from modeldeploy.simulate.azureml.world import NAMESPACE, World

STORE, ARTIFACTS = "workspaceblobstore", "workspaceartifactstore"
# Of this machine, for uploads take its time.
_HOUR = 3_600.0
_ALL = "rwdl"


@attrs.define(eq=False)
class Workspace:
    """What there is before anybody does anything."""

    world: World
    key: Key
    born: Born
    create_container: Callable[[str], None]

    def show(self, _request: Request) -> Answer:
        """Answer the workspace."""
        site = self.world.site
        properties: Json = {
            "workspaceId": site.workspace_id,
            "description": "",
            "friendlyName": site.workspace,
            "storageAccount": f"{site.group}/providers/Microsoft.Storage/storageAccounts/{site.account}",
            "keyVault": f"{site.group}/providers/Microsoft.KeyVault/vaults/{site.account}",
            "applicationInsights": f"{site.group}/providers/Microsoft.Insights/components/{site.account}",
            "containerRegistry": None,
            "provisioningState": "Succeeded",
            "discoveryUrl": f"{self.world.url}/discovery",
            "mlFlowTrackingUri": f"azureml://{site.region}.api.azureml.ms/mlflow/v1.0{site.id}",
            "publicNetworkAccess": "Enabled",
            "hbiWorkspace": False,
            "v1LegacyMode": False,
            "tenantId": site.tenant,
        }
        told = {
            "id": site.id,
            "name": site.workspace,
            "type": f"{NAMESPACE}/workspaces",
            "location": site.region,
            "tags": {},
            "kind": "Default",
            "sku": {"name": "Basic", "tier": "Basic"},
            "identity": {"type": "SystemAssigned", "principalId": site.workspace_id, "tenantId": site.tenant},
            "properties": properties,
            "systemData": self.born.system_data(),
        }
        return answer(200, told)

    def discovery(self, _request: Request) -> Answer:
        """Answer where the other services of the workspace are: all of them are here."""
        return answer(200, dict.fromkeys(("api", "history", "catalog", "experimentation", "studio"), self.world.url))

    def datastores(self, _request: Request) -> Answer:
        """Answer all datastores."""
        return answer(200, {"value": [self._datastore(name) for name in self._stores]})

    def datastore(self, _request: Request, name: str) -> Answer:
        """Answer a datastore."""
        return answer(200, self._datastore(self._store(name)))

    @property
    def _stores(self) -> Mapping[str, str]:
        """Give the container of each datastore."""
        return {STORE: self.world.site.container, ARTIFACTS: self.world.site.artifacts}

    def _store(self, name: str) -> str:
        if name.lower() not in self._stores:
            raise not_found(f"The datastore {name} could not be found.")
        return name.lower()

    def _datastore(self, name: str) -> Json:
        site = self.world.site
        properties = {
            "description": None, "tags": {}, "properties": {}, "isDefault": name == STORE, "datastoreType": "AzureBlob",
            "accountName": site.account, "containerName": self._stores[name], "endpoint": "core.windows.net", "protocol": "https",
            "credentials": {"credentialsType": "AccountKey"}, "serviceDataAccessAuthIdentity": "WorkspaceSystemAssignedIdentity",
            "subscriptionId": site.subscription, "resourceGroup": site.resource_group,
        }  # fmt: skip
        return resources.resource(self.world, f"datastores/{name}", "datastores", self.born, properties)

    def secrets(self, _request: Request, name: str) -> Answer:
        """Answer what opens the storage of a datastore: a signature that is good for an hour."""
        token = self.key.container(self._stores[self._store(name)], _ALL, self.world.clock.now() + _HOUR)
        return answer(200, {"secretsType": "Sas", "sasToken": token})

    def pending_upload(self, _request: Request, name: str, version: str) -> Answer:
        """Answer where the bytes of a code version are to go: a container of its own."""
        container = f"{self.world.site.workspace_id[:8]}-{name}-{version}"[:63].rstrip("-").lower()
        self.create_container(container)
        url = blob_url(self.world, container)
        token = self.key.container(container, "rwl", self.world.clock.now() + _HOUR)
        store = f"{self.world.site.id}/datastores/{STORE}"
        told = {
            "blobReferenceForConsumption": {
                "blobUri": url,
                "storageAccountArmId": f"{self.world.site.group}/providers/Microsoft.Storage/storageAccounts/{self.key.account}",
                "credential": {"credentialType": "SAS", "sasUri": f"{url}?{token}"},
            },
            "pendingUploadId": f"{store}/{version}",
            "pendingUploadType": "TemporaryBlobReference",
        }
        return answer(200, told)
