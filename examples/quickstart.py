"""The main job on real data, in under a minute: deploy, predict, canary, a bad version taken back, rollback, batch.

Run it with ``make quickstart``, or on the rehearsal of a cloud with ``make quickstart BACKEND=sagemaker`` (or ``azureml``, or ``vertex``): the story is the same. It works in
a state directory of its own and leaves nothing running.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modeldeploy import BatchJob, Endpoint, Model, RolloutPolicy
from modeldeploy.cli import main as command
from modeldeploy.errors import InvalidRequestError, RolloutAborted

# Named by MODELDEPLOY_BACKEND, as for any program that uses this library.
LOCAL = os.environ.get("MODELDEPLOY_BACKEND", "local") == "local"
# A rehearsal has its whole cloud in this one process; more callers would only take its time.
CONNECTIONS = 8 if LOCAL else 2
BATCH_ROWS = 200_000


def main() -> None:
    """Tell the story."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="modeldeploy-quickstart-") as home:
        os.environ["MODELDEPLOY_HOME"] = home
        try:
            story(Path(home))
        finally:
            command(["stop"])
    say(f"\nDone in {time.perf_counter() - began:.1f} s; nothing is left running.")


def story(folder: Path) -> None:
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    train, test = X.iloc[:400], X.iloc[400:]
    labels, truth = y.iloc[:400], y.iloc[400:]

    title("1. Train two versions (breast cancer data, 30 features)")
    first = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(train, labels)
    second = RandomForestClassifier(30, max_depth=6, n_jobs=1, random_state=0).fit(train, labels)
    say(
        f"accuracy on {len(test)} held-out rows: 1.0.0 {first.score(test, truth):.3f}, 1.1.0 {second.score(test, truth):.3f}"
    )

    title("2. Package and deploy 1.0.0")
    v1, took = timed(lambda: Model(first, name="tumour", version="1.0.0", example=test.head(20)))
    say(f"packaged as {v1.flavour} in {took:.2f} s, {v1.digest[:19]}, golden outputs for 20 rows")
    endpoint, took = timed(lambda: Endpoint.deploy(v1, name="tumour"))
    say(f"serving at {endpoint.url} after {took:.2f} s")
    try:
        predict(endpoint, test, truth)
        roll(endpoint, second, test)
        batch(endpoint, test, folder)
    finally:
        endpoint.delete(reason="end of the story")


def predict(endpoint: Endpoint, test: pd.DataFrame, truth: pd.Series) -> None:
    title("3. Predict: through the SDK, over HTTP, and with a wrong input")
    answer, took = timed(lambda: endpoint.predict(test))
    say(
        f"SDK: {len(answer)} rows in {took * 1000:.1f} ms, a {type(answer).__name__}, accuracy {np.mean(answer == truth):.3f}"
    )
    answered = post(endpoint.url, test.head(3)) if LOCAL else "only with the cloud's own credentials; the SDK has them"
    say(f"HTTP: POST {endpoint.url}/invocations -> {answered}")
    try:
        endpoint.predict(test.rename(columns={"mean radius": "radius"}))
    except InvalidRequestError as error:
        say(f"wrong input: {error}")


def roll(endpoint: Endpoint, second: RandomForestClassifier, test: pd.DataFrame) -> None:
    title(f"4. Canary of 1.1.0 under live traffic from {CONNECTIONS} connections: promotes")
    policy = RolloutPolicy.canary(
        (25, 50), soak=1.5, gates=["error_rate <= 2%", "p95_latency <= 10x"], interval=0.1, max_soak=60
    )
    v2 = Model(second, name="tumour", version="1.1.0", example=test.head(20))
    say(str(endpoint.plan(v2, policy)))
    with Load(endpoint, test) as load:
        rollout, took = timed(lambda: endpoint.rollout(v2, policy))
    say(f"{rollout.status} after {took:.1f} s, traffic {rollout.traffic}; {load}")

    title("5. A broken 1.2.0 (passes its examples, fails on large tumours): the gate takes it back")
    broken = Model(Broken(second), name="tumour", version="1.2.0", example=test[test["mean radius"] < LARGE].head(20))
    with Load(endpoint, test) as load:
        try:
            endpoint.rollout(broken, policy)
        except RolloutAborted as error:
            say(f"RolloutAborted: {error}")
    say(f"traffic {endpoint.traffic}; {load}")
    say(str(endpoint.metrics()))

    title("6. Roll back to 1.0.0 under the same traffic")
    with Load(endpoint, test) as load:
        time.sleep(0.5)
        _rollout, took = timed(lambda: endpoint.rollback(reason="recall dropped"))
        time.sleep(0.5)
    say(f"back on {endpoint.stable.model} in {took * 1000:.0f} ms; {load}")
    say(str(endpoint.history))


def batch(endpoint: Endpoint, test: pd.DataFrame, folder: Path) -> None:
    title(f"7. Score a parquet file of {BATCH_ROWS:,} rows")
    rows = test.sample(BATCH_ROWS, replace=True, random_state=0, ignore_index=True)
    rows.insert(0, "id", np.arange(BATCH_ROWS))
    rows.to_parquet(folder / "in.parquet")
    source, output = folder / "in.parquet", folder / "out.parquet"
    job, took = timed(lambda: BatchJob.run(endpoint.stable, source, output, key="id"))
    scored = pd.read_parquet(folder / "out.parquet", columns=["id", "prediction"])
    say(
        f"{job.status}: {len(scored):,} rows in {took:.1f} s ({BATCH_ROWS / took:,.0f} rows/s), every id once: {scored['id'].is_unique}"
    )


LARGE = 17.0


class Broken:
    """A model with a fault that its examples do not show."""

    def __init__(self, model) -> None:
        self.model = model

    def predict(self, X):
        if (X["mean radius"] > LARGE).any():
            message = "no table for large tumours"
            raise ValueError(message)
        return self.model.predict(X)


class Load:
    """Callers that keep asking one row at a time over kept-alive connections, and count what they see."""

    def __init__(self, endpoint, rows: pd.DataFrame) -> None:
        self._endpoint = endpoint
        self._host = endpoint.url.removeprefix("http://").partition("/")[0]
        self._rows = [rows.iloc[[at]] for at in range(len(rows))]
        self._bodies = [body(each) for each in self._rows]
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(at,)) for at in range(CONNECTIONS)]
        self.statuses: dict[object, int] = {}
        self._lock = threading.Lock()

    def _ask(self, at: int) -> None:
        counts: dict[object, int] = {}
        with contextlib.closing(http.client.HTTPConnection(self._host)) as connection:
            while not self._stop.is_set():
                at = (at + CONNECTIONS) % len(self._rows)
                status = self._post(connection, at) if LOCAL else self._predict(at)
                counts[status] = counts.get(status, 0) + 1
        with self._lock:
            for status, count in counts.items():
                self.statuses[status] = self.statuses.get(status, 0) + count

    def _post(self, connection: http.client.HTTPConnection, at: int) -> object:
        try:
            connection.request("POST", "/invocations", self._bodies[at], {"content-type": "application/json"})
            with connection.getresponse() as answer:
                answer.read()
        except Exception as error:  # whatever it is, a caller saw it
            connection.close()
            return type(error).__name__
        return answer.status

    def _predict(self, at: int) -> object:
        try:
            self._endpoint.predict(self._rows[at])
        except Exception as error:
            return type(error).__name__
        return 200

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def __str__(self) -> str:
        bad = {status: count for status, count in self.statuses.items() if status != 200}
        return f"callers saw {self.statuses.get(200, 0):,} answers and {sum(bad.values())} failures{f' {bad}' if bad else ''}"


def body(rows: pd.DataFrame) -> bytes:
    return json.dumps({"instances": rows.to_dict("records")}).encode()


def post(url: str, rows: pd.DataFrame) -> str:
    request = urllib.request.Request(f"{url}/invocations", body(rows), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def timed(act):
    began = time.perf_counter()
    return act(), time.perf_counter() - began


def title(text: str) -> None:
    say(f"\n{text}")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
