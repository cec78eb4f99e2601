"""The one way by which errors leave a backend that calls a provider's library."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from modeldeploy.errors import ModelDeployError

Context: TypeAlias = "Mapping[str, str | float]"


@contextlib.contextmanager
def translated(of_error: Callable[[Exception, Context], ModelDeployError | None], context: Context) -> Iterator[None]:
    """Let only errors of ours out; what the provider or its library raised is their cause.

    ``of_error`` gives None for what is not the library's: a mistake of our own stays what it is.
    """
    try:
        yield
    except ModelDeployError:
        raise
    except Exception as error:
        found = of_error(error, context)
        if found is None:
            raise
        raise found from error
