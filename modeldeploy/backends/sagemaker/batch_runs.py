"""Transform jobs as the runs of a batch job: the objects are listed in a manifest."""

from __future__ import annotations

import attrs
import orjson

from modeldeploy.backends.cloud.runs import Order
from modeldeploy.backends.sagemaker.storage import Storage
from modeldeploy.backends.sagemaker.transform import Seen, Setting, Transforms, request


@attrs.frozen
class TransformRuns:
    """The transform jobs of one job of ours."""

    transforms: Transforms
    storage: Storage
    setting: Setting
    word: str = "transform job"

    def prepare(self, order: Order) -> None:
        """Write the manifest."""
        listed = orjson.dumps([{"prefix": f"{self.storage.url(order.source)}/"}, *order.names])
        self.storage.put(_manifest(order), listed, kind="application/json")

    def create(self, order: Order) -> Seen:
        """Ask for a transform job, or find it asked for."""
        terms = attrs.evolve(self.setting.terms, max_payload_mb=order.payload_mb)
        setting = attrs.evolve(self.setting, terms=terms, instances=order.instances)
        source, output = self.storage.url(_manifest(order)), self.storage.url(order.output)
        return self.transforms.create(request(order.name, order.model, source=source, output=output, setting=setting))

    def see(self, name: str) -> Seen | None:
        """Look at it; None when there is none."""
        return self.transforms.see(name)

    def stop(self, name: str) -> None:
        """Ask it to stop."""
        self.transforms.stop(name)

    def lines(self, name: str) -> list[str]:
        """Give the last lines of its log."""
        return self.transforms.lines(name)


def _manifest(order: Order) -> str:
    return f"{order.listing}.json"
