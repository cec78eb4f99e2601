"""Which program stands for an image: images are not pulled, processes are started."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence

import attrs

_ECR = re.compile(r"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/(?P<repository>[^:@]+)(?:[:@].+)?")
# The repositories of the provider's prebuilt framework images, whose containers honour code/inference.py.
_FRAMEWORKS = re.compile(
    r"(?:sagemaker-)?(?:scikit-learn|xgboost|pytorch|pytorch-inference|mxnet-inference|huggingface-pytorch-inference|tensorflow-inference)"
    r"(?:-.+)?"
)
PORT = "{port}"
MODEL_SERVER = (
    sys.executable, "-m", "modeldeploy.serving", "serve", "--host", "127.0.0.1", "--port", "0", "--auth", "none", "--announce",
)  # fmt: skip
TOOLKIT = (sys.executable, "-m", "modeldeploy.simulate.sagemaker.toolkit", "--port", "0", "--announce")


@attrs.frozen
class Images:
    """A table of programs by image or by repository; ``{port}`` in one stands for the port that it must listen on.

    A program without ``{port}`` chooses a port itself and prints a line of JSON with ``port`` in it.
    """

    known: Mapping[str, Sequence[str]] = attrs.field(factory=dict)

    def argv(self, image: str) -> Sequence[str] | None:
        """Find the program of an image; None when there is no such image."""
        repository = _repository(image)
        for name in (image, repository):
            if name in self.known:
                return self.known[name]
        if _FRAMEWORKS.fullmatch(repository):
            return TOOLKIT
        return MODEL_SERVER if "modeldeploy" in repository else None


def _repository(image: str) -> str:
    found = _ECR.fullmatch(image)
    return found["repository"] if found else image.partition(":")[0]
