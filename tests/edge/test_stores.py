"""Stores: a directory, a hub over HTTP and a bucket do the same, and none loses what came already."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from modeldeploy.edge import stores
from modeldeploy.edge.http_store import HttpStore
from modeldeploy.edge.hub import Hub
from modeldeploy.edge.s3_store import S3Store
from modeldeploy.edge.stores import PART, DirectoryStore, open_store
from modeldeploy.errors import (
    ConfigurationError,
    CredentialsError,
    IntegrityError,
    QuotaError,
    UnavailableError,
    UnsupportedError,
)

RELEASE = "releases/aa.tar.gz"
LARGE = bytes(range(256)) * 4096  # four blocks


@pytest.fixture(params=["directory", "hub", "bucket"])
def store(request, hub_directory):
    if request.param == "directory":
        yield DirectoryStore(hub_directory)
    elif request.param == "hub":
        with Hub(hub_directory) as hub:
            yield HttpStore(hub.url)
    else:
        yield S3Store(f"s3://fleet/{request.node.name}/".replace("[", "-"), request.getfixturevalue("client"))


@pytest.fixture(scope="module")
def client():
    """A client of a simulated bucket; making one takes a second."""
    import boto3
    from moto import mock_aws

    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name, value in {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x", "DEFAULT_REGION": "us-east-1"}.items():
            patch.setenv(f"AWS_{name}", value)
        found = boto3.client("s3")
        found.create_bucket(Bucket="fleet")
        yield found


# What every store does


def test_what_was_put_is_got(store):
    store.put("desired.json", b"one")
    assert store.get("desired.json") == b"one"
    store.put("desired.json", b"two")
    assert store.get("desired.json") == b"two"


def test_what_is_not_there_is_none(store, tmp_path):
    assert store.get("desired.json") is None
    assert store.modified("desired.json") is None
    assert store.get_to(RELEASE, tmp_path / "file") is False
    assert [path.name for path in (tmp_path).iterdir()] in ([], ["hub"])


def test_deleting_twice_is_deleting_once(store):
    store.put("reports/a.json", b"a")
    store.delete("reports/a.json")
    store.delete("reports/a.json")
    assert store.get("reports/a.json") is None


def test_the_list_has_what_lies_below_its_prefix(store):
    for name in ("reports/b.json", "reports/a.json", "releases/a.tar.gz", "desired.json"):
        store.put(name, b"x")
    assert list(store.list("reports/")) == ["reports/a.json", "reports/b.json"]
    assert list(store.list("nothing/")) == []


def test_the_time_is_that_of_the_last_write(store):
    store.put("desired.json", b"one")
    first = store.modified("desired.json")
    assert first > 1_700_000_000
    store.put("desired.json", b"two")
    assert store.modified("desired.json") >= first


def test_a_file_goes_there_and_back(store, tmp_path):
    (tmp_path / "source").write_bytes(LARGE)
    store.put(RELEASE, tmp_path / "source")
    blocks = []
    assert store.get_to(RELEASE, tmp_path / "to" / "file", size=len(LARGE), tick=lambda: blocks.append(1))
    assert (tmp_path / "to" / "file").read_bytes() == LARGE
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["file"]
    assert len(blocks) >= 4


def test_a_download_goes_on_where_it_stopped(store, tmp_path):
    store.put(RELEASE, LARGE)
    part = tmp_path / f"file{PART}"
    # Other bytes than the store has: they show that what came already was not fetched again.
    part.write_bytes(b"\xee" * 1000)
    assert store.get_to(RELEASE, tmp_path / "file", size=len(LARGE))
    assert (tmp_path / "file").read_bytes() == b"\xee" * 1000 + LARGE[1000:]


def test_a_download_that_was_complete_takes_its_name(store, tmp_path):
    store.put(RELEASE, LARGE)
    (tmp_path / f"file{PART}").write_bytes(LARGE)
    assert store.get_to(RELEASE, tmp_path / "file", size=len(LARGE))
    assert (tmp_path / "file").read_bytes() == LARGE


def test_what_is_cut_off_stays_to_go_on_from(store, tmp_path):
    store.put(RELEASE, LARGE)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get_to(RELEASE, tmp_path / "file", tick=interrupt)
    assert not (tmp_path / "file").exists()
    assert 0 < (tmp_path / f"file{PART}").stat().st_size < len(LARGE)
    assert store.get_to(RELEASE, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == LARGE


def test_more_than_was_announced_is_not_taken(store, tmp_path):
    store.put(RELEASE, LARGE)
    with pytest.raises(IntegrityError, match="larger than the 1000 bytes"):
        store.get_to(RELEASE, tmp_path / "file", size=1000)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("file")]


@pytest.mark.parametrize("path", ["../out", "/etc/passwd", "a/../../b", ".hidden", "a//b", "", "a\\b"])
def test_a_path_that_leaves_the_store_is_refused(store, path):
    for act in (store.get, lambda each: store.put(each, b"x"), store.delete, store.modified):
        with pytest.raises(IntegrityError):
            act(path)


def test_a_document_that_is_too_large_is_refused(store, monkeypatch):
    store.put("desired.json", b"x" * 2000)
    for module in (
        stores,
        *[__import__(f"modeldeploy.edge.{name}", fromlist=["x"]) for name in ("http_store", "s3_store")],
    ):
        monkeypatch.setattr(module, "MAX_DOCUMENT", 1000)
    with pytest.raises(UnavailableError, match="larger than 1000 bytes"):
        store.get("desired.json")


# By their address


def test_stores_are_opened_by_their_address(tmp_path):
    assert isinstance(open_store(tmp_path), DirectoryStore)
    assert isinstance(open_store(str(tmp_path)), DirectoryStore)
    assert isinstance(open_store("https://hub.example/fleet"), HttpStore)
    assert isinstance(open_store("s3://bucket/prefix"), S3Store)
    store = DirectoryStore(tmp_path)
    assert open_store(store) is store


@pytest.mark.parametrize("where", ["ftp://host/x", "gs://bucket", "s3://"])
def test_an_address_of_another_kind_is_refused(where):
    with pytest.raises(ConfigurationError):
        open_store(where)


# A directory


def test_a_share_that_is_not_mounted_is_no_empty_store(tmp_path):
    with pytest.raises(UnavailableError, match="is not there"):
        DirectoryStore(tmp_path / "share").get("desired.json")
    with pytest.raises(UnavailableError, match="is not there"):
        DirectoryStore(tmp_path / "share").put("reports/a.json", b"{}")
    assert not (tmp_path / "share").exists()


def test_a_full_disk_is_said_to_be_full(tmp_path, monkeypatch):
    store = DirectoryStore(tmp_path / "hub")
    store.put(RELEASE, LARGE)

    class Full:
        def __init__(self, stream):
            self._stream = stream

        def __getattr__(self, name):
            return getattr(self._stream, name)

        def __enter__(self):
            return self

        def __exit__(self, *_rest):
            self._stream.close()

        def write(self, _block):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    usual = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda self, mode="r", **more: Full(usual(self, mode)) if mode == "ab" else usual(self, mode, **more),
    )
    with pytest.raises(QuotaError, match="no space"):
        store.get_to(RELEASE, tmp_path / "file")


# HTTP


def test_a_document_that_has_not_changed_is_not_sent_again(hub_directory, monkeypatch):
    with Hub(hub_directory) as hub:
        store = HttpStore(hub.url)
        store.put("desired.json", b"one")
        assert store.get("desired.json") == b"one"
        # Read in place of what the hub would send: only a 304 leaves what was known.
        etag, _data = store._seen["desired.json"]
        store._seen["desired.json"] = (etag, b"known")
        assert store.get("desired.json") == b"known"
        store.put("desired.json", b"two!")
        assert store.get("desired.json") == b"two!"


def test_a_hub_that_is_away_is_unavailable():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        store = HttpStore(f"http://127.0.0.1:{unused.getsockname()[1]}")
        for act in (store.get, lambda path: store.put(path, b"x"), lambda _path: store.list("reports/")):
            with pytest.raises(UnavailableError) as caught:
                act("desired.json")
            assert caught.value.transient


@contextlib.contextmanager
def answering(act):
    """Serve whatever ``act(handler)`` writes."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.close_connection = True
            act(self)

        def log_message(self, *_arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_connection_that_breaks_in_the_middle_is_no_whole_file(tmp_path):
    def half(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + b"x" * 400)

    with answering(half) as url, pytest.raises(UnavailableError):
        HttpStore(url).get_to(RELEASE, tmp_path / "file")
    assert [path.name for path in (tmp_path).iterdir()] == [f"file{PART}"]


def test_a_server_without_ranges_is_read_from_the_beginning(tmp_path):
    def whole(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwhole")

    (tmp_path / f"file{PART}").write_bytes(b"xxx")
    with answering(whole) as url:
        assert HttpStore(url).get_to(RELEASE, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"whol"


def test_a_token_is_not_carried_to_where_a_server_redirects():
    seen = []

    def elsewhere(handler):
        seen.append(handler.headers.get("authorization"))
        handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    with answering(elsewhere) as target:

        def redirect(handler):
            seen.append(handler.headers.get("authorization"))
            handler.wfile.write(f"HTTP/1.1 302 Found\r\nlocation: {target}/x\r\ncontent-length: 0\r\n\r\n".encode())

        with answering(redirect) as url:
            assert HttpStore(url, {"Authorization": "Bearer secret"}).get("desired.json") == b"ok"
    assert seen == ["Bearer secret", None]


@pytest.mark.parametrize("location", ["file:///etc/hostname", "ftp://127.0.0.1/x"])
def test_a_redirection_to_something_else_than_http_is_not_followed(location):
    def redirect(handler):
        handler.wfile.write(f"HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode())

    with answering(redirect) as url, pytest.raises(UnavailableError):
        HttpStore(url).get("desired.json")


def test_another_server_than_the_hub_cannot_list():
    def page(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>")

    with answering(page) as url, pytest.raises(UnsupportedError, match="cannot list"):
        HttpStore(url).list("reports/")


@pytest.mark.parametrize(
    ("status", "error"), [(401, CredentialsError), (403, PermissionError), (500, UnavailableError)]
)
def test_a_status_becomes_the_error_that_says_it(status, error):
    def refuse(handler):
        handler.wfile.write(f"HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n".encode())

    with answering(refuse) as url, pytest.raises(error):
        HttpStore(url).get("desired.json")


# A bucket


def test_a_bucket_that_does_not_exist_is_unavailable(client):
    with pytest.raises(UnavailableError, match="NoSuchBucket"):
        S3Store("s3://another", client).get("desired.json")


def test_objects_lie_below_the_prefix(client):
    S3Store("s3://fleet/cameras/", client).put("desired.json", b"x")
    assert S3Store("s3://fleet/cameras", client).get("desired.json") == b"x"
    found = client.list_objects_v2(Bucket="fleet", Prefix="cameras/")["Contents"]
    assert [each["Key"] for each in found] == ["cameras/desired.json"]


def test_the_client_is_made_when_it_is_first_needed(client):
    store = S3Store("s3://fleet/lazy")
    assert store._made is None
    store.put("desired.json", b"x")
    assert S3Store("s3://fleet/lazy", client).get("desired.json") == b"x"
