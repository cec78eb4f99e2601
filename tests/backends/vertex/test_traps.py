"""One test for each trap that the provider's library holds ready, so that whoever changes the code here falls into none of them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from modeldeploy.backends.vertex import Vertex, client, names
from modeldeploy.backends.vertex.client import Access, Client
from modeldeploy.backends.vertex.storage import Storage
from modeldeploy.errors import CredentialsError, UnavailableError
from modeldeploy.values.serving import EndpointSpec, Traffic
from modeldeploy.values.ticket import Phase


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """A machine without credentials and without a metadata server."""
    for name in (*client._GOOGLE_MACHINES, "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setattr(client, "_PRODUCT", tmp_path / "none")


# Traffic: the high-level classes round, and give an idle revision a share


def split(town, name):
    seen = town.backend._provider.entity(name)
    return dict(seen.traffic_split)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=some.integers(0, 100), second=some.integers(0, 100))
def test_a_table_is_written_as_it_was_asked_for_and_an_idle_revision_stays_idle(town, first, second):
    if town.backend.observe("tables") is None:
        town.deploy("tables", *town.revisions)
    a, b, c = (revision.id for revision in town.revisions)
    first, second = sorted([first, second])
    table = Traffic({a: first, b: second - first, c: 100 - second})
    town.succeed(town.backend.set_traffic("tables", table))
    ids = {names.deployed_id(name): percent for name, percent in table.live.items()}
    assert split(town, "tables") == ids
    assert town.backend.observe("tables").traffic.live == table.live


def test_another_revision_beside_an_idle_one_moves_nothing(town):
    first, second, third = town.revisions
    town.deploy("idle", first, second)
    town.succeed(town.backend.set_traffic("idle", Traffic({first.id: 71, second.id: 29})))
    town.succeed(town.backend.set_traffic("idle", Traffic.all_to(first.id)))
    town.succeed(town.backend.put_revision(EndpointSpec("idle"), third))
    town.succeed(town.backend.drop_revision("idle", second.id))
    assert split(town, "idle") == {names.deployed_id(first.id): 100}


# An empty split: the high-level class drops it in silence


def test_an_empty_split_is_written(town):
    town.deploy("empty", town.revisions[0])
    provider = town.backend._provider
    provider.put_traffic(provider.seen("empty"), Traffic())
    assert split(town, "empty") == {}
    # A revision that is put to an endpoint where nothing takes traffic takes all of it.
    town.succeed(town.backend.put_revision(EndpointSpec("empty"), town.revisions[0]))
    assert town.backend.observe("empty").traffic.live == {town.revisions[0].id: 100}


# Long-running operations: result() gives up before its deadline, and after 900 s at the latest


def test_an_operation_that_goes_on_is_waited_for_and_taken_up_by_another_process(town):
    first = town.revisions[0]
    town.faults.stuck = {"DeployModel": 1}
    town.made.append("stuck")
    ticket = town.backend.put_revision(EndpointSpec("stuck"), first)
    until = time.monotonic() + 10
    while "deploys" not in ticket.note:
        assert time.monotonic() < until
        ticket = town.backend.advance(ticket)
    # Many times as long as the poll of the library would last at this speed, each call returns at once and nothing gives up.
    for _look in range(50):
        began = time.monotonic()
        ticket = town.backend.advance(ticket)
        assert time.monotonic() - began < 5
        assert (ticket.phase, "deploys" in ticket.note) == (Phase.RUNNING, True)
    # The handle is the ticket: any process goes on by the operation's name, or asks it to stop.
    ended = town.carry(town.backend.cancel(ticket))
    assert ended.phase is Phase.CANCELLED


def test_nothing_here_waits_by_the_librarys_own_poll():
    sources = Path(client.__file__).parent.glob("*.py")
    assert not [path.name for path in sources if ".result(" in path.read_text(encoding="utf-8")]


# Time-outs: the generated clients have none


def test_a_call_that_is_never_answered_is_given_up(town):
    town.deploy("hangs", town.revisions[0])
    town.faults.hang = {"GetEndpoint": 1}
    began = time.monotonic()
    with pytest.raises(UnavailableError):
        town.backend._client.call(
            "endpoint", "get_endpoint", {"name": town.backend._provider.resource("hangs")}, timeout=0.3
        )
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("method", ["call", "every"])
def test_every_call_of_the_control_plane_has_a_timeout(method):
    sent = {}

    class Fake:
        def __getattr__(self, name):
            def act(**kwargs):
                sent.update(kwargs)
                return []

            return act

    made = Client(Access("p", "l"))
    made.service = lambda kind, host="": Fake()
    getattr(made, method)("endpoint", "list_endpoints", {})
    assert sent["timeout"] == client.TIMEOUT_S
    assert sent["retry"] is None


# Credentials: without any, the library asks a metadata server for nine seconds


def test_missing_credentials_are_told_at_once_with_the_command(nowhere):
    began = time.monotonic()
    with pytest.raises(CredentialsError) as caught:
        Vertex(project="p", location="europe-west4").check()
    assert time.monotonic() - began < 5
    assert "gcloud auth application-default login" in caught.value.hint
    assert not caught.value.transient


def test_a_key_file_that_is_named_and_not_there_is_told(nowhere, monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "gone.json"))
    with pytest.raises(CredentialsError, match=r"gone\.json"):
        client.find_credentials()


def test_a_machine_of_googles_is_asked(nowhere, monkeypatch, tmp_path):
    assert not client.on_google()
    monkeypatch.setenv("K_SERVICE", "run")
    assert client.on_google()
    monkeypatch.delenv("K_SERVICE")
    product = tmp_path / "product"
    product.write_text("Google Compute Engine\n")
    monkeypatch.setattr(client, "_PRODUCT", product)
    assert client.on_google()


def test_the_project_is_never_guessed_by_asking_the_network(nowhere, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "named")
    made = Vertex(location="europe-west4")
    assert made._client.access.parent == "projects/named/locations/europe-west4"


# Proxies capture loopback


def test_a_proxy_of_the_environment_does_not_capture_the_rehearsal(town, monkeypatch):
    town.deploy("proxied", town.revisions[0])
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    # New channels and a new session, which read the environment when they are made.
    town.backend._client.close()
    assert town.answered("proxied") == town.revisions[0].id
    assert town.backend.observe("proxied") is not None
    assert [each.key for each in Storage(town.backend._client).below("modeldeploy/models/")]
    assert town.backend.lines("proxied", town.revisions[0].id, since=0.0, limit=1) is not None


# Forks: a channel that a child inherits may hang it


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_process_makes_its_own_connections_and_breaks_none(town):
    town.deploy("forked", town.revisions[0])
    made = town.backend._client
    before = made.service("endpoint")
    mine = {key for key in made._made if key[0] == os.getpid()}
    assert mine

    class Elsewhere(Client):
        """The same client as a child process would hold it: everything that it finds was made under another number."""

    child = Elsewhere(made.access)
    child._made = {(-1, name): value for (_pid, name), value in made._made.items()}
    other = child.service("endpoint")
    assert other is not before
    child.close()
    # The parent's channel was neither used nor closed.
    assert made.service("endpoint") is before
    assert town.answered("forked") == town.revisions[0].id


CHILD = """
import os, sys
from modeldeploy.backends.vertex.rehearsal import start
from modeldeploy.backends.vertex.client import Client
backend = start(speed=1000.0)
print(backend.check(), flush=True)
inherited = dict(backend._client._made)
pid = os.fork()
if pid == 0:
    fresh = all(key[0] != os.getpid() for key in backend._client._made)
    kept = [key for key in inherited]
    os._exit(0 if fresh and kept else 3)
_, status = os.waitpid(pid, 0)
print("child", os.waitstatus_to_exitcode(status), flush=True)
print(backend.check(), flush=True)
backend.close()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_parent_goes_on_after_its_child_ended():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "child 0" in done.stdout
    assert done.stdout.count("Identity(") == 2


# Imports and output


def test_naming_the_backend_imports_nothing_of_googles():
    code = "import sys; import modeldeploy.backends.vertex; print([n for n in sys.modules if n.startswith(('google.cloud.', 'google.auth', 'google.api', 'grpc', 'requests'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_high_level_package_is_never_imported(town):
    town.deploy("light", town.revisions[0])
    # It would put handlers for standard output on 27 loggers.
    code = (
        "import sys, logging; from modeldeploy.backends.vertex import client; client.types();"
        "print('google.cloud.aiplatform.models' in sys.modules, len(logging.getLogger('google').handlers))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "0"]


# Several threads


def test_several_threads_share_one_backend(town):
    town.deploy("threads", town.revisions[0])
    town.backend._client.close()
    found: list[str] = []

    def ask():
        with contextlib.suppress(UnavailableError):
            found.extend(town.answered("threads") for _ in range(5))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [town.revisions[0].id] * 20
