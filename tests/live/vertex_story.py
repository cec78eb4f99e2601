"""The story of an endpoint and of a batch job on Vertex AI, told in a real project or on the rehearsal; cleans up whatever happens.

By hand: ``python tests/live/vertex_story.py --project ID --location REGION --bucket NAME``, or with ``--rehearse``. Credentials are found as Google's
own tools find them (``gcloud auth application-default login``).

It costs about as much as three ``n1-standard-2`` for an hour, and a few megabytes of storage: under a US dollar at the prices of 2026, which
nobody promised to keep. Everything is labelled ``live-test`` where it can be. The registered models and their files stay, as the record of
what was deployed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import uuid
from pathlib import Path

import story

from modeldeploy import Endpoint
from modeldeploy.backends.vertex import Vertex
from modeldeploy.backends.vertex.terms import Terms
from modeldeploy.errors import ModelDeployError


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="mdlive") as home:
        return tell(_arguments(), Path(home))


def tell(asked: argparse.Namespace, home: Path) -> int:
    labels = {"live-test": "true"}
    terms = Terms(rows_per_part=200, machine_type=asked.machine_type)
    if asked.rehearse:
        backend = Vertex.rehearsal(home=home, speed=600.0, labels=labels, batch_terms=terms)
    else:
        backend = Vertex(
            project=asked.project, location=asked.location, bucket=asked.bucket, machine_type=asked.machine_type,
            image=asked.image, base_image=asked.base_image, service_account=asked.service_account, home=home,
            labels=labels, batch_terms=terms,
        )  # fmt: skip
    story.say(f"as {backend.check()}, state in {home}")
    name = f"live-{uuid.uuid4().hex[:8]}"
    try:
        story._endpoint(backend, name, home)
        story._batch(backend, name, home)
    finally:
        left = _clean(backend, name)
        backend.close()
    story.say(f"left over: {left or 'nothing'}")
    return 1 if left else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--project", default="")
    parser.add_argument("--location", default="")
    parser.add_argument("--bucket", default="")
    parser.add_argument("--machine-type", default="n1-standard-2")
    parser.add_argument("--image", default="")
    parser.add_argument("--base-image", default="")
    parser.add_argument("--service-account", default="")
    return parser.parse_args()


def _clean(backend, name):
    """Delete the endpoint, with the staging ones of its rollouts, and name what is still there."""
    story.say("cleaning up")
    for each in [each for each in backend.endpoints() if each.startswith(name)]:
        try:
            Endpoint.get(each, backend=backend).delete(timeout=story.SLOW_S)
        except ModelDeployError as error:
            story.say(f"no endpoint to delete: {error}")
    return [each for each in backend.endpoints() if each.startswith(name)]


if __name__ == "__main__":
    sys.exit(main())
