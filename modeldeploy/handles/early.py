"""What a deployment can have begun before it is looked at, and before what looks at it is loaded."""

from __future__ import annotations

import contextlib
from pathlib import Path

from modeldeploy import config, registry
from modeldeploy.errors import ModelDeployError
from modeldeploy.handles.model import Model


def expect(model: object, backend: object, home: Path | str | None) -> None:
    """Let a backend that is named know which flavour is about to be deployed; what is wrong is told by the deployment itself."""
    if not isinstance(model, Model) or not (backend is None or isinstance(backend, str)):
        return
    with contextlib.suppress(ModelDeployError, OSError):
        settings = config.load()
        place = settings.home if home is None else Path(home).absolute()
        registry.expect(backend or settings.backend, config.at(settings, place), model.flavour)
