"""Which program stands for a container: images are neither built nor pulled, processes are started."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from modeldeploy.simulate.processes import MODEL_SERVER, Program
from modeldeploy.simulate.vertex.errors import ServiceError

SERVER = "modeldeploy.serving"
# Google's own images of model servers, which know model.joblib and the like and nothing of bundles.
_PREBUILT = re.compile(r"(?:[a-z]+-docker\.pkg\.dev|gcr\.io)/(?:vertex-ai|cloud-aiplatform)/prediction/.+")
_EXPANDED = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


@attrs.frozen
class Images:
    """The programs by image or by repository: those named here before those that are known anyway."""

    known: Mapping[str, Sequence[str]] = attrs.field(factory=dict)

    def program(self, container: Any) -> Program:
        """Find the program of a container; an error with the reason when none stands for it."""
        image = container.image_uri
        repository = image.rpartition("@")[0] or re.sub(r":[^/:]+$", "", image)
        for name in (image, repository, repository.rpartition("/")[2]):
            if name in self.known:
                return Program(self.known[name])
        started = " ".join((*container.command, *container.args))
        if SERVER in started or ("modeldeploy" in repository and not container.command):
            return MODEL_SERVER
        raise ServiceError("FAILED_PRECONDITION", _unknown(image))


def _unknown(image: str) -> str:
    if _PREBUILT.fullmatch(image):
        return (
            f"Image {image} was not started: it serves files of its own framework, and this rehearsal has no process that does. "
            f"A container whose command starts {SERVER} is served by this library's model server."
        )
    return f"Image {image} could not be pulled: no program of this rehearsal stands for it. Name one with images=, or start {SERVER} in it."


def expanded(text: str, environment: Mapping[str, str]) -> str:
    """Put the values of variables where ``$(NAME)`` stands; ``$$`` is a dollar, and what is not known stays.

    >>> expanded("$(PORT) $$(PORT) $(OTHER)", {"PORT": "8080"})
    '8080 $(PORT) $(OTHER)'
    """
    return _EXPANDED.sub(
        lambda found: "$" if found[0] == "$$" else environment.get(found[1], found[0]) if found[1] else found[0], text
    )
