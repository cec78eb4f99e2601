"""A bundle is fetched from Cloud Storage by the standard library alone, and only into its directory."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from modeldeploy.errors import ConfigurationError
from modeldeploy.serving import cloud_storage


class Handler(BaseHTTPRequestHandler):
    """Lists one name a page, and refuses as often as it is told to."""

    objects: dict[str, bytes]
    refuse: list[int]
    seen: list[str | None]

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        type(self).seen.append(self.headers.get("Authorization"))
        if self.refuse:
            self._answer(self.refuse.pop(), b"{}")
            return
        url = urlsplit(self.path)
        name = unquote(url.path.partition("/o/")[2])
        if name:
            self._answer(200 if name in self.objects else 404, self.objects.get(name, b""))
        else:
            self._list(parse_qs(url.query))

    def _list(self, query: dict[str, list[str]]) -> None:
        names = sorted(each for each in self.objects if each.startswith(query["prefix"][0]))
        begin = int(query.get("pageToken", ["0"])[0])
        more = {"nextPageToken": str(begin + 1)} if begin + 1 < len(names) else {}
        items = [{"name": each} for each in names[begin : begin + 1]]
        self._answer(200, json.dumps({**({"items": items} if items else {}), **more}).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(cloud_storage, "_PAUSE_S", 0.01)
    handler = type("Mine", (Handler,), {"objects": {}, "refuse": [], "seen": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        handler.environ = {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{server.server_port}"}
        yield handler
        server.shutdown()
        thread.join()


def test_all_below_a_place_is_copied_over_several_pages(store: Any, tmp_path: Path):
    store.objects.update(
        {"m/1/manifest.json": b"{}", "m/1/a b/é.bin": b"x" * 3_000_000, "m/1/dir/": b"", "m/11/other": b"no"}
    )
    assert cloud_storage.fetch("gs://bucket/m/1/", tmp_path / "in", store.environ) == tmp_path / "in"
    found = {
        each.relative_to(tmp_path / "in").as_posix(): each.stat().st_size
        for each in (tmp_path / "in").rglob("*")
        if each.is_file()
    }
    assert found == {"manifest.json": 2, "a b/é.bin": 3_000_000}
    assert set(store.seen) == {None}


def test_a_busy_store_is_asked_again_and_a_refusal_is_told(store: Any, tmp_path: Path):
    store.objects["m/manifest.json"] = b"{}"
    store.refuse.extend([503, 429])
    cloud_storage.fetch("gs://bucket/m", tmp_path / "a", store.environ)
    store.refuse.append(403)
    with pytest.raises(ConfigurationError, match="403"):
        cloud_storage.fetch("gs://bucket/m", tmp_path / "b", store.environ)
    store.refuse.extend([500] * 4)
    with pytest.raises(ConfigurationError, match="500"):
        cloud_storage.fetch("gs://bucket/m", tmp_path / "c", store.environ)


def test_nothing_at_the_place_is_an_error(store: Any, tmp_path: Path):
    with pytest.raises(ConfigurationError, match="nothing at gs://bucket/m"):
        cloud_storage.fetch("gs://bucket/m", tmp_path, store.environ)


@pytest.mark.parametrize("name", ["m/../../evil", "m//etc/evil"])
def test_a_name_that_leads_out_of_the_directory_is_refused(store: Any, tmp_path: Path, name: str):
    store.objects[name] = b"x"
    with pytest.raises(ConfigurationError, match="leads out"):
        cloud_storage.fetch("gs://bucket/m", tmp_path / "in", store.environ)
    assert not list(tmp_path.rglob("evil"))


def test_a_store_that_cannot_be_reached_is_an_error(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from modeldeploy.simulate.processes import free_port

    with pytest.raises(ConfigurationError, match="cannot be reached"):
        cloud_storage.fetch("gs://bucket/m", tmp_path, {"STORAGE_EMULATOR_HOST": f"127.0.0.1:{free_port()}"})


def test_the_token_of_the_container_s_account_is_sent_and_kept_nowhere(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The metadata server and the service are stood for by one server here."""
    store.objects["m/manifest.json"] = b"{}"
    monkeypatch.setattr(cloud_storage, "_token", lambda: "secret")
    monkeypatch.setattr(cloud_storage, "_PUBLIC", store.environ["STORAGE_EMULATOR_HOST"])
    cloud_storage.fetch("gs://bucket/m", tmp_path / "in", {})
    assert set(store.seen) == {"Bearer secret"}
