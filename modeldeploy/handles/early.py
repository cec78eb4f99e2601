"""What a deployment, or a batch job, can have begun before it is looked at, and before what looks at it is loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from modeldeploy import config, registry
from modeldeploy.errors import ModelDeployError


def expect(model: object, backend: object, home: Path | str | None) -> None:
    """Let a backend that is named know which flavour is about to be deployed; what is wrong is told by the deployment itself."""
    from modeldeploy.handles.model import Model

    with contextlib.suppress(ModelDeployError, OSError):
        if isinstance(model, Model) and (named := _named(backend)):
            name, settings = named
            place = settings.home if home is None else Path(home).absolute()
            registry.expect(name, config.at(settings, place), model.flavour)


@contextlib.contextmanager
def job_expected(backend: object, workers: int) -> Iterator[None]:
    """Let a backend that is named begin what a job will need, and end it unless the job took it; what is wrong is told by the job itself."""
    with contextlib.ExitStack() as begun:
        with contextlib.suppress(ModelDeployError, OSError):
            if named := _named(backend):
                begun.enter_context(registry.job_expected(named[0], workers))
        yield


def _named(backend: object) -> tuple[str, config.Settings] | None:
    """Give the name of a backend that is named or configured, and what is configured; None for one that is there already."""
    if not (backend is None or isinstance(backend, str)):
        return None
    settings = config.load()
    return backend or settings.backend, settings
