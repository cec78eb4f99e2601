"""Where the words of a picture go: what happened when, told beside each other and never over each other; no drawing here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import attrs

from modeldeploy.observe.timeline import Timeline, Turn
from modeldeploy.values.events import Name
from modeldeploy.values.gate import Verdict

GOOD, BAD, WARN, PLAIN = "#009e73", "#d55e00", "#b07900", "#6b7280"
_LETTER_IN = 0.062
"""Width of a letter of the labels, about."""
_TOGETHER = 0.04
"""What lies closer than this share of the whole time is told as one."""
_LEVELS = 3
_WAITING = frozenset({Name.ROLLOUT_PAUSED, Name.ROLLOUT_VERDICT})
"""What does not end a pause."""


@attrs.frozen
class Label:
    """A mark and its words; ``level`` is the line that they stand on, ``leftwards`` whether they stand before the mark."""

    at: float
    text: str
    colour: str
    marker: str
    level: int = 0
    leftwards: bool = False


_VERDICTS = {
    Verdict.PASS: ("pass", GOOD, "^"),
    Verdict.FAIL: ("fail", BAD, "X"),
    Verdict.INCONCLUSIVE: ("not enough evidence", WARN, "D"),
    Verdict.BLIND: ("metrics not read", WARN, "s"),
}
_TURNS = {
    Name.ROLLOUT_BLIND: _VERDICTS[Verdict.BLIND],
    Name.ROLLOUT_SAMPLE_RATIO: ("wrong split", WARN, "s"),
    Name.ROLLOUT_SKIPPED: ("skipped", PLAIN, ">"),
    Name.ROLLOUT_PAUSED: ("paused", PLAIN, "|"),
    Name.ROLLOUT_RESUMED: ("resumed", PLAIN, "|"),
    Name.ROLLOUT_PROMOTED: ("promoted", GOOD, "^"),
    Name.ROLLOUT_ROLLED_BACK: ("taken back", BAD, "X"),
}


def labels(timeline: Timeline, *, width_in: float) -> list[Label]:
    """Tell what happened, oldest first; what falls together is told in one breath."""
    span = timeline.until - timeline.began
    placed: list[Label] = []
    ends = [float("-inf")] * _LEVELS
    for group in _groups(timeline.turns, _TOGETHER * span):
        label = _label(group)
        place = (label.at - timeline.began) / span * width_in
        wide = _LETTER_IN * len(label.text) + 0.15
        leftwards = place + wide > width_in
        start = place - wide if leftwards else place
        # Each word takes the lowest line that is free there; the highest one takes all that is left.
        level = next((level for level, end in enumerate(ends) if end <= start), _LEVELS - 1)
        ends[level] = start + wide
        placed.append(attrs.evolve(label, level=level, leftwards=leftwards))
    return placed


def pauses(timeline: Timeline) -> Iterator[tuple[float, float]]:
    """Give the stretches in which it waited for a user's word."""
    since: float | None = None
    for turn in timeline.turns:
        if turn.name is Name.ROLLOUT_PAUSED and since is None:
            since = turn.at
        elif since is not None and turn.name not in _WAITING:
            yield since, turn.at
            since = None
    if since is not None:
        yield since, timeline.until


def spread(places: Sequence[float], room: float) -> list[float]:
    """Move places of 0-1 apart until each has ``room``, as little as is easy and in their order; they leave 0-1 only when they are too many.

    >>> spread([0.5, 0.5], 0.2)
    [0.4, 0.6]
    """
    order = sorted(range(len(places)), key=lambda at: places[at])
    moved = _apart([places[at] for at in order], room)
    return [moved[order.index(at)] for at in range(len(places))]


def _apart(rising: list[float], room: float) -> list[float]:
    """Merge what collides into blocks that are centred where their members wanted to be."""
    blocks: list[tuple[float, int]] = []
    for place in rising:
        blocks.append(_within(place, 1, room))
        while len(blocks) > 1 and _collide(blocks[-2], blocks[-1], room):
            (one, few), (two, more) = blocks.pop(), blocks.pop()
            blocks.append(_within((one * few + two * more) / (few + more), few + more, room))
    return [centre + (at - (size - 1) / 2) * room for centre, size in blocks for at in range(size)]


def _within(centre: float, size: int, room: float) -> tuple[float, int]:
    half = min(0.5, (size - 1) / 2 * room)
    return min(1 - half, max(half, centre)), size


def _collide(low: tuple[float, int], high: tuple[float, int], room: float) -> bool:
    return high[0] - low[0] < room * (low[1] + high[1]) / 2 - 1e-9


def _groups(turns: Iterable[Turn], together: float) -> Iterator[list[Turn]]:
    group: list[Turn] = []
    for turn in turns:
        if group and turn.at - group[-1].at > together:
            yield group
            group = []
        group.append(turn)
    if group:
        yield group


def _label(group: list[Turn]) -> Label:
    """Tell a group in its order, in the colour of its last word."""
    told = [_told(turn) for turn in group]
    words = dict.fromkeys(text for text, _colour, _marker in told)
    if len(words) > 1 and told[-1][0] == "promoted":
        # Nobody is promoted without having passed, or by a user's word.
        words.pop("pass", None)
    _text, colour, marker = told[-1]
    return Label(group[-1].at, ", ".join(words), colour, marker)


def _told(turn: Turn) -> tuple[str, str, str]:
    if turn.name is Name.ROLLOUT_VERDICT and turn.verdict is not None:
        return _VERDICTS[turn.verdict]
    if turn.asked:
        return "rolled back", PLAIN, "v"
    return _TURNS.get(turn.name, (turn.name.value, PLAIN, "|"))
