"""What decides a rollout, as plain sequences and mappings that also display well: every look of its gates, and the outcomes of a test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import attrs

from modeldeploy.observe import formatting, notebook, text
from modeldeploy.observe.status import duration
from modeldeploy.observe.timeline import RecordedLook
from modeldeploy.stats.means import FEWEST, Tally, compare_means, mean_interval
from modeldeploy.values.analysis import Analysis
from modeldeploy.values.gate import GateResult

_TONES: dict[str, notebook.Tone] = {"pass": "good", "fail": "bad", "inconclusive": "plain", "blind": "warn"}

_GATE = ("gate", "verdict", "bad", "rate", "interval", "stable")
_MINUTE = 60
_FIRST, _LAST = 3, 17
"""How many looks are shown of a long rollout; all of them are there by their index."""


class Verdicts(Sequence[RecordedLook]):
    """Every recorded look of a rollout's gates, oldest first."""

    def __init__(self, looks: Iterable[RecordedLook], *, began: float, analysis: Analysis, empty: str) -> None:
        self.looks = tuple(looks)
        self._began, self._analysis, self._empty = began, analysis, empty

    @overload
    def __getitem__(self, index: int) -> RecordedLook: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[RecordedLook, ...]: ...
    def __getitem__(self, index: int | slice) -> RecordedLook | tuple[RecordedLook, ...]:
        return self.looks[index]

    def __len__(self) -> int:
        return len(self.looks)

    def _rows(self, looks: Iterable[RecordedLook]) -> Iterator[tuple[Any, ...]]:
        for look in looks:
            when = _after(look.at - self._began), f"{look.percent} %"
            results = look.gates or (GateResult("", look.verdict),)
            # What belongs to the whole look is said once.
            heads = [when, *[("", "")] * (len(results) - 1)]
            for head, result in zip(heads, results, strict=True):
                yield (*head, result.gate, result.verdict.value, *weighed(result))

    def __repr__(self) -> str:
        if not self.looks:
            return self._empty
        head, left_out, tail = _shortened(self.looks)
        rows = [*self._rows(head), *self._rows(tail)]
        note = f"\n({left_out} looks between the first {len(head)} and the last {len(tail)} are not shown)"
        return text.table(rows, ("after", "traffic", *columns(self._analysis))) + (note if left_out else "")

    def _repr_html_(self) -> str:
        head, left_out, tail = _shortened(self.looks)
        rows = [
            (notebook.unbroken(after), share, notebook.code(gate), badge(verdict), *_unbroken(*rest))
            for after, share, gate, verdict, *rest in [*self._rows(head), *self._rows(tail)]
        ]
        note = f"{len(self)} looks" + (f", {left_out} after the first {len(head)} are not shown" if left_out else "")
        return notebook.table(
            "verdicts", rows, ("after", "traffic", *columns(self._analysis)), note=note if self.looks else self._empty
        )


def columns(analysis: Analysis) -> tuple[str, ...]:
    """Name the columns of a gate; those of the evidence say where it decides."""
    return (*_GATE, f"against (of {1 / analysis.alpha:.3g})", f"for (of {1 / analysis.beta:.3g})")


def weighed(result: GateResult) -> tuple[str, ...]:
    """Write what a gate saw: bad of all, the value with its interval, stable's value, the evidence against and for."""
    return (
        formatting.counted(result),
        formatting.quantity(result, result.value),
        formatting.interval(result),
        formatting.quantity(result, result.stable_value),
        formatting.e_value(result.against),
        formatting.e_value(result.favour),
    )


def badge(verdict: str) -> notebook.Html:
    """Draw a verdict with the tone that it has."""
    return notebook.badge(verdict, _TONES[verdict])


def _unbroken(bad: str, rate: str, interval: str, *rest: str) -> tuple[str, ...]:
    """Keep an interval in one line; figures are kept so by themselves."""
    return bad, rate, notebook.unbroken(interval), *rest


def _after(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < _MINUTE else duration(seconds)


def _shortened(looks: tuple[RecordedLook, ...]) -> tuple[tuple[RecordedLook, ...], int, tuple[RecordedLook, ...]]:
    """Give the first and the last looks, and how many lie between."""
    left_out = len(looks) - _FIRST - _LAST
    if left_out <= 0:
        return looks, 0, ()
    return looks[:_FIRST], left_out, looks[-_LAST:]


@attrs.frozen
class Outcome:
    """How well one revision's answers turned out: the mean of ``count`` values of 0-1.

    ``low`` and ``high`` enclose the true mean; they may be looked at as often as one likes.
    """

    revision: str
    count: int
    mean: float | None
    low: float
    high: float


class Outcomes(Mapping[str, Outcome]):
    """The reported outcomes of an A/B test, by revision; stable first."""

    def __init__(self, tallies: Mapping[str, Tally], *, new: str, stable: str | None, alpha: float) -> None:
        self._new, self._stable, self._alpha = new, stable, alpha
        self._tallies = {
            name: tallies.get(name, Tally()) for name in dict.fromkeys([*filter(None, [stable, new]), *tallies])
        }
        self._known = {name: self._outcome(name, tally) for name, tally in self._tallies.items()}

    def _outcome(self, name: str, tally: Tally) -> Outcome:
        low, high = mean_interval(tally, self._alpha)
        return Outcome(name, tally.count, tally.mean, low, high)

    @property
    def difference(self) -> tuple[float, float]:
        """Enclose the new revision's mean minus stable's; above 0 the new one is better, below 0 stable is."""
        stable = self._tallies.get(self._stable or "", Tally())
        return compare_means(self._tallies[self._new], stable, self._alpha)

    def __getitem__(self, revision: str) -> Outcome:
        return self._known[revision]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def _rows(self) -> list[tuple[Any, ...]]:
        return [
            (each.revision, "new" if each.revision == self._new else "stable", each.count, _mean(each), _interval(each))
            for each in self._known.values()
        ]

    def _note(self) -> str:
        least = min(each.count for each in self._known.values())
        if least < FEWEST:
            return f"fewer than {FEWEST} outcomes of a revision: the difference is not known yet"
        low, high = self.difference
        word = "the new revision is better" if low > 0 else "stable is better" if high < 0 else "not decided"
        return f"new minus stable lies between {low:+.3g} and {high:+.3g}: {word}"

    def __repr__(self) -> str:
        return f"{text.table(self._rows(), _OUTCOME_COLUMNS)}\n{self._note()}"

    def _repr_html_(self) -> str:
        rows = [(notebook.code(name), *rest) for name, *rest in self._rows()]
        return notebook.table("outcomes", rows, _OUTCOME_COLUMNS, note=self._note())


_OUTCOME_COLUMNS = ("revision", "role", "outcomes", "mean", "interval")


def _mean(outcome: Outcome) -> str | None:
    return None if outcome.mean is None else f"{outcome.mean:.4g}"


def _interval(outcome: Outcome) -> str | None:
    return f"{outcome.low:.4g} to {outcome.high:.4g}" if outcome.count >= FEWEST else None
