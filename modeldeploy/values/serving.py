"""Endpoints, revisions and the traffic between them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from modeldeploy.errors import ConfigurationError
from modeldeploy.values.model import ModelVersion
from modeldeploy.values.names import check_name, revision_id

WHOLE = 100
"""All traffic, in percent."""


@attrs.frozen
class Hardware:
    """What one worker or instance needs; a backend's own table picks the instance type. Zero means: the backend's default."""

    cpu: float = 0.0
    memory_gb: float = 0.0
    accelerator: str = ""
    accelerator_count: int = 0


@attrs.frozen
class Scale:
    """How many workers or instances serve one revision."""

    workers: int = 1

    def __attrs_post_init__(self) -> None:
        if isinstance(self.workers, bool) or not isinstance(self.workers, int) or self.workers < 1:
            message = f"workers is {self.workers!r}"
            raise ConfigurationError(message, hint="use a whole number, 1 or more")


@attrs.frozen
class Revision:
    """A model version in an endpoint, with how it runs there; the id follows from the content."""

    id: str
    model: ModelVersion
    scale: Scale = Scale()
    hardware: Hardware = Hardware()
    options: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """What only one backend understands, by name."""

    @classmethod
    def of(
        cls,
        model: ModelVersion,
        *,
        scale: Scale | None = None,
        hardware: Hardware | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Revision:
        """Make the revision of ``model`` with this shape; the same arguments always give the same id."""
        scale, hardware = scale or Scale(), hardware or Hardware()
        # A number says itself; whoever reads an option knows what kind it is.
        options = {name: str(value) for name, value in (options or {}).items()}
        shape = [repr(scale), repr(hardware), *(f"{key}={options[key]}" for key in sorted(options))]
        name = revision_id(model.version, model.name, model.digest, *shape)
        return cls(id=name, model=model, scale=scale, hardware=hardware, options=options)


@attrs.frozen
class Traffic:
    """A whole table of traffic: ``weights`` in whole percents that sum to 100, or an empty table.

    Whole percents, because Azure ML and Vertex AI take only integers that sum to 100. ``shadow`` copies that percentage of requests to a
    revision and drops its answers; it takes nothing from the weights. With a ``key`` (``"header:<name>"`` or ``"field:<name>"``) whoever
    asks with the same key is answered by the same revision, and moves only to one whose share grows.
    """

    weights: Mapping[str, int] = attrs.field(factory=dict[str, int])
    shadow: Mapping[str, int] = attrs.field(factory=dict[str, int])
    key: str = ""

    def __attrs_post_init__(self) -> None:
        for revision, percent in [*self.weights.items(), *self.shadow.items()]:
            if isinstance(percent, bool) or not isinstance(percent, int) or not 0 <= percent <= WHOLE:
                message = f"traffic of {revision!r} is {percent!r}"
                raise ConfigurationError(message, hint="use a whole number from 0 to 100")
        total = sum(self.weights.values())
        if total not in {0, WHOLE}:
            message = f"traffic sums to {total}: {dict(self.weights)}"
            raise ConfigurationError(message, hint="whole percents must sum to 100")

    @classmethod
    def all_to(cls, revision: str) -> Traffic:
        """Give everything to one revision."""
        return cls(weights={revision: WHOLE})

    @property
    def live(self) -> dict[str, int]:
        """The revisions that take traffic, with their percentage."""
        return {revision: percent for revision, percent in self.weights.items() if percent}

    @property
    def copies(self) -> dict[str, int]:
        """The revisions that are sent copies of requests, with the percentage."""
        return {revision: percent for revision, percent in self.shadow.items() if percent}

    @property
    def plain(self) -> Traffic:
        """The same table without entries of 0, whose revisions may be gone by the time that it is set again."""
        return Traffic(self.live, self.copies, self.key)

    def share(self, revision: str) -> int:
        """Give the percentage of one revision; 0 when it is not in the table."""
        return self.weights.get(revision, 0)

    def same_as(self, other: Traffic) -> bool:
        """Whether both tables send every request to the same place; entries of 0 do not matter."""
        if self.live != other.live or self.copies != other.copies:
            return False
        return self.key == other.key or len(self.live) <= 1

    def shift(self, to: str, percent: int) -> Traffic:
        """Give ``percent`` to one revision; the others keep their proportions, rounded by largest remainder.

        >>> Traffic({"a": 60, "b": 40}).shift("c", 10).weights
        {'a': 54, 'b': 36, 'c': 10}
        """
        others = {revision: weight for revision, weight in self.live.items() if revision != to}
        if not others and percent != WHOLE:
            message = f"{to!r} is the only revision with traffic and cannot be set to {percent} %"
            raise ConfigurationError(message, hint="deploy a second revision first, or delete the endpoint")
        table = _apportion(others, WHOLE - percent)
        return attrs.evolve(self, weights={**table, to: percent})


def _apportion(weights: Mapping[str, int], total: int) -> dict[str, int]:
    """Divide ``total`` in proportion to ``weights`` by largest remainder (Hamilton's method)."""
    if not weights:
        return {}
    whole = sum(weights.values())
    shares = {name: divmod(weight * total, whole) for name, weight in weights.items()}
    missing = total - sum(floor for floor, _rest in shares.values())
    by_rest = sorted(shares, key=lambda name: (-shares[name][1], name))
    topped_up = set(by_rest[:missing])
    return {name: floor + (name in topped_up) for name, (floor, _rest) in shares.items()}


@attrs.frozen
class EndpointSpec:
    """What an endpoint is asked to be, apart from its revisions and traffic."""

    name: str = attrs.field(validator=lambda _i, _a, value: _named(value))
    options: Mapping[str, str] = attrs.field(factory=dict[str, str])


def _named(value: str) -> None:
    check_name(value, "endpoint name")


@attrs.frozen
class RevisionState:
    """One revision as the provider shows it."""

    revision: Revision
    ready: bool
    note: str = ""
    """Why it is not ready, in the provider's words."""


@attrs.frozen
class EndpointState:
    """An endpoint as the provider shows it now; never cached."""

    name: str
    url: str
    revisions: tuple[RevisionState, ...]
    traffic: Traffic
    version: str
    """Opaque; changes with every change of the endpoint. Pass it as ``expect`` to compare-and-set."""
    settled: bool
    """Whether nothing is in flight."""

    def revision(self, name: str) -> RevisionState | None:
        """Find a revision by its id, or None."""
        return next((state for state in self.revisions if state.revision.id == name), None)

    @property
    def stable(self) -> str | None:
        """The revision with the most traffic (the first one deployed among equals), or None when there is no traffic."""
        return _most(self.traffic.live, [state.revision.id for state in self.revisions])


def _most(live: Mapping[str, int], order: Iterable[str]) -> str | None:
    ranked = [revision for revision in order if revision in live] or list(live)
    return max(ranked, key=lambda revision: live[revision], default=None)


@attrs.frozen
class Payload:
    """Bytes of a request or an answer, with the headers that give them meaning (names in lower case)."""

    body: bytes
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])


@attrs.frozen
class LogLine:
    """One line of a revision's log; ``at`` in seconds since the epoch, UTC."""

    at: float
    revision: str
    text: str
