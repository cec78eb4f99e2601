"""What lies in ``model.tar.gz``: the bundle, and code by which a prebuilt image of the provider serves it.

::

    bundle/...                 the bundle as it is; where our own model server looks for it, too
    code/inference.py          the four handler functions that a prebuilt image calls
    code/requirements.txt      what the image installs before it starts
    code/modeldeploy/...       the part of this library that loads and serves a bundle

The library travels as source. A requirement would need an index that has this very version, from inside a VPC too, and a wheel beside the
file would need a path that pip resolves against its working directory, which no image promises. What loads the bundle is then exactly what
packaged it. The libraries that it needs are in ``requirements.txt``, with the versions that the model was packaged with.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator
from pathlib import Path

import modeldeploy
from modeldeploy.backends.sagemaker.archive import Member
from modeldeploy.errors import IntegrityError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.manifest import MANIFEST

BUNDLE = "bundle"
CODE = "code"
PROGRAM = "inference.py"
_HOME = "/opt/ml/model"
_NEEDED = ("attrs>=25.1", "numpy>=1.26", "orjson>=3.10", "packaging>=24")
"""What the shipped part of the library imports; docs/dependencies.md has the reasons."""
_OWN = "modeldeploy"
_SHIPPED = ("values", "packaging", "serving")
_SHIPPED_FILES = ("__init__.py", "errors.py")

_INFERENCE = '''\
"""The functions that the image calls; the work is done by the modeldeploy beside this file."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from modeldeploy.serving.handlers import input_fn, model_fn, output_fn, predict_fn  # noqa: E402

__all__ = ["input_fn", "model_fn", "output_fn", "predict_fn"]
'''


def members(bundle: Bundle) -> list[Member]:
    """List the files of the archive; those of the bundle with the digests that its manifest has."""
    manifest = bundle.path / MANIFEST
    own = Member(f"{BUNDLE}/{MANIFEST}", manifest.stat().st_size, bundle.digest.removeprefix("sha256:"), path=manifest)
    files = [
        Member(f"{BUNDLE}/{name}", each.size, each.sha256, path=bundle.path / name)
        for name, each in bundle.manifest.files.items()
    ]
    code = [
        Member.of(f"{CODE}/{PROGRAM}", _INFERENCE.encode()),
        Member.of(f"{CODE}/requirements.txt", requirements(bundle).encode()),
    ]
    return [own, *files, *code, *_library()]


def requirements(bundle: Bundle) -> str:
    """Write ``requirements.txt``: what the bundle pins, and what the shipped library needs beside it."""
    pinned = [text for text in bundle.manifest.requirements if _name(text) != _OWN]
    named = {_name(text) for text in pinned}
    return "".join(f"{text}\n" for text in [*pinned, *(text for text in _NEEDED if _name(text) not in named)])


def environment(bundle: Bundle, trust: Collection[str] = ()) -> dict[str, str]:
    """Give the environment of the container; IntegrityError for pickled content that nobody vouched for."""
    trusted = bundle.digest in trust
    if bundle.manifest.pickled and not trusted:
        message = (
            f"{bundle.manifest.name} {bundle.manifest.version} holds pickled code and nobody here vouched for "
            f"{bundle.digest}"
        )
        raise IntegrityError(
            message, hint=f"if you know where it comes from, pass trust={bundle.digest!r} to Model.from_path"
        )
    return {
        "SAGEMAKER_PROGRAM": PROGRAM,
        "SAGEMAKER_SUBMIT_DIRECTORY": f"{_HOME}/{CODE}",
        "PYTHONUNBUFFERED": "1",
        **({"MODELDEPLOY_TRUST": bundle.digest} if trusted else {}),
    }


@functools.cache
def _library() -> tuple[Member, ...]:
    root = Path(modeldeploy.__file__).parent
    return tuple(Member.of(f"{CODE}/{_OWN}/{name}", (root / name).read_bytes()) for name in sorted(_sources(root)))


def _sources(root: Path) -> Iterator[str]:
    yield from _SHIPPED_FILES
    for folder in _SHIPPED:
        yield from (path.relative_to(root).as_posix() for path in (root / folder).rglob("*.py"))


def _name(requirement: str) -> str:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    return canonicalize_name(Requirement(requirement).name)
