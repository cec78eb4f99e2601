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

from collections.abc import Collection

from modeldeploy.backends.cloud import library
from modeldeploy.backends.sagemaker.archive import Member
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.digest import MANIFEST

BUNDLE = "bundle"
CODE = "code"
PROGRAM = "inference.py"
_HOME = "/opt/ml/model"
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
    shipped = [Member.of(f"{CODE}/{name}", data) for name, data in library.sources().items()]
    return [own, *files, *code, *shipped]


def requirements(bundle: Bundle) -> str:
    """Write ``requirements.txt``: what the bundle pins, and what the shipped library needs beside it."""
    return "".join(f"{text}\n" for text in library.needed(bundle))


def environment(bundle: Bundle, trust: Collection[str] = ()) -> dict[str, str]:
    """Give the environment of the container; IntegrityError for pickled content that nobody vouched for."""
    trusted = library.refuse_untrusted(bundle, trust)
    return {
        "SAGEMAKER_PROGRAM": PROGRAM,
        "SAGEMAKER_SUBMIT_DIRECTORY": f"{_HOME}/{CODE}",
        "PYTHONUNBUFFERED": "1",
        **({"MODELDEPLOY_TRUST": bundle.digest} if trusted else {}),
    }
