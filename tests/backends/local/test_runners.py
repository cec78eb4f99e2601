"""The runner that begins before its job is known."""

from __future__ import annotations

import os

import attrs
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeldeploy import registry
from modeldeploy.backends.local import runners
from modeldeploy.backends.local.batch import LocalBatch
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store
from modeldeploy.scoring.durable import Lease
from modeldeploy.scoring.job import Job, Request
from modeldeploy.values.batch import BatchSpec

pytestmark = pytest.mark.skipif(os.name == "nt", reason="runners are detached with POSIX sessions")


def _double(columns):
    return columns["x"] * 2


@pytest.fixture
def request_(tmp_path):
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table({"id": np.arange(10), "x": np.arange(10.0)}), source)
    store = Store(tmp_path / "home" / "store")
    bundle = package(_double, name="double", version="1.0.0", example={"x": np.array([0.5])}, store=store)
    model = bundle.model_version()
    return Request(BatchSpec("the-job", model, (str(source),), str(tmp_path / "out.parquet")), trust=(model.digest,))


def _children():
    return {child.pid for child in psutil.Process().children(recursive=True)}


def test_one_that_is_told_no_job_ends_with_the_context(wait_until):
    with registry.job_expected("local", 1):
        assert len(_children()) == 1
    wait_until(lambda: not _children(), 30)


def test_other_backends_begin_nothing():
    with registry.job_expected("memory", 1):
        assert not _children()


def test_the_one_that_was_begun_is_told_the_job(request_, wait_until):
    with runners.expected(1):
        (begun,) = _children()
        early = runners.Early.told(request_)
        assert _children() == {begun}
        another = runners.Early.told(request_)
        assert len(_children()) == 2
    assert early.agrees()
    assert another.agrees()
    early.dismiss()
    another.dismiss()
    wait_until(lambda: not _children(), 30)


def test_one_disagrees_with_a_job_that_cannot_be_done_and_ends(request_, wait_until):
    wrong = attrs.evolve(request_, spec=attrs.evolve(request_.spec, columns={"x": "nowhere"}))
    early = runners.Early.told(wrong)
    assert not early.agrees()
    wait_until(lambda: not _children(), 30)


def test_one_that_disagreed_or_died_takes_no_lease(request_, tmp_path, wait_until):
    job = Job(tmp_path / "job")
    job.put(request_)
    wrong = attrs.evolve(request_, spec=attrs.evolve(request_.spec, columns={"x": "nowhere"}))
    lease = Lease.take(job.lease)
    assert not runners.Early.told(wrong).take(job, lease)
    lease.release()
    wait_until(lambda: not _children(), 30)


def test_a_refused_job_leaves_no_process(request_, tmp_path, wait_until):
    backend = LocalBatch(tmp_path / "home", trust=request_.trust)
    with pytest.raises(ValueError, match="nowhere"), runners.expected(1):
        backend.put_job(attrs.evolve(request_.spec, columns={"x": "nowhere"}))
    wait_until(lambda: not _children(), 30)
