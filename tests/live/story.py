"""The story of an endpoint and of a batch job on SageMaker, told on a real account or on the rehearsal; cleans up whatever happens.

By hand: ``python tests/live/story.py --role arn:aws:iam::111122223333:role/modeldeploy --region eu-west-1``, or with ``--rehearse``.
``--image`` names an image where the ``sagemaker`` package is not installed.

It costs about as much as two ``ml.m5.large`` for three quarters of an hour and one for a quarter, some objects of a few kilobytes, and a
few log lines: less than half a US dollar at the prices of 2026, which nobody promised to keep. Everything is tagged ``modeldeploy:live``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from modeldeploy import BatchJob, Endpoint, Model, RolloutPolicy
from modeldeploy.backends.sagemaker.backend import SageMaker
from modeldeploy.backends.sagemaker.terms import Terms
from modeldeploy.errors import ModelDeployError

SLOW_S = 45 * 60.0
_TERMS = Terms(rows_per_part=200)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="mdlive") as home:
        return tell(_arguments(), Path(home))


def tell(asked: argparse.Namespace, home: Path) -> int:
    if asked.rehearse:
        backend = SageMaker.rehearsal(home=home, speed=600.0)
        backend.batch._terms = _TERMS
    else:
        backend = SageMaker(
            region=asked.region, role=asked.role, bucket=asked.bucket, image=asked.image, home=home,
            tags={"modeldeploy:live": "true"}, batch_terms=_TERMS,
        )  # fmt: skip
    say(f"as {backend.check()}, state in {home}")
    name = f"live-{uuid.uuid4().hex[:8]}"
    try:
        _endpoint(backend, name, home)
        _batch(backend, name, home)
    finally:
        left = _clean(backend, name)
        backend.close()
    say(f"left over: {left or 'nothing'}")
    return 1 if left else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--role", default="")
    parser.add_argument("--region")
    parser.add_argument("--bucket", default="")
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


def _batch(backend, name, home):
    table, (first, v1), _second = _models(home)
    rows = table.loc[table.index.repeat(4)].reset_index(drop=True)
    rows["id"] = np.arange(len(rows))
    rows.loc[[5, 599], "petal width (cm)"] = np.nan
    rows.to_parquet(home / "in.parquet", row_group_size=200)
    job = timed(
        "scored",
        lambda: BatchJob.run(
            v1, home / "in.parquet", home / "out.parquet", key="id", max_bad_rows=2, name=name, backend=backend,
            timeout=SLOW_S,
        ),
    )  # fmt: skip
    assert job.progress.bad_rows == 2
    good = rows.drop(index=[5, 599])
    result = pq.read_table(home / "out.parquet")
    assert result.column("id").to_pylist() == good["id"].tolist()
    assert result.column("prediction").to_pylist() == first.predict(good[table.columns]).tolist()


def _clean(backend, name):
    """Delete the endpoint and whatever the job left, and name what is still there."""
    say("cleaning up")
    provider = backend._provider
    try:
        Endpoint.get(name, backend=backend).delete(timeout=SLOW_S)
    except ModelDeployError as error:
        say(f"no endpoint to delete: {error}")
    for each in list(provider.client.pages("sagemaker", "list_models", "Models", NameContains=name)):
        provider.delete_model(each["ModelName"])
    storage = provider.storage
    places = [f"modeldeploy/endpoints/{name}/", f"modeldeploy/batch/{name}/"]
    storage.delete([each.key for place in places for each in storage.below(place)])
    objects = [each.key for place in places for each in storage.below(place)]
    models = [
        each["ModelName"] for each in provider.client.pages("sagemaker", "list_models", "Models", NameContains=name)
    ]
    return [*objects, *models, *(each for each in backend.endpoints() if each == name)]


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
