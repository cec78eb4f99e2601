"""The units of a rollout whose assignment sticks: each key counts once, however often it asks.

A key's requests fail together, so counting requests would overstate the evidence: the unit of analysis is the unit of assignment.
"""

from __future__ import annotations

ASSIGNED, ANSWERED, FAILED = 1, 2, 4
"""What can happen to a key for the first time."""

LIMIT = 1_000_000
"""Keys that are told apart in one rollout; those that come later are served and not counted. A key takes about 100 bytes."""


class Units:
    """The keys of one rollout, as hashes, and what was counted of each."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._seen: dict[int, int] = {}
        self._marks: dict[str, int] = {}

    def unit(self, key: str) -> Unit:
        """Give the unit that a key stands for."""
        return Unit(self, hash(key))

    def first(self, number: int, what: int) -> bool:
        """Take note of ``what``; whether it is the first time that this key is counted for it."""
        seen = self._seen.get(number)
        if seen is None:
            if len(self._seen) >= self.limit:
                return False
            seen = 0
        self._seen[number] = seen | what
        return not seen & what

    def served(self, number: int, revision: str) -> bool:
        """Take note of who answered a key; whether it is this revision's first answer to it, and the key has not failed before.

        A key that moves to another revision can fail there, so it counts among that one's requests too.
        """
        mark = self._marks.setdefault(revision, 2 * FAILED << len(self._marks))
        fresh = not self._seen.get(number, 0) & FAILED
        return self.first(number, mark) and fresh

    def knows(self, number: int) -> bool:
        """Whether a key is among those that are counted."""
        return number in self._seen


class Unit:
    """One key of one rollout; it belongs to that rollout even when its answer comes after the end."""

    __slots__ = ("_number", "_units")

    def __init__(self, units: Units, number: int) -> None:
        self._units = units
        self._number = number

    def first(self, what: int) -> bool:
        """Take note of ``what``; whether it is the first time."""
        return self._units.first(self._number, what)

    def served(self, revision: str) -> bool:
        """Take note of who answered; whether it is this revision's first answer to a key that has not failed."""
        return self._units.served(self._number, revision)

    @property
    def counted(self) -> bool:
        """Whether there was room to count it."""
        return self._units.knows(self._number)
