"""The service's own copies of what models are made of: what is uploaded later to the same place changes no version."""

from __future__ import annotations

import attrs

from modeldeploy.simulate.vertex.errors import invalid
from modeldeploy.simulate.vertex.objects import Conditions, Objects, place_of
from modeldeploy.simulate.vertex.world import World

MANAGED = "caip-tenant-rehearsal"


@attrs.define(eq=False)
class Artifacts:
    """Copies by model and version, in a bucket of the service."""

    world: World
    objects: Objects

    def keep(self, uri: str, model_id: str, version: str) -> None:
        """Copy what lies at a URI; an error when nothing does."""
        if not uri:
            return
        now = self.world.clock.now()
        self.objects.create(MANAGED, now)
        bucket, name = place_of(uri)
        folder = f"{name.rstrip('/')}/" if name else ""
        found = self.objects.under(bucket, folder)
        if not found:
            message = f"The Cloud Storage path {uri} is empty or does not exist."
            raise invalid(message)
        for each in found:
            own = each.name.removeprefix(folder)
            self.objects.copy(each, (MANAGED, f"{model_id}/{version}/artifacts/{own}"), now)

    def uri(self, model_id: str, version: str) -> str:
        """Give where the copy lies; empty when the version has no files."""
        prefix = f"{model_id}/{version}/artifacts"
        return f"gs://{MANAGED}/{prefix}" if self.objects.under(MANAGED, f"{prefix}/") else ""

    def forget(self, model_id: str, version: str) -> None:
        """Delete the copy of a version, or of all."""
        prefix = f"{model_id}/{version}/" if version else f"{model_id}/"
        for each in self.objects.under(MANAGED, prefix):
            self.objects.delete(each, Conditions())
