"""Who does each part of a change of an endpoint."""

from __future__ import annotations

import enum

import attrs


class How(enum.StrEnum):
    """Who does a part."""

    NATIVE = "native"
    OURS = "by modeldeploy"
    SKIPPED = "skipped"
    REFUSED = "refused"


@attrs.frozen
class Part:
    """One thing that the change needs: who does it, and why, or what to do instead."""

    what: str
    how: How
    why: str = ""
    instead: str = ""
    capability: str = ""
    """The capability that is missing where it is refused, if that is the reason."""

    def __str__(self) -> str:
        return ": ".join(text for text in (self.what, self.manner) if text)

    @property
    def manner(self) -> str:
        """How it is done, in words."""
        reason = f"{self.how.value}: {self.why}" if self.why else self.how.value
        return f"{reason}; {self.instead}" if self.instead else reason
