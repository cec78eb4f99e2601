"""Which versions of models are deployed where."""

from __future__ import annotations

import threading

import attrs


@attrs.define(eq=False)
class Usage:
    """Deployed models by endpoint and id; ``lock`` is everybody's."""

    lock: threading.RLock
    _known: dict[tuple[str, str], tuple[str, str]] = attrs.field(factory=dict)

    def add(self, endpoint: str, deployed: str, model_id: str, version: str) -> None:
        """Know a deployed model."""
        with self.lock:
            self._known[endpoint, deployed] = model_id, version

    def remove(self, endpoint: str, deployed: str) -> None:
        """Forget a deployed model."""
        with self.lock:
            self._known.pop((endpoint, deployed), None)

    def of(self, model_id: str, version: str) -> list[tuple[str, str]]:
        """Give where a version is deployed, or any version when none is named."""
        with self.lock:
            return [
                place for place, (model, number) in self._known.items() if model == model_id and version in {"", number}
            ]
