"""What happened in a rollout, read off its events: the traffic, every look of the gates, the turning points; no drawing here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from modeldeploy.values.codec import from_json
from modeldeploy.values.events import Event, Name
from modeldeploy.values.gate import GateResult, Verdict

_TURNS = frozenset(
    {
        Name.ROLLOUT_VERDICT,
        Name.ROLLOUT_BLIND,
        Name.ROLLOUT_SAMPLE_RATIO,
        Name.ROLLOUT_SKIPPED,
        Name.ROLLOUT_PAUSED,
        Name.ROLLOUT_RESUMED,
        Name.ROLLOUT_PROMOTED,
        Name.ROLLOUT_ROLLED_BACK,
    }
)


@attrs.frozen
class RecordedLook:
    """One recorded look of the gates.

    ``at`` in seconds since the epoch; ``percent`` is the new revision's share then, ``elapsed`` the seconds since that step began.
    """

    at: float
    step: int
    percent: int
    verdict: Verdict
    gates: tuple[GateResult, ...] = ()
    elapsed: float = 0.0

    @classmethod
    def of(cls, event: Event) -> RecordedLook:
        """Read a ``rollout.look``."""
        fields = event.fields
        return cls(
            at=float(fields.get("at", event.at)),
            step=int(fields.get("step", 0)),
            percent=int(fields.get("percent", 0)),
            verdict=Verdict(fields.get("verdict", Verdict.INCONCLUSIVE)),
            gates=results(fields.get("gates", ())),
            elapsed=float(fields.get("elapsed", 0.0)),
        )

    def gate(self, name: str) -> GateResult | None:
        """Find what one gate saw, by its text."""
        return next((each for each in self.gates if each.gate == name), None)


@attrs.frozen
class Shares:
    """Who answers how much from ``at`` on, in percent; ``copies`` is what is copied to shadows."""

    at: float
    live: Mapping[str, int]
    copies: Mapping[str, int] = attrs.field(factory=dict[str, int])


@attrs.frozen
class Turn:
    """A moment that changed the course, with its reason or its verdict."""

    at: float
    name: Name
    verdict: Verdict | None = None
    reason: str = ""
    asked: bool = False
    """Whether it is the rollback that a user asked for, and not the end of a rollout."""


@attrs.frozen
class Timeline:
    """A rollout from its beginning up to ``until``, oldest first."""

    began: float
    until: float
    traffic: tuple[Shares, ...] = ()
    looks: tuple[RecordedLook, ...] = ()
    turns: tuple[Turn, ...] = ()

    @classmethod
    def of(
        cls, events: Iterable[Event], *, began: float, until: float, before: Mapping[str, int] | None = None
    ) -> Timeline:
        """Read the events of one operation; ``before`` is the traffic that it found, if that is known."""
        known = list(events)
        ends = [event.at for event in known]
        return cls(
            began=began,
            until=max([until, began, *ends]),
            traffic=_traffic(known, [Shares(began, before)] if before else []),
            looks=looks(known),
            turns=tuple(_turn(event) for event in known if event.name in _TURNS),
        )

    @property
    def gates(self) -> tuple[str, ...]:
        """Every gate that ever looked, in the order of its first look."""
        return tuple(dict.fromkeys(result.gate for look in self.looks for result in look.gates))

    @property
    def revisions(self) -> tuple[str, ...]:
        """Every revision that ever had traffic or copies."""
        return tuple(dict.fromkeys(name for each in self.traffic for name in (*each.live, *each.copies)))


def looks(events: Iterable[Event]) -> tuple[RecordedLook, ...]:
    """Read every recorded look, oldest first."""
    return tuple(RecordedLook.of(event) for event in events if event.name is Name.ROLLOUT_LOOK)


def results(given: Iterable[Any]) -> tuple[GateResult, ...]:
    """Read what gates saw from the fields of an event."""
    return tuple(each if isinstance(each, GateResult) else from_json(GateResult, each) for each in given)


def weights(table: object) -> tuple[dict[str, int], dict[str, int]]:
    """Read live weights and copies of an event's traffic: plain weights, or a whole table with its shadows."""
    if not isinstance(table, Mapping):
        return {}, {}
    whole = "weights" in table
    live = table["weights"] if whole else table
    copies = table.get("shadow", {}) if whole else {}
    return {name: part for name, part in live.items() if part}, {name: part for name, part in copies.items() if part}


def _traffic(events: Iterable[Event], known: list[Shares]) -> tuple[Shares, ...]:
    for event in events:
        after = _after(event, known[-1] if known else Shares(event.at, {}))
        if after is not None:
            known.append(after)
    return tuple(known)


def _after(event: Event, last: Shares) -> Shares | None:
    """Work out the shares after an event; None when it leaves them as they are."""
    if event.name is Name.TRAFFIC_CHANGED:
        live, copies = weights(event.fields.get("traffic"))
        return Shares(event.at, live, copies or event.fields.get("copies") or {})
    if event.name is Name.ROLLOUT_PROMOTED:
        live = {str(event.fields.get("revision")): 100}
        # The first revision of an endpoint has everything without any step.
        return None if dict(last.live) == live else Shares(event.at, live)
    return None


def _turn(event: Event) -> Turn:
    fields = event.fields
    verdict = Verdict(fields["verdict"]) if "verdict" in fields else None
    return Turn(event.at, event.name, verdict, str(fields.get("reason") or ""), fields.get("kind") == "rollback")
