"""Cloud Storage through the unmodified client: uploads of all kinds, ranges, lists, and conditions that hold."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import threading
from typing import Any

import google_crc32c
import pytest
import urllib3
from google.api_core import exceptions as told
from hypothesis import given, settings
from hypothesis import strategies as st

from modeldeploy.simulate.vertex.objects import Conditions, Objects, PreconditionError

MEBIBYTE = 1024 * 1024


@pytest.fixture(scope="module")
def bucket(cloud: Any) -> Any:
    return cloud.storage.create_bucket("storage-tests")


def test_an_upload_in_one_piece_is_told_with_its_checksums(bucket: Any):
    data = b"some bytes\r\n--with lines\r\n"
    blob = bucket.blob("folder/one.bin", chunk_size=None)
    blob.metadata = {"digest": "abc"}
    blob.upload_from_string(data, content_type="application/x-mine", checksum="md5")
    found = bucket.get_blob("folder/one.bin")
    assert (found.size, found.content_type, found.metadata) == (len(data), "application/x-mine", {"digest": "abc"})
    assert base64.b64decode(found.md5_hash) == hashlib.md5(data).digest()
    assert base64.b64decode(found.crc32c) == google_crc32c.Checksum(data).digest()
    assert found.download_as_bytes(checksum="crc32c") == data


def test_a_large_file_is_uploaded_piece_by_piece(bucket: Any):
    data = bytes(range(256)) * (12 * 1024)
    blob = bucket.blob("large.bin", chunk_size=MEBIBYTE)
    blob.upload_from_file(io.BytesIO(data), size=len(data), checksum="crc32c")
    assert blob.download_as_bytes(checksum="md5") == data
    # Of unknown length, as from a pipe.
    with bucket.blob("streamed.bin").open("wb", chunk_size=MEBIBYTE) as out:
        out.write(data)
    assert bucket.blob("streamed.bin").download_as_bytes() == data


def test_an_interrupted_upload_goes_on_where_it_stopped(cloud: Any, bucket: Any):
    import requests
    from google.resumable_media.requests import ResumableUpload

    data = b"x" * (MEBIBYTE + 7)
    url = f"{cloud.simulator.storage_url}/upload/storage/v1/b/{bucket.name}/o?uploadType=resumable"
    with requests.Session() as session:
        upload = ResumableUpload(url, MEBIBYTE)
        upload.initiate(session, io.BytesIO(data), {"name": "resumed.bin"}, "application/octet-stream")
        upload.transmit_next_chunk(session)
        # Another process asks how much has come, and sends the rest.
        asked = session.put(upload.resumable_url, headers={"Content-Range": f"bytes */{len(data)}"}, timeout=10)
        assert (asked.status_code, asked.headers["Range"]) == (308, f"bytes=0-{MEBIBYTE - 1}")
        rest = {"Content-Range": f"bytes {MEBIBYTE}-{len(data) - 1}/{len(data)}"}
        done = session.put(upload.resumable_url, data=data[MEBIBYTE:], headers=rest, timeout=10)
        again = session.put(upload.resumable_url, data=data[MEBIBYTE:], headers=rest, timeout=10)
    assert (done.status_code, done.json()["size"]) == (200, str(len(data)))
    # Who sends the last piece once more is told the same.
    assert again.json() == done.json()
    assert bucket.blob("resumed.bin").download_as_bytes() == data


def test_a_wrong_checksum_is_refused_and_leaves_nothing(bucket: Any):
    blob = bucket.blob("wrong.bin")
    blob.md5_hash = base64.b64encode(b"0" * 16).decode()
    with pytest.raises(told.BadRequest, match="md5Hash"):
        blob.upload_from_string(b"data", checksum=None)
    assert not bucket.blob("wrong.bin").exists()


def test_a_range_is_read(bucket: Any):
    bucket.blob("range.bin").upload_from_string(b"0123456789")
    blob = bucket.blob("range.bin")
    assert blob.download_as_bytes(start=2, end=4) == b"234"
    assert blob.download_as_bytes(start=7) == b"789"
    with pytest.raises(told.RequestRangeNotSatisfiable):
        blob.download_as_bytes(start=10)
    bucket.blob("empty.bin").upload_from_string(b"")
    assert bucket.blob("empty.bin").download_as_bytes() == b""


def test_lists_have_folders_and_pages(bucket: Any):
    for name in ("list/a", "list/b/1", "list/b/2", "list/c", "list/é"):
        bucket.blob(name).upload_from_string(name)
    found = bucket.list_blobs(prefix="list/", delimiter="/", page_size=2)
    pages = [[each.name for each in page] for page in found.pages]
    assert [name for page in pages for name in page] == ["list/a", "list/c", "list/é"]
    assert len(pages) == 2
    assert found.prefixes == {"list/b/"}
    assert [each.name for each in bucket.list_blobs(prefix="list/b")] == ["list/b/1", "list/b/2"]
    assert [each.name for each in bucket.list_blobs(prefix="list/", max_results=1)] == ["list/a"]


def test_only_one_of_many_makes_an_object_that_is_not_there(bucket: Any):
    """A lock by precondition, which the public emulator gives to everybody."""
    won, start = [], threading.Barrier(8)

    def attempt(number: int) -> None:
        start.wait()
        try:
            bucket.blob("lock").upload_from_string(str(number), if_generation_match=0)
        except told.PreconditionFailed:
            return
        won.append(number)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert bucket.blob("lock").download_as_text() == str(won[0])
    assert len(won) == 1


def test_a_generation_that_is_another_by_now_is_refused_everywhere(bucket: Any):
    blob = bucket.blob("cas")
    blob.upload_from_string("one")
    old = blob.generation
    blob.upload_from_string("two", if_generation_match=old)
    new = blob.generation
    assert new > old
    with pytest.raises(told.PreconditionFailed):
        bucket.blob("cas").upload_from_string("three", if_generation_match=old)
    with pytest.raises(told.PreconditionFailed):
        bucket.blob("cas").download_as_bytes(if_generation_match=old)
    with pytest.raises(told.PreconditionFailed):
        bucket.blob("cas").delete(if_generation_match=old)
    with pytest.raises(told.PreconditionFailed):
        bucket.blob("cas", chunk_size=MEBIBYTE).upload_from_file(io.BytesIO(b"x"), if_generation_match=old)
    assert bucket.blob("cas").download_as_text(if_generation_match=new) == "two"
    bucket.blob("cas").delete(if_generation_match=new)
    with pytest.raises(told.NotFound):
        bucket.blob("cas").delete()


@settings(max_examples=20, deadline=None)
@given(
    name=st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(
        lambda each: each not in {".", ".."}
    ),
    data=st.binary(max_size=2000),
)
def test_whatever_is_uploaded_under_whatever_name_comes_back(bucket: Any, name: str, data: bytes):
    bucket.blob(f"any/{name}").upload_from_string(data)
    assert bucket.blob(f"any/{name}").download_as_bytes() == data
    assert [each.name for each in bucket.list_blobs(prefix=f"any/{name}", max_results=1)] == [f"any/{name}"]


def test_a_copy_has_the_same_bytes_and_a_generation_of_its_own(bucket: Any):
    blob = bucket.blob("source")
    blob.upload_from_string("data", content_type="text/plain")
    copied = bucket.copy_blob(blob, bucket, "copy")
    assert (copied.download_as_text(), copied.content_type, copied.crc32c) == ("data", "text/plain", blob.crc32c)
    assert copied.generation != blob.generation
    token, done, _size = bucket.blob("rewritten").rewrite(blob)
    assert (token, done) == (None, 4)


def test_what_is_said_about_an_object_is_changed_without_its_bytes(bucket: Any):
    blob = bucket.blob("patched")
    blob.upload_from_string("data")
    blob.metadata = {"k": "v"}
    blob.patch()
    found = bucket.get_blob("patched")
    assert (found.metadata, found.metageneration, found.generation) == ({"k": "v"}, 2, blob.generation)


def test_buckets_are_made_once_and_deleted_when_they_are_empty(cloud: Any):
    made = cloud.storage.create_bucket("short-lived")
    with pytest.raises(told.Conflict):
        cloud.storage.create_bucket("short-lived")
    made.blob("x").upload_from_string("x")
    with pytest.raises(told.Conflict, match="not empty"):
        made.delete()
    made.blob("x").delete()
    made.delete()
    assert cloud.storage.lookup_bucket("short-lived") is None
    with pytest.raises(told.NotFound):
        list(cloud.storage.list_blobs("short-lived"))


def test_storage_fails_and_loses_answers_on_demand(cloud: Any, bucket: Any, faults: Any):
    faults.lose_storage["POST"] = 1
    with pytest.raises(Exception, match="Connection"):
        bucket.blob("lost").upload_from_string("data", retry=None)
    assert bucket.blob("lost").download_as_text() == "data"
    faults.fail_storage_every = 1
    with pytest.raises(told.ServiceUnavailable):
        bucket.blob("lost").exists(retry=None)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["put", "delete"]), st.integers(-1, 2)), max_size=20))
def test_a_condition_lets_a_change_through_exactly_when_it_holds(objects: Objects, acts: list[tuple[str, str, int]]):
    """Each act names the generation it expects: -1 for none in particular, 0 for no object, 1 for the present one, 2 for another."""
    objects.buckets["b"] = {}
    there: dict[str, Any] = {}
    for name, kind, expects in acts:
        now = there[name].generation if name in there else 0
        wanted = {-1: None, 0: 0, 1: now, 2: now + 1}[expects]
        holds = wanted is None or wanted == now
        conditions = Conditions(generation=wanted)
        expected = contextlib.nullcontext() if holds else pytest.raises(PreconditionError)
        if kind == "put":
            with expected:
                there[name] = objects.write(("b", name), io.BytesIO(b"x"), 0.0, conditions=conditions)
        elif name in there:
            with expected:
                objects.delete(there[name], conditions)
                del there[name]
        assert {each.name: each for each in objects.under("b", "")} == there


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    return Objects(tmp_path_factory.mktemp("objects"))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/upload/storage/v1/b/storage-tests/o?uploadType=media&name=x", 405),
        ("POST", "/upload/storage/v1/b/storage-tests/o?uploadType=media", 400),
        ("POST", "/upload/storage/v1/b/storage-tests/o?uploadType=multipart&name=x", 400),
        ("PUT", "/upload/storage/v1/b/storage-tests/o?uploadType=resumable&upload_id=none", 404),
        ("POST", "/storage/v1/b?project=rehearsal", 400),
        ("GET", "/storage/v1/unknown", 501),
        ("GET", "/elsewhere", 404),
        ("POST", "/upload/storage/v1/b/nowhere/o?name=x", 404),
        ("GET", "/storage/v1/b/storage-tests/o?pageToken=zz", 400),
        ("GET", "/storage/v1/b/storage-tests/o?maxResults=many", 400),
        ("POST", "/upload/storage/v1/b/storage-tests/o?uploadType=media&name=x&ifGenerationMatch=x", 400),
        ("GET", "/storage/v1/b/storage-tests/o/none?ifGenerationMatch=x", 404),
    ],
)
def test_a_request_that_is_none_is_refused_with_its_reason(cloud, bucket, method, path, status):
    with urllib3.PoolManager() as http:
        answer = http.request(method, f"{cloud.simulator.storage_url}{path}", body=b"[]", timeout=10, retries=False)
        assert (answer.status, answer.json()["error"]["code"]) == (status, status)
