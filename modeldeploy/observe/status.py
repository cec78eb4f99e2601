"""What a progress display shows, worked out from events; no drawing here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from modeldeploy.observe import formatting
from modeldeploy.values.events import Event, Name
from modeldeploy.values.gate import GateResult, Verdict

_MINUTE = 60
_HOUR = 3600
_ENDS = frozenset({Name.OPERATION_SUCCEEDED, Name.OPERATION_FAILED, Name.OPERATION_CANCELLED})
# Parts of a rollout that end at once; their own share would make the bar jump.
_SMALL_STEPS = frozenset({"set-traffic", "drop-revision"})
_WORDS = {
    Name.OPERATION_STARTED: "started",
    Name.OPERATION_RESUMED: "taken up again",
    Name.OPERATION_SUCCEEDED: "done",
    Name.OPERATION_FAILED: "failed",
    Name.OPERATION_CANCELLED: "cancelled",
    Name.REVISION_READY: "revision ready",
    Name.ROLLOUT_BLIND: "metrics cannot be read",
    Name.ROLLOUT_SAMPLE_RATIO: "traffic does not follow its table",
    Name.ROLLOUT_SKIPPED: "step skipped",
    Name.ROLLOUT_PAUSED: "paused",
    Name.ROLLOUT_RESUMED: "resumed",
    Name.ROLLOUT_PROMOTED: "promoted",
    Name.ROLLOUT_ROLLED_BACK: "rolled back",
}


@attrs.frozen
class Status:
    """Where an operation stands, in words and as a share of 0-1 (None when nobody knows)."""

    title: str
    began: float
    at: float
    fraction: float | None = None
    note: str = "started"
    ended: bool = False
    failed: bool = False

    @classmethod
    def of(cls, title: str, now: float) -> Status:
        """Start with a title only."""
        return cls(title, began=now, at=now)

    def after(self, event: Event) -> Status:
        """Give the status that follows from one more event; one that says nothing to a watcher leaves the note as it is."""
        return attrs.evolve(
            self,
            at=max(self.at, event.at),
            fraction=_fraction(event, self.fraction),
            note=_note(event) or self.note,
            ended=self.ended or _ended(event),
            failed=self.failed or _failed(event),
        )

    @property
    def elapsed(self) -> str:
        """How long it has taken, for a reader."""
        return duration(self.at - self.began)

    def __str__(self) -> str:
        share = "" if self.fraction is None else f" {self.fraction:.0%}"
        return f"{self.title}:{share} {self.note} ({self.elapsed})"


def duration(seconds: float) -> str:
    """Write seconds as a reader says them.

    >>> duration(4.2), duration(75), duration(7300)
    ('4 s', '1 min 15 s', '2 h 1 min')
    """
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"


def _ended(event: Event) -> bool:
    return event.name in _ENDS or _rolled_back_as_asked(event)


def _failed(event: Event) -> bool:
    went_back = event.name is Name.ROLLOUT_ROLLED_BACK and not _rolled_back_as_asked(event)
    return went_back or event.name is Name.OPERATION_FAILED


def _rolled_back_as_asked(event: Event) -> bool:
    # Going back is what a rollback is for, and how a rollout fails.
    return event.name is Name.ROLLOUT_ROLLED_BACK and event.fields.get("kind") == "rollback"


def _fraction(event: Event, before: float | None) -> float | None:
    if event.name is Name.OPERATION_SUCCEEDED or _rolled_back_as_asked(event):
        return 1.0
    if event.name is Name.ROLLOUT_STEP:
        return _share(event.fields.get("percent"), 100, before)
    if event.name is Name.OPERATION_PROGRESS and event.fields.get("action") not in _SMALL_STEPS:
        return _share(event.fields.get("fraction"), 1, before)
    return before


def _share(given: object, whole: float, before: float | None) -> float | None:
    return min(1.0, max(0.0, given / whole)) if isinstance(given, int | float) else before


def _note(event: Event) -> str:
    words = _TELLS.get(event.name)
    if words is not None:
        return words(event.fields)
    return _with_reason(_WORDS.get(event.name, event.name.value), event.fields)


def _with_reason(words: str, fields: Mapping[str, Any]) -> str:
    reason = fields.get("reason") or fields.get("error") or fields.get("outcome")
    return f"{words}: {reason}" if reason else words


def _traffic(fields: Mapping[str, Any]) -> str:
    if not isinstance(fields.get("traffic"), Mapping):
        return "traffic changed"
    from modeldeploy.observe import timeline

    live, copies = timeline.weights(fields["traffic"])
    copied = fields.get("copies") or copies
    shares = [f"{revision} {percent} %" for revision, percent in live.items()]
    shares += [f"copies of {percent} % to {revision}" for revision, percent in copied.items()]
    return f"traffic {', '.join(shares) or 'off'}"


def _step(fields: Mapping[str, Any]) -> str:
    if "percent" not in fields:
        return "next step"
    return f"step {fields['percent']} %" if fields["percent"] else "step without traffic"


def _verdict(fields: Mapping[str, Any]) -> str:
    """Say what the gates decided; why they passed was to be seen all the time."""
    words = f"gates: {fields.get('verdict', 'unknown')}"
    return words if fields.get("verdict") == Verdict.PASS else _with_reason(words, fields)


def _look(fields: Mapping[str, Any]) -> str:
    """Say the verdict, and the figures of the gate that it hangs on."""
    from modeldeploy.observe import timeline

    verdict, results = fields.get("verdict", Verdict.INCONCLUSIVE.value), timeline.results(fields.get("gates", ()))
    words = f"at {fields.get('percent', 0)} %: {verdict}"
    if not results:
        return words
    decisive = min(results, key=_weight)
    more = f" (and {len(results) - 1} more)" if len(results) > 1 else ""
    return f"{words}; {decisive.gate}{more}: {_evidence(decisive)}"


def _weight(result: GateResult) -> tuple[int, float]:
    """Put the gate first that has failed, then the one that is furthest from passing."""
    order = [Verdict.FAIL, Verdict.BLIND, Verdict.INCONCLUSIVE, Verdict.PASS]
    strength = -(result.against or 0.0) if result.verdict is Verdict.FAIL else (result.favour or 0.0)
    return order.index(result.verdict), strength


def _evidence(result: GateResult) -> str:
    counted = formatting.counted(result)
    if not result.sample:
        return result.reason or "nothing was answered yet"
    if result.against is None or result.favour is None:
        return result.reason or counted
    return (
        f"{counted} bad, evidence for {formatting.e_value(result.favour)}, against {formatting.e_value(result.against)}"
    )


def _golden(fields: Mapping[str, Any]) -> str:
    return "golden outputs reproduced" if fields.get("ok") else _with_reason("golden outputs differ", fields)


_TELLS: dict[Name, Callable[[Mapping[str, Any]], str]] = {
    Name.OPERATION_PROGRESS: lambda fields: str(fields.get("note") or ""),
    Name.OPERATION_RETRY: lambda fields: f"trying again: {fields.get('error', '')}",
    Name.TRAFFIC_CHANGED: _traffic,
    Name.GOLDEN_CHECKED: _golden,
    Name.ROLLOUT_STEP: _step,
    Name.ROLLOUT_LOOK: _look,
    Name.ROLLOUT_VERDICT: _verdict,
}
