"""Versions of models, environments and code: found, listed, never changed."""

from __future__ import annotations

from typing import Any


def test_a_version_keeps_its_bytes(cloud: Any):
    path = "azureml://datastores/workspaceblobstore/paths"
    first = {"modelUri": f"{path}/a", "modelType": "custom_model"}
    assert cloud.ask("PUT", "/models/fixed/versions/1", {"properties": first}).status == 201
    assert cloud.ask("PUT", "/models/fixed/versions/1", {"properties": {**first, "tags": {"a": "b"}}}).status == 200
    assert (
        cloud.ask("PUT", "/models/fixed/versions/1", {"properties": {**first, "modelUri": f"{path}/b"}}).status == 400
    )
    told = cloud.get("/models/fixed/versions/1")["properties"]
    assert (told["modelUri"], told["tags"]) == (f"{path}/a", {"a": "b"})


def test_versions_are_listed_the_newest_first(cloud: Any):
    for version in ("1", "2", "three"):
        cloud.put(f"/models/many/versions/{version}", {"modelUri": "azureml://x/paths/a", "modelType": "custom_model"})
    names = [each["name"] for each in cloud.get("/models/many/versions")["value"]]
    assert names == ["three", "2", "1"]
    assert [each["name"] for each in cloud.get("/models/many/versions?$top=1")["value"]] == ["three"]
    told = cloud.get("/models/many")["properties"]
    assert (told["latestVersion"], told["nextVersion"]) == ("three", "3")


def test_code_is_found_by_its_hash(cloud: Any):
    cloud.put(
        "/codes/hashed/versions/1",
        {"codeUri": f"{cloud.store}/c/code", "properties": {"hash_sha256": "abc", "hash_version": 1}},
    )
    assert [each["name"] for each in cloud.get("/codes/hashed/versions?hash=abc")["value"]] == ["1"]
    assert cloud.get("/codes/hashed/versions?hash=def")["value"] == []
    # What the SDK sends as a number is kept as the text that the schema asks for.
    assert cloud.get("/codes/hashed/versions/1")["properties"]["properties"]["hash_version"] == "1"


def test_what_is_not_there_is_not_found(cloud: Any):
    for path in ("/models/none", "/models/none/versions", "/models/none/versions/1", "/environments/none/versions/1"):
        assert cloud.ask("GET", path).status == 404


def test_code_is_uploaded_to_a_container_of_its_own(cloud: Any):
    told = cloud.ask(
        "POST", "/codes/new/versions/1/startPendingUpload", {"pendingUploadType": "TemporaryBlobReference"}
    )
    there = told.json()["blobReferenceForConsumption"]
    url, _, token = there["credential"]["sasUri"].partition("?")
    headers = {"x-ms-blob-type": "BlockBlob"}
    assert url == there["blobUri"]
    assert cloud.http.request("PUT", f"{url}/a.txt?{token}", body=b"1", headers=headers).status == 201
    # The token opens this container and no other.
    assert cloud.http.request("PUT", f"{cloud.store}/a.txt?{token}", body=b"1", headers=headers).status == 403
