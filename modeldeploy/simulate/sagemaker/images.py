"""Which program stands for an image: images are not pulled, processes are started."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from modeldeploy.simulate.processes import MODEL_SERVER, Program

_ECR = re.compile(r"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.[a-z0-9.]+/(?P<repository>[^:@]+)(?:[:@].+)?")
# The repositories of the provider's prebuilt framework images, whose containers call code/inference.py.
_FRAMEWORKS = re.compile(
    r"(?:sagemaker-)?(?:xgboost|pytorch-inference|mxnet-inference|huggingface-pytorch-inference|tensorflow-inference|pytorch)(?:-.+)?"
)
_SCIKIT_LEARN = re.compile(r"(?:sagemaker-)?scikit-learn")
_SCRIPT = str(Path(__file__).with_name("toolkit.py"))


# -P: the script's directory holds this package's modules, whose names an image does not know.
TOOLKIT = Program((sys.executable, "-P", _SCRIPT, "--family", "inference"), library=False)
CONTAINERS = Program((sys.executable, "-P", _SCRIPT, "--family", "containers"), library=False)


@attrs.frozen
class Images:
    """The programs by image or by repository: those named here before those that are known anyway."""

    known: Mapping[str, Sequence[str]] = attrs.field(factory=dict)

    def program(self, image: str) -> Program | None:
        """Find the program of an image; None when there is no such image."""
        repository = _repository(image)
        for name in (image, repository):
            if name in self.known:
                return Program(self.known[name])
        if _SCIKIT_LEARN.fullmatch(repository):
            return CONTAINERS
        if _FRAMEWORKS.fullmatch(repository):
            return TOOLKIT
        return MODEL_SERVER if "modeldeploy" in repository else None


def _repository(image: str) -> str:
    found = _ECR.fullmatch(image)
    return found["repository"] if found else image.partition(":")[0]
