"""What a rollout would do, before anything is sent: steps, who does each part, refusals, warnings."""

from __future__ import annotations

import attrs

from modeldeploy.errors import ConfigurationError
from modeldeploy.spi import Backend
from modeldeploy.values.model import ModelVersion, Signature
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.serving import WHOLE, EndpointState, Revision, Traffic


@attrs.frozen
class Plan:
    """The answer of ``Endpoint.plan``; ``ok`` is False when something is refused."""

    endpoint: str
    model: ModelVersion
    policy: RolloutPolicy
    before: dict[str, int]
    steps: tuple[dict[str, int], ...]
    """The traffic tables, in order; the new revision is called "new"."""
    parts: tuple[tuple[str, str], ...]
    """What is done by whom: ``(part, "native" | "by modeldeploy" | "refused: why")``."""
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the rollout would be accepted."""
        return not any(how.startswith("refused") for _part, how in self.parts)

    def __str__(self) -> str:
        lines = [f"{self.model} on {self.endpoint!r}: {self.policy}", f"traffic: {self._walk}"]
        lines += [f"{part}: {how}" for part, how in self.parts]
        lines += [f"warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)

    __repr__ = __str__

    @property
    def _walk(self) -> str:
        tables = [self.before, *self.steps] if self.before else [*self.steps]
        shown = (", ".join(f"{name} {percent} %" for name, percent in table.items()) for table in tables)
        return " > ".join(shown)

    def _repr_html_(self) -> str:
        from modeldeploy.observe import notebook

        pairs = [("policy", str(self.policy)), ("traffic", self._walk), *self.parts]
        pairs += [("warning", warning) for warning in self.warnings]
        return notebook.definition(f"plan: {self.model} on {self.endpoint}", pairs)


def plan(
    backend: Backend, endpoint: str, state: EndpointState | None, model: ModelVersion, policy: RolloutPolicy
) -> Plan:
    """Work out the plan; reads nothing but what is given."""
    before = state.traffic if state else Traffic()
    steps = [before.shift("new", percent) for percent in policy.steps] if before.live else [Traffic.all_to("new")]
    return Plan(
        endpoint=endpoint,
        model=model,
        policy=policy,
        before=before.live,
        steps=tuple(step.live for step in steps),
        parts=tuple(_parts(backend, state, policy)),
        warnings=tuple(_warnings(state, model, policy)),
    )


def refuse_unsupported(backend: Backend, state: EndpointState | None, policy: RolloutPolicy, revision: str) -> None:
    """Hold a whole policy against the backend's capabilities before its first step; UnsupportedError with reason and alternative."""
    capabilities, name = backend.capabilities, backend.name
    if state is not None and state.traffic.live not in ({}, {revision: WHOLE}):
        for percent in policy.steps:
            capabilities.check_traffic(state.traffic.shift(revision, percent), backend=name)
    if policy.gates:
        capabilities.require("meters", backend=name)
    if policy.gates and not (policy.bake or any(percent < WHOLE for percent in policy.steps)):
        message = f"policy {policy.strategy.value} has gates and no time in which they could look"
        raise ConfigurationError(message, hint="use canary, linear, or blue_green(bake=...)")


def _parts(backend: Backend, state: EndpointState | None, policy: RolloutPolicy) -> list[tuple[str, str]]:
    capabilities = backend.capabilities
    parts = []
    if any(percent < WHOLE for percent in policy.steps):
        split = capabilities.why_not.get("split", "one revision at a time")
        parts.append(("traffic split", "native" if capabilities.split > 1 else f"refused: {split}"))
    parts.append(("steps and soak", "by modeldeploy: a process must drive them; if it ends, traffic stays"))
    if policy.gates:
        meters = capabilities.why_not.get("meters", "no metrics")
        parts.append(
            ("gates", "by modeldeploy, on the backend's metrics" if capabilities.meters else f"refused: {meters}")
        )
    pinned = capabilities.pinned_invoke or state is None
    parts.append(("golden outputs", "by modeldeploy" if pinned else "skipped: a call cannot name its revision here"))
    parts.append(
        ("failed canary answers", "answered again by stable" if capabilities.safe_canary else "reach the caller")
    )
    return parts


def _warnings(state: EndpointState | None, model: ModelVersion, policy: RolloutPolicy) -> list[str]:
    stable = _stable(state)
    found = []
    if stable is not None and stable.model.digest == model.digest:
        found.append(f"{model} is what serves already; nothing would change")
    elif stable is not None:
        found += _differences(stable.model.signature, model.signature)
    if policy.strategy.value != "all-at-once" and not policy.gates:
        found.append("no gates: the new revision is promoted however it behaves")
    return found


def _stable(state: EndpointState | None) -> Revision | None:
    found = state.revision(state.stable) if state is not None and state.stable else None
    return found.revision if found else None


def _differences(old: Signature, new: Signature) -> list[str]:
    found = []
    for side, before, after in (("input", old.inputs, new.inputs), ("output", old.outputs, new.outputs)):
        was, becomes = {field.name: field for field in before}, {field.name: field for field in after}
        found += [f"{side} {name!r} is gone in the new model" for name in was if name not in becomes]
        found += [f"{side} {name!r} is new in the new model" for name in becomes if name not in was]
        changed = [name for name in was if name in becomes and was[name] != becomes[name]]
        found += [
            f"{side} {name!r} changes from {was[name].dtype.value} to {becomes[name].dtype.value}" for name in changed
        ]
    return found
