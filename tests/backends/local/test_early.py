"""What is begun before the backend is loaded: the supervisor, with the libraries of the model that is about to be deployed."""

from __future__ import annotations

import sys

import pytest

from modeldeploy.backends.local import client, early
from modeldeploy.errors import ConfigurationError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the local backend needs Unix sockets")


def test_a_supervisor_is_begun_once_and_used_by_the_backend(local, modeldeploy_home, wait_until):
    early.expect(modeldeploy_home, {}, "function")
    early.expect(modeldeploy_home, {}, "function")
    begun = [pid for pid, home in client._started.items() if home == modeldeploy_home]
    local.deploy(local.revision(1))
    processes = local.backend.processes()
    assert [processes["supervisor"]] == begun
    if sys.platform == "linux":
        assert len(processes["forkservers"]) == 1


def test_one_that_answers_is_left_as_it_is(local, modeldeploy_home):
    """Whether a revision needs a fork server is known only to who reads its options."""
    local.backend.warm("")
    before = local.backend.processes()
    early.expect(modeldeploy_home, {}, "function")
    assert local.backend.processes() == before


def test_a_setting_that_is_none_is_refused_before_anything_is_begun(modeldeploy_home):
    with pytest.raises(ConfigurationError, match="idle_exit"):
        early.expect(modeldeploy_home, {"idle_exit": "soon"}, "function")
    assert modeldeploy_home not in client._started.values()
