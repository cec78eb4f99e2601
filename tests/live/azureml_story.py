"""The story of an endpoint on Azure ML, told on a real workspace or on the rehearsal; cleans up whatever happens.

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
import time
import uuid
from pathlib import Path

from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from modeldeploy import Endpoint, Model, RolloutPolicy
from modeldeploy.backends.azureml import AzureML
from modeldeploy.errors import ModelDeployError

SLOW_S = 60 * 60.0


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="mdlive") as home:
        return tell(_arguments(), Path(home))


def tell(asked: argparse.Namespace, home: Path) -> int:
    tags = {"modeldeploy-live": "true"}
    if asked.rehearse:
        backend = AzureML.rehearsal(home=home, speed=600.0, tags=tags)
    else:
        backend = AzureML(
            subscription_id=asked.subscription, resource_group=asked.group, workspace=asked.workspace,
            instance_type=asked.instance_type, image=asked.image, home=home, tags=tags,
        )  # fmt: skip
    say(f"as {backend.check()}, state in {home}")
    name = f"live-{uuid.uuid4().hex[:8]}"
    try:
        _endpoint(backend, name, home)
    finally:
        left = _clean(backend, name)
        backend.close()
    say(f"left over: {left or 'nothing'}")
    return 1 if left else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--subscription", default="")
    parser.add_argument("--group", default="")
    parser.add_argument("--workspace", default="")
    parser.add_argument("--instance-type", default="Standard_DS3_v2")
    parser.add_argument("--image", default="")
    return parser.parse_args()


def _models(home):
    table, target = load_iris(as_frame=True, return_X_y=True)
    first = LogisticRegression(max_iter=500).fit(table, target)
    second = DecisionTreeClassifier(max_depth=2, random_state=0).fit(table, target)
    v1 = Model(first, name="iris", version="1.0.0", example=table.head(20), home=home)
    v2 = Model(second, name="iris", version="1.1.0", example=table.head(20), home=home)
    return table, (first, v1), (second, v2)


def _endpoint(backend, name, home):
    table, (first, v1), (second, v2) = _models(home)
    ep = timed("deployed", lambda: Endpoint.deploy(v1, name=name, backend=backend, timeout=SLOW_S))
    assert ep.predict(table).tolist() == first.predict(table).tolist()
    timed("rolled out", lambda: ep.rollout(v2, RolloutPolicy.canary(steps=(50,), soak=2.0), timeout=SLOW_S))
    assert ep.predict(table).tolist() == second.predict(table).tolist()
    timed("rolled back", lambda: ep.rollback(reason="part of the story", timeout=SLOW_S))
    assert ep.predict(table).tolist() == first.predict(table).tolist()
    again = Endpoint.get(name, backend=backend)
    assert again.stable.id == ep.stable.id
    say(f"metrics: {ep.metrics()}")
    say(f"log: {len(list(ep.logs()))} lines")


def _clean(backend, name):
    """Delete the endpoint, and name what is still there."""
    say("cleaning up")
    try:
        Endpoint.get(name, backend=backend).delete(timeout=SLOW_S)
    except ModelDeployError as error:
        say(f"no endpoint to delete: {error}")
    return [each for each in backend.endpoints() if each == name]


def timed(what, act):
    began = time.monotonic()
    found = act()
    say(f"{what} in {time.monotonic() - began:.1f} s")
    return found


def say(text):
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
