"""From a bundle to an App that is proved: loaded, warm, and giving the answers that were recorded when it was packaged."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path

from modeldeploy.errors import IntegrityError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.golden import allowed
from modeldeploy.packaging.loading import LoadedModel, load
from modeldeploy.packaging.signature import check
from modeldeploy.serving.app import App, Routes
from modeldeploy.values.tolerance import Tolerance

_OFF = "false"


def boot(
    path: Path,
    *,
    name: str = "",
    revision: str = "",
    trust: Collection[str] = (),
    routes: Routes | None = None,
    metrics: Callable[[], str] | None = None,
    row_by_row: bool = False,
) -> App:
    """Load the bundle and check its golden examples; IntegrityError says which row and column differ.

    ``name`` and ``revision`` default to the model's own name and version. A bundle whose option ``batchable`` is ``"false"`` is predicted
    request by request; with ``row_by_row`` a row of JSON Lines that fails is answered with its reason.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    bundle = Bundle.open(path)
    model = load(bundle, trust=trust)
    manifest = bundle.manifest
    check_golden(model, allowed(manifest.options))
    app = App(
        model,
        name=name or manifest.name,
        version=manifest.version,
        revision=revision or manifest.version,
        batchable=manifest.options.get("batchable") != _OFF,
        routes=routes,
        metrics=metrics,
    )
    app.row_by_row = row_by_row
    return app


def check_golden(model: LoadedModel, tolerance: Tolerance) -> None:
    """Predict the golden inputs, which also warms the model up, and compare with what was recorded."""
    # Through the check, as every request: it puts the columns into the order that the model knows.
    inputs = check(model.signature, model.golden.inputs)
    differences = model.golden.differences(model.predict(inputs), tolerance)
    if differences:
        message = f"the model does not give its recorded answers: {'; '.join(differences)}"
        raise IntegrityError(
            message, hint="the versions of its libraries here may differ from those it was packaged with"
        )
