"""A histogram put together from quantiles, where a provider keeps no histogram.

Between two quantiles an answer counts as slow as the upper one, so a share of slow answers is never told smaller than it was, and by at most
the distance of the two quantiles too large.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from modeldeploy.values.metrics import bucket_of


def histogram(total: int, quantiles: Mapping[float, float], slowest: float) -> Iterator[tuple[int, int]]:
    """Give how many of ``total`` answers end in which bucket; ``quantiles`` are percent to seconds, ascending."""
    counted = 0
    for percent, seconds in quantiles.items():
        rank = math.ceil(percent / 100 * total - 1e-9)
        if rank > counted:
            yield bucket_of(seconds), rank - counted
            counted = rank
    if total > counted:
        yield bucket_of(slowest), total - counted
