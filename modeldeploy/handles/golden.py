"""The golden-output gate: the running revision must answer its example inputs as the model did when it was packaged."""

from __future__ import annotations

from pathlib import Path

from modeldeploy.errors import OperationFailed
from modeldeploy.handles.predictor import infer
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.golden import Golden
from modeldeploy.packaging.manifest import GOLDEN
from modeldeploy.spi import Serving
from modeldeploy.values.serving import Revision

_TIMEOUT_S = 60.0


def check(backend: Serving, endpoint: str, revision: Revision, *, pinned: bool) -> None:
    """Send the example through the endpoint; OperationFailed names the output, the row, what was expected and what came.

    Sends one request of at most 32 rows; safe to repeat.
    """
    golden = Golden.from_bytes(Bundle.open(Path(revision.model.uri)).read(GOLDEN))
    outputs, _answered = infer(
        backend,
        endpoint,
        golden.inputs,
        revision.model.signature,
        revision=revision.id if pinned else None,
        timeout=_TIMEOUT_S,
    )
    differences = golden.differences(outputs)
    if differences:
        message = (
            f"{revision.model} does not reproduce its golden outputs on endpoint {endpoint!r}: {'; '.join(differences)}"
        )
        raise OperationFailed(message, hint="compare the installed packages with the model's requirements")
