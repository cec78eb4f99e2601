"""The storage account, asked by Azure's own client and by plain requests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from modeldeploy.simulate.azureml.sas import Key


@pytest.fixture
def container(cloud: Any) -> Iterator[Any]:
    from azure.storage.blob import ContainerClient

    with ContainerClient.from_container_url(
        f"{cloud.store}?{cloud.sas}", max_single_put_size=1024, max_block_size=512
    ) as client:
        yield client


def test_a_blob_comes_back_as_it_was_put(container: Any):
    container.upload_blob("plain/a.txt", b"hello", metadata={"name": "iris"})
    blob = container.get_blob_client("plain/a.txt")
    assert blob.download_blob().readall() == b"hello"
    assert blob.get_blob_properties().metadata == {"name": "iris"}
    assert blob.get_blob_properties().size == 5


def test_a_large_blob_is_put_together_from_blocks(container: Any):
    data = bytes(range(256)) * 20
    container.upload_blob("blocks/a.bin", data)
    assert container.download_blob("blocks/a.bin").readall() == data
    assert container.download_blob("blocks/a.bin", offset=1000, length=10).readall() == data[1000:1010]


def test_an_empty_blob_is_a_blob(container: Any):
    container.upload_blob("empty.txt", b"")
    assert container.download_blob("empty.txt").readall() == b""


def test_blobs_are_listed_page_by_page(container: Any):
    for number in range(5):
        container.upload_blob(f"page/{number}", b"x", metadata={"number": str(number)})
    pages = list(container.list_blobs("page/", include=["metadata"], results_per_page=2).by_page())
    found = [blob for page in pages for blob in page]
    assert [blob.name for blob in found] == [f"page/{number}" for number in range(5)]
    assert found[3].metadata == {"number": "3"}


def test_a_name_with_blanks_and_accents_is_one_name(container: Any):
    container.upload_blob("été/a b+c.txt", b"1")
    assert [blob.name for blob in container.list_blobs("été")] == ["été/a b+c.txt"]
    assert container.download_blob("été/a b+c.txt").readall() == b"1"


def test_a_blob_is_not_overwritten_by_mistake(container: Any):
    from azure.core.exceptions import ResourceExistsError

    container.upload_blob("once", b"1")
    with pytest.raises(ResourceExistsError):
        container.upload_blob("once", b"2")
    container.upload_blob("once", b"2", overwrite=True)
    assert container.download_blob("once").readall() == b"2"
    container.delete_blob("once")
    assert not container.get_blob_client("once").exists()


def test_metadata_may_be_set_later(container: Any):
    container.upload_blob("later", b"1")
    container.get_blob_client("later").set_blob_metadata({"upload_status": "completed"})
    assert container.get_blob_client("later").get_blob_properties().metadata == {"upload_status": "completed"}


def test_azures_own_signatures_are_accepted(cloud: Any, simulator: Any):
    """The signature is computed by azure-storage-blob, so that both sides cannot be wrong in the same way."""
    from datetime import UTC, datetime, timedelta

    from azure.storage.blob import generate_blob_sas

    key = simulator._running.parts.storage.key
    cloud.upload("signed/one.txt", b"1")
    name = cloud.store.rpartition("/")[2]
    until = datetime.now(UTC) + timedelta(hours=1)
    token = generate_blob_sas(key.account, name, "signed/one.txt", account_key=key.key, permission="r", expiry=until)
    assert cloud.http.request("GET", f"{cloud.store}/signed/one.txt?{token}").data == b"1"
    assert cloud.http.request("GET", f"{cloud.store}/m/model/weight.json?{token}").status == 403
    assert cloud.http.request("DELETE", f"{cloud.store}/signed/one.txt?{token}").status == 403


def test_a_request_without_a_good_signature_is_refused(cloud: Any, simulator: Any):
    key = simulator._running.parts.storage.key
    name = cloud.store.rpartition("/")[2]
    other = Key(key.account, "AAAA").container(name, "r", time.time() + 60)
    old = key.container(name, "r", time.time() - 60)
    url = f"{cloud.store}/m/model/weight.json"
    codes = {each: cloud.http.request("GET", f"{url}?{each}") for each in ("", other, old)}
    assert [each.status for each in codes.values()] == [401, 403, 403]
    assert codes[""].headers["x-ms-error-code"] == "NoAuthenticationInformation"
