"""The golden-output gate: the running revision must answer its example inputs as the model did when it was packaged."""

from __future__ import annotations

from pathlib import Path

from modeldeploy.errors import OperationFailed
from modeldeploy.handles.predictor import infer
from modeldeploy.handles.sticky import Route
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.golden import Golden, allowed
from modeldeploy.packaging.manifest import GOLDEN
from modeldeploy.spi import Serving
from modeldeploy.values.model import ModelVersion
from modeldeploy.values.serving import Revision
from modeldeploy.values.tolerance import Tolerance

_TIMEOUT_S = 60.0
WITHOUT = "package it again with example= (a few rows of input), or pass golden=False"
_ROUNDING = (
    "compare the installed packages with the model's requirements; what is rounding may be allowed by"
    " golden={'float64': rtol}, and golden=False skips the check"
)


def check(
    backend: Serving, endpoint: str, revision: Revision, *, pinned: bool, tolerance: Tolerance | None = None
) -> None:
    """Send the example through the endpoint; OperationFailed names the output, the row, what was expected and what came.

    Sends one request of at most 32 rows; safe to repeat. A model without golden outputs fails: nothing can vouch for it.
    """
    golden = examples(revision.model)
    if not golden.rows:
        message = f"{revision.model} has no golden outputs to be held against"
        raise OperationFailed(message, hint=WITHOUT)
    outputs, answered = infer(
        backend,
        endpoint,
        golden.inputs,
        revision.model.signature,
        route=Route({}, revision.id if pinned else None),
        timeout=_TIMEOUT_S,
    )
    if answered not in {None, revision.id}:
        message = f"the golden example for {revision.id!r} was answered by {answered!r} on endpoint {endpoint!r}"
        raise OperationFailed(
            message, hint="somebody else changes this endpoint at the same time; look, then try again"
        )
    options = Bundle.open(Path(revision.model.uri)).manifest.options
    differences = golden.differences(outputs, allowed(options, tolerance or Tolerance()))
    if differences:
        message = (
            f"{revision.model} does not reproduce its golden outputs on endpoint {endpoint!r}: {'; '.join(differences)}"
        )
        raise OperationFailed(message, hint=_ROUNDING)


def examples(model: ModelVersion) -> Golden:
    """Read the golden examples of a packaged model."""
    return Golden.from_bytes(Bundle.open(Path(model.uri)).read(GOLDEN))
