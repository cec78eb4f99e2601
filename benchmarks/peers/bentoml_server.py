"""BentoML: two workers, access log and metrics off; ``Plain``, and ``Batching`` as its documentation shows."""

import bentoml
import numpy as np
from loading import load

OPTIONS = {"workers": 2, "logging": {"access": {"enabled": False}}, "metrics": {"enabled": False}}


@bentoml.service(**OPTIONS)
class Plain:
    def __init__(self):
        self.ask = load()

    @bentoml.api
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.ask(rows)


@bentoml.service(**OPTIONS)
class Batching:
    def __init__(self):
        self.ask = load()

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=10_000)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.ask(rows)
