"""A plan: what a change of an endpoint would call, who does each part of it, what is refused, and what comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from modeldeploy.handles.parts import How, Part

if TYPE_CHECKING:
    from modeldeploy.observe import notebook
    from modeldeploy.values.forecast import Forecast
    from modeldeploy.values.rollout import RolloutPolicy
    from modeldeploy.values.serving import Traffic


@attrs.frozen
class Call:
    """One act at the backend, in order: ``put_revision``, ``golden outputs``, ``set_traffic``, ``drop_revision`` or ``drop_endpoint``."""

    act: str
    subject: str
    """The revision, or the endpoint."""
    traffic: Traffic | None = None
    """The whole table that is set."""
    note: str = ""

    def __str__(self) -> str:
        what = f"{self.act} {show(self.traffic) if self.traffic else self.subject}"
        return f"{what} ({self.note})" if self.note else what


@attrs.frozen
class Diff:
    """What is observed, and what is wanted in the end."""

    before: Traffic
    after: Traffic
    added: tuple[str, ...] = ()
    """Revisions that come."""
    dropped: tuple[str, ...] = ()
    """Revisions that go."""

    def __str__(self) -> str:
        lines = [f"traffic {show(self.before)} -> {show(self.after)}"]
        lines += [f"+ {name}" for name in self.added] + [f"- {name}" for name in self.dropped]
        return ", ".join(lines)


@attrs.frozen(repr=False)
class Plan:
    """What would be done; ``ok`` is False when something is refused. Nothing was changed to find out."""

    verb: str
    """``"deploy"``, ``"rollout"``, ``"rollback"`` or ``"delete"``."""
    endpoint: str
    backend: str
    subject: str
    """What it is done with: the model, or the revision."""
    calls: tuple[Call, ...]
    diff: Diff
    parts: tuple[Part, ...] = ()
    warnings: tuple[str, ...] = ()
    policy: RolloutPolicy | None = None
    forecast: Forecast | None = None
    """When the gates can know, at the present rate of requests; None where that is not measured."""

    @property
    def ok(self) -> bool:
        """Whether it would be accepted."""
        return not self.refused

    @property
    def refused(self) -> tuple[Part, ...]:
        """The parts for which it would not be accepted."""
        return tuple(part for part in self.parts if part.how is How.REFUSED)

    @property
    def steps(self) -> tuple[dict[str, int], ...]:
        """The traffic tables that are set, in order: ``{revision: percent}``."""
        return tuple(call.traffic.live for call in self.calls if call.traffic is not None)

    def __str__(self) -> str:
        lines = [f"{self._title}; {self.policy}" if self.policy else self._title, str(self.diff)]
        lines += [f"{number}. {call}" for number, call in enumerate(self.calls, 1)] or ["nothing is called"]
        lines += [str(part) for part in self.parts]
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])

    __repr__ = __str__

    @property
    def _title(self) -> str:
        return f"{self.verb} of {self.subject} on {self.endpoint!r} ({self.backend})"

    def _repr_html_(self) -> str:
        from modeldeploy.observe import notebook

        pairs: list[tuple[str, object]] = [("policy", str(self.policy))] if self.policy else []
        pairs += [("change", str(self.diff)), *((f"{number}.", str(call)) for number, call in enumerate(self.calls, 1))]
        pairs += [(part.what, notebook.badge(part.manner, _TONES[part.how])) for part in self.parts]
        pairs += [("warning", notebook.badge(warning, "warn")) for warning in self.warnings]
        return notebook.definition(f"plan: {self._title}", pairs)


_TONES: dict[How, notebook.Tone] = {How.NATIVE: "good", How.OURS: "good", How.SKIPPED: "warn", How.REFUSED: "bad"}


def show(traffic: Traffic) -> str:
    """Write a table of traffic in one line."""
    parts = [f"{name} {percent} %" for name, percent in traffic.live.items()] or ["nothing"]
    parts += [f"copies of {percent} % to {name}" for name, percent in traffic.copies.items()]
    if traffic.key and len(traffic.live) > 1:
        parts.append(f"sticky by {traffic.key}")
    return ", ".join(parts)
