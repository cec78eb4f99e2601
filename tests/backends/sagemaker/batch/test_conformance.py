"""Batch Transform passes the suite that every batch backend must pass, on the rehearsal with real containers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from modeldeploy.backends.sagemaker.backend import SageMaker
from modeldeploy.backends.sagemaker.terms import Terms
from modeldeploy.engine.drivers import RealClock
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store
from modeldeploy.testing.batch import BatchConformance
from modeldeploy.testing.harness import Harness
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.names import short_hash


def _double(columns):
    return columns["x"] * 2


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    example = {"x": np.array([0.5, 1.0])}
    bundle = package(_double, name="double", version="1.0.0", example=example, store=Store(home / "store"))
    backend = SageMaker.rehearsal(home=home, speed=1000.0)
    backend.batch._terms = Terms(rows_per_part=100, parts_per_job=2)
    yield home, backend, bundle.model_version()
    backend.close()


class TestJobs(BatchConformance):
    """A file of three hundred rows in three parts, two transform jobs."""

    @pytest.fixture
    def harness(self, place, tmp_path):
        _home, backend, model = place
        table = tmp_path / "in.csv"
        table.write_text("x\n" + "\n".join(str(float(number)) for number in range(300)) + "\n")
        numbers = itertools.count(1)

        def job():
            number = next(numbers)
            name = f"job-{short_hash(str(tmp_path))}-{number}"
            return BatchSpec(
                name, model, (str(table),), str(tmp_path / f"out-{number}.csv"), workers=1,
                options={"part_bytes": "700"},
            )  # fmt: skip

        return Harness(backend, (), clock=RealClock(), job=job, seconds=60.0)
