"""A batch backend on the simulator's storage and models, with transform jobs that a test moves on by hand.

What a container would answer is computed by the model server's own code; which files fail, and how a job ends, is the test's to say.
The simulator's own transform jobs, with real containers, are used in ``test_rehearsal.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeldeploy.backends.sagemaker.batch import TransformBatch
from modeldeploy.backends.sagemaker.client import Access, Client
from modeldeploy.backends.sagemaker.pace import Pace
from modeldeploy.backends.sagemaker.provider import Provider
from modeldeploy.backends.sagemaker.terms import Terms
from modeldeploy.backends.sagemaker.transform import Seen, Status
from modeldeploy.backends.sagemaker.translate import Defaults
from modeldeploy.errors import ConflictError
from modeldeploy.packaging.loading import load
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store
from modeldeploy.serving import lines
from modeldeploy.simulate.sagemaker import Simulator
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.ticket import Phase

RAISES, NAN, KILLS = 666.0, 777.0, 888.0
"""Values of ``x`` that the model raises on, answers NaN to, and (by the test's service) does not survive."""
IMAGE = "modeldeploy:1"


def _score(columns):
    x = columns["x"]
    if (x == 666.0).any():
        message = "the number of the beast"
        raise ValueError(message)
    return np.where(x == 777.0, np.nan, 2.0 * x + columns["y"])


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    example = {"x": np.array([0.5, 1.0]), "y": np.array([1, 2])}
    store = Store(tmp_path_factory.mktemp("bundles"))
    return package(_score, name="scorer", version="1.0.0", example=example, store=store)


@pytest.fixture(scope="module")
def cloud():
    with Simulator(speed=1000.0) as simulator:
        yield simulator


@attrs.define
class Service:
    """Stands for the transform jobs of the account."""

    storage: Any
    model: Any
    jobs: dict[str, Seen] = attrs.field(factory=dict)
    asked: list[dict[str, Any]] = attrs.field(factory=list)
    kills: bool = False
    """Whether a file with a row of KILLS fails its job, as a container that dies does."""
    looks: int = 1
    """How often a job is looked at before it ends."""
    fail: list[str] = attrs.field(factory=list)
    """Reasons for which the next jobs fail without touching a file."""
    left: dict[str, int] = attrs.field(factory=dict)
    before: Callable[[str], object] = attrs.field(default=lambda _call: None)
    log: list[str] = attrs.field(factory=list)
    listed: list[list[str]] = attrs.field(factory=list)
    """The files of each job."""

    def create(self, wanted):
        self.before("create")
        name, source = wanted["TransformJobName"], wanted["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
        if name in self.jobs:
            if self.jobs[name].source != source:
                message = "other work"
                raise ConflictError(message)
            return self.jobs[name]
        self.asked.append(wanted)
        self.listed.append([Path(key).name for key in self._inputs(source)])
        self.jobs[name] = Seen(name, Status.IN_PROGRESS, source)
        self.left[name] = self.looks
        self.before("created")
        return self.jobs[name]

    def see(self, name):
        self.before("see")
        if name in self.jobs and self.jobs[name].status is Status.IN_PROGRESS:
            self.left[name] -= 1
            if self.left[name] < 0:
                self._end(name)
        if name in self.jobs and self.jobs[name].status is Status.STOPPING:
            self.jobs[name] = attrs.evolve(self.jobs[name], status=Status.STOPPED)
            return attrs.evolve(self.jobs[name], status=Status.STOPPING)
        return self.jobs.get(name)

    def stop(self, name):
        if name in self.jobs and not self.jobs[name].status.ended:
            self.jobs[name] = attrs.evolve(self.jobs[name], status=Status.STOPPING)

    def lines(self, name):
        return self.log

    def _end(self, name):
        job = self.jobs[name]
        if self.fail:
            self.jobs[name] = attrs.evolve(job, status=Status.FAILED, reason=self.fail.pop(0))
            return
        wanted = next(each for each in self.asked if each["TransformJobName"] == name)
        failed = [key for key in self._inputs(job.source) if not self._score(key, wanted)]
        status = Status.FAILED if failed else Status.COMPLETED
        reason = "ClientError: see job logs for more information" if failed else ""
        self.jobs[name] = attrs.evolve(job, status=status, reason=reason)

    def _inputs(self, source):
        first, *names = json.loads(self.storage.get(self._key(source)))
        return [self._key(first["prefix"]) + name for name in names]

    def _key(self, url):
        return url.removeprefix(f"s3://{self.storage.bucket}/")

    def _score(self, key, wanted):
        body = self.storage.get(key)
        if self.kills and any(orjson.loads(line)[0] == KILLS for line in body.splitlines()):
            return False
        assert wanted["Environment"] == {lines.SWITCH: "true"}
        folder = self._key(wanted["TransformOutput"]["S3OutputPath"])
        self.storage.put(f"{folder}/{Path(key).name}.out", lines.answer(body, self.model).body)
        return True


@attrs.define
class Lab:
    """A backend, its service, and a table."""

    folder: Path
    home: Path
    provider: Provider
    service: Service
    bundle: Any
    terms: Terms

    @property
    def backend(self):
        """Give the backend as another process would make it."""
        return TransformBatch(
            self.home,
            self.provider,
            terms=self.terms,
            pace=Pace(1e9),
            trust=[self.bundle.digest],
            transforms=self.service,
        )

    @property
    def listed(self):
        """Name the files of each transform job."""
        return self.service.listed

    def table(self, rows, special=None):
        x = np.arange(rows, dtype=np.float64) / -4
        for row, value in (special or {}).items():
            x[row] = value
        return pa.table({"id": np.arange(rows) + 1000, "x": x, "y": np.arange(rows) % 7})

    def write(self, table, name="in.parquet"):
        path = self.folder / name
        pq.write_table(table, path, row_group_size=50)
        return path

    def spec(self, *sources, name="the-job", output="out.parquet", **options):
        settings = {"key": "id", "chunk_rows": 10, "workers": 1, **options}
        place = f"{self.folder / output}" + ("/" if output.endswith("/") else "")
        return BatchSpec(
            name=name, model=self.bundle.model_version(), source=tuple(map(str, sources)), output=place, **settings
        )

    def run(self, spec, *, steps=2000):
        """Advance to the end, each time as another process."""
        ticket = self.backend.put_job(spec)
        for _step in range(steps):
            if ticket.phase.ended:
                return ticket
            ticket = self.backend.advance(ticket)
        pytest.fail(f"did not end: {ticket}")

    def succeed(self, spec):
        ticket = self.run(spec)
        assert ticket.phase is Phase.SUCCEEDED, ticket.note
        return ticket

    def result(self, output="out.parquet"):
        return pq.read_table(self.folder / output, use_threads=False)

    def quarantine(self, output="out.parquet"):
        path = self.folder / f"{output.rstrip('/')}.quarantine.jsonl"
        return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    def check(self, table, without=(), output="out.parquet"):
        """Assert that the output holds every row exactly once, in order, but those set aside."""
        result = self.result(output)
        wanted = table.take(np.setdiff1d(np.arange(table.num_rows), sorted(without)))
        assert result.column("id").to_pylist() == wanted.column("id").to_pylist()
        x, y = wanted.column("x").to_numpy(), wanted.column("y").to_numpy()
        assert (result.column("prediction").to_numpy() == 2 * x + y).all()
        assert [each["row"] for each in self.quarantine(output)] == sorted(without)

    def left(self):
        """Name what is left in the bucket, and the Models."""
        models = [each["ModelName"] for each in self.provider.client.pages("sagemaker", "list_models", "Models")]
        return [each.key for each in self.provider.storage.below("")] + models


@pytest.fixture
def lab(tmp_path, cloud, bundle, modeldeploy_home):
    access = Access(session=cloud.session(), endpoint_url=cloud.url)
    client = Client(access)
    provider = Provider(client, Defaults(role=cloud.role, bucket=cloud.bucket, image=IMAGE))
    model = load(bundle, trust=[bundle.digest])
    made = Lab(
        tmp_path,
        modeldeploy_home,
        provider,
        Service(provider.storage, model),
        bundle,
        Terms(parts_per_job=3, rows_per_part=40),
    )
    yield made
    storage = provider.storage
    storage.delete([each.key for each in storage.below("")])
    for each in client.pages("sagemaker", "list_models", "Models"):
        provider.delete_model(each["ModelName"])
    client.close()
