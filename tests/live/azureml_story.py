"""The story of an endpoint and of a batch job on Azure ML, told on a real workspace or on the rehearsal; cleans up whatever happens.

By hand: ``python tests/live/azureml_story.py --subscription ID --group NAME --workspace NAME``, or with ``--rehearse``. Credentials come from
azure-identity's own chain (``az login``).

It costs about as much as two ``Standard_DS3_v2`` for an hour, an image build, and a few megabytes of storage: about a US dollar at the
prices of 2026, which nobody promised to keep. Everything is tagged ``modeldeploy-live``. The registered models and environments stay, for
the service deletes none.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import uuid
from pathlib import Path

import story

from modeldeploy import Endpoint
from modeldeploy.backends.azureml import AzureML
from modeldeploy.backends.azureml.terms import Terms
from modeldeploy.errors import ModelDeployError


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="mdlive") as home:
        return tell(_arguments(), Path(home))


def tell(asked: argparse.Namespace, home: Path) -> int:
    tags = {"modeldeploy-live": "true"}
    terms = Terms(compute=asked.compute or "cpu-cluster", rows_per_part=200)
    if asked.rehearse:
        backend = AzureML.rehearsal(home=home, speed=600.0, tags=tags, batch_terms=terms)
    else:
        backend = AzureML(
            subscription_id=asked.subscription, resource_group=asked.group, workspace=asked.workspace,
            instance_type=asked.instance_type, image=asked.image, home=home, tags=tags, batch_terms=terms,
        )  # fmt: skip
    story.say(f"as {backend.check()}, state in {home}")
    name = f"live-{uuid.uuid4().hex[:8]}"
    try:
        story._endpoint(backend, name, home)
        if asked.rehearse or asked.compute:
            story._batch(backend, name, home)
    finally:
        left = _clean(backend, name)
        backend.close()
    story.say(f"left over: {left or 'nothing'}")
    return 1 if left else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--subscription", default="")
    parser.add_argument("--group", default="")
    parser.add_argument("--workspace", default="")
    parser.add_argument("--instance-type", default="Standard_DS3_v2")
    parser.add_argument("--image", default="")
    parser.add_argument("--compute", default="", help="a cluster; without one no table is scored")
    return parser.parse_args()


def _clean(backend, name):
    """Delete the endpoint, and name what is still there."""
    story.say("cleaning up")
    try:
        Endpoint.get(name, backend=backend).delete(timeout=story.SLOW_S)
    except ModelDeployError as error:
        story.say(f"no endpoint to delete: {error}")
    return [each for each in backend.endpoints() if each == name]


if __name__ == "__main__":
    sys.exit(main())
