"""What every resource of Azure Resource Manager has: an id, a type, and who made it and when."""

from __future__ import annotations

import attrs

from modeldeploy.simulate.azureml.exchange import Json
from modeldeploy.simulate.azureml.world import NAMESPACE, World, stamp

SOMEBODY = "rehearsal"


@attrs.define(eq=False)
class Born:
    """When a resource was made and last changed."""

    created: float
    modified: float

    @classmethod
    def now(cls, world: World) -> Born:
        """Say now."""
        at = world.clock.now()
        return cls(at, at)

    def system_data(self) -> Json:
        """Write the member ``systemData``."""
        return {
            "createdAt": stamp(self.created),
            "createdBy": SOMEBODY,
            "createdByType": "User",
            "lastModifiedAt": stamp(self.modified),
            "lastModifiedBy": SOMEBODY,
            "lastModifiedByType": "User",
        }


def resource(world: World, tail: str, kind: str, born: Born, properties: Json) -> Json:
    """Write a resource of the workspace: ``tail`` is its id behind the workspace's, ``kind`` its type likewise."""
    return {
        "id": f"{world.site.id}/{tail}",
        "name": tail.rpartition("/")[2],
        "type": f"{NAMESPACE}/workspaces/{kind}",
        "properties": properties,
        "systemData": born.system_data(),
    }


def server_properties(operation: str) -> Json:
    """Write the properties that the service itself adds, once there was an operation; this copy of its URL is not signed."""
    return {"createdBy": SOMEBODY, "AzureAsyncOperationUri": operation} if operation else {}
