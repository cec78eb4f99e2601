"""What a type checker must object to: under ``warn_unused_ignores`` an ignore that is not needed is an error. Checked, never run."""

from __future__ import annotations

from modeldeploy import Endpoint, Model, RolloutPolicy
from modeldeploy.values.ticket import Action, Ticket


def misuse(endpoint: Endpoint, model: Model, ticket: Ticket) -> None:
    Model(object(), "iris", "1.0.0")  # type: ignore[call-arg]
    Endpoint.deploy(model, "iris", "local")  # type: ignore[call-arg]
    Endpoint.deploy(model, name=3)  # type: ignore[arg-type]
    endpoint.rollout(model, "canary")  # type: ignore[arg-type]
    endpoint.rollout(model, timeout="60")  # type: ignore[arg-type]
    RolloutPolicy.canary(gates=[1.2])  # type: ignore[list-item]
    endpoint.deploi(model)  # type: ignore[attr-defined]
    ticket.target = "other"  # type: ignore[misc]
    Ticket("put-revision", "iris")  # type: ignore[arg-type]
    Ticket(Action.PUT_REVISION)  # type: ignore[call-arg]
