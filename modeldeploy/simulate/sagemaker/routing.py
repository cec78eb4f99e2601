"""Who answers a request: fleets by their shares, variants by their weights."""

from __future__ import annotations

import random
from collections.abc import Sequence

import attrs

from modeldeploy.simulate.sagemaker.fleets import Fleet, Variant


@attrs.frozen(eq=False)
class Route:
    """An immutable table of an endpoint's traffic; it is replaced as a whole."""

    fleets: Sequence[tuple[Fleet, float]] = ()

    def fleet(self) -> Fleet | None:
        """Choose a fleet by the shares; None when nothing serves."""
        if not self.fleets:
            return None
        fleets = [fleet for fleet, _share in self.fleets]
        return random.choices(fleets, [share for _fleet, share in self.fleets])[0]  # noqa: S311 - no secret


def choose(fleet: Fleet) -> Variant:
    """Choose a variant by the weights; where all are 0 the first one takes the request."""
    variants = fleet.variants
    if len(variants) == 1:
        return variants[0]
    weights = [variant.weight for variant in variants]
    return random.choices(variants, weights)[0] if any(weights) else variants[0]  # noqa: S311 - likewise


def pinned(fleet: Fleet, name: str) -> Variant | None:
    """Find a variant by its name."""
    return next((variant for variant in fleet.variants if variant.name == name), None)
