"""Workers that grow are replaced while they serve, and nobody notices."""

from __future__ import annotations

import os
import sys

import numpy as np
import psutil
import pytest

from modeldeploy.backends.local.options import RevisionOptions
from modeldeploy.backends.local.relief import resident
from modeldeploy.errors import ConfigurationError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


class Leaky:
    """Answers ``x + 1``, and keeps a megabyte of each request."""

    def __init__(self, kept: int) -> None:
        self.kept = [b"" for _each in range(kept)]

    def predict(self, x):
        self.kept.append(np.ones(1 << 17))
        return np.asarray(x, dtype=float) + 1


@pytest.mark.row(17)
@pytest.mark.parametrize("retry", ["true", "false"])
def test_a_worker_that_outgrows_its_limit_is_relieved_without_a_failed_request(local, under_load, wait_until, retry):
    revision = local.revision(1, model=Leaky(0), max_memory_mb="200", retry_on_crash=retry)
    local.deploy(revision)
    seen = set()

    def look():
        seen.update(local.workers(revision))
        return len(seen) > 3

    with under_load(1.0, connections=4) as load:
        wait_until(look, timeout=60, what="three times another worker")
    assert load.failed == []
    wait_until(lambda: len(local.workers(revision)) == 1, what="the end of the relieved")
    text = "\n".join(line.text for line in local.backend.lines("iris", revision.id, since=0, limit=1000))
    assert "has outgrown 200 MB; relieving it" in text
    assert "ended with" not in text, "they were asked to go, and went"


def test_a_limit_below_what_a_worker_takes_from_the_start_is_not_heeded(local):
    revision = local.revision(1, max_memory_mb="5")
    local.deploy(revision)
    (before,) = local.workers(revision)
    assert local.predict(1.0) == [2.0]
    assert local.workers(revision) == [before]
    text = "\n".join(line.text for line in local.backend.lines("iris", revision.id, since=0, limit=1000))
    assert "max_memory_mb=5 is less than a worker takes from the start" in text


def test_the_memory_of_a_process_is_what_the_system_says():
    assert resident(os.getpid()) == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)
    assert resident(1 << 30) == 0


def test_a_limit_is_refused_where_memory_cannot_be_read(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ConfigurationError, match="max_memory_mb needs Linux"):
        RevisionOptions(max_memory_mb=100)
