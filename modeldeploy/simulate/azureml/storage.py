"""The REST interface of the storage account, as far as the SDK's uploads and downloads go."""

from __future__ import annotations

import io
import re
from email.utils import formatdate
from typing import IO
from urllib.parse import quote
from xml.etree import ElementTree as ET

import attrs

from modeldeploy.simulate.azureml import sas
from modeldeploy.simulate.azureml.blobs import Blob, Blobs, etag
from modeldeploy.simulate.azureml.exchange import Answer, Request
from modeldeploy.simulate.azureml.sas import Key
from modeldeploy.simulate.azureml.world import World

_KEPT = ("content-type", "content-encoding", "content-language", "content-disposition", "cache-control")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_XML = {"Content-Type": "application/xml"}
_NEEDED = {"GET": "r", "HEAD": "r", "PUT": "wc", "DELETE": "d"}


class StorageError(Exception):
    """How Azure Storage says no."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@attrs.define(eq=False)
class Storage:
    """One account; ``answer`` takes what comes to it."""

    world: World
    blobs: Blobs
    key: Key

    def answer(self, request: Request, container: str, blob: str = "") -> Answer:
        """Answer one request."""
        headers = {
            "x-ms-request-id": etag().strip('"'),
            "x-ms-version": request.headers.get("x-ms-version", sas.VERSION),
        }
        try:
            self._authorise(request, container, blob)
            return self._perform(request, container, blob).adding(headers)
        except StorageError as error:
            return _refusal(request, error).adding(headers)

    def _perform(self, request: Request, container: str, blob: str) -> Answer:
        doing = self._blob if blob else self._container
        return doing(request, container, blob)

    def _authorise(self, request: Request, container: str, blob: str) -> None:
        query = request.query
        if "sig" not in query:
            raise StorageError(401, "NoAuthenticationInformation", "Server failed to authenticate the request.")
        if not self.key.valid(query, container, blob) or sas.expired(query, self.world.clock.now()):
            raise StorageError(403, "AuthenticationFailed", "Server failed to authenticate the request.")
        listing = query.get("comp") == "list"
        needed = "l" if listing else _NEEDED.get(request.method, "")
        if not set(needed) & set(query.get("sp", "")):
            text = "This request is not authorized to perform this operation using this permission."
            raise StorageError(403, "AuthorizationPermissionMismatch", text)

    def _container(self, request: Request, container: str, _blob: str) -> Answer:
        if request.method == "PUT":
            if container in self.blobs.containers:
                raise StorageError(409, "ContainerAlreadyExists", "The specified container already exists.")
            self.blobs.create(container, self.world.clock.now())
            return Answer(201)
        if container not in self.blobs.containers:
            raise StorageError(404, "ContainerNotFound", "The specified container does not exist.")
        if request.query.get("comp") == "list":
            return self._listed(request, container)
        return Answer(200, {"ETag": etag(), "Last-Modified": _date(self.blobs.containers[container].modified)})

    def _blob(self, request: Request, container: str, blob: str) -> Answer:
        if container not in self.blobs.containers:
            raise StorageError(404, "ContainerNotFound", "The specified container does not exist.")
        if request.method == "PUT":
            return self._put(request, container, blob)
        found = self._find(container, blob)
        if request.method == "DELETE":
            with self.blobs.lock:
                self.blobs.containers[container].blobs.pop(blob, None)
            return Answer(202)
        return _read(request, found)

    def _put(self, request: Request, container: str, blob: str) -> Answer:
        comp = request.query.get("comp")
        if comp == "metadata":
            return self._told(200, self._change(container, self._find(container, blob), _metadata(request)))
        if comp == "block":
            self.blobs.block(container, blob, request.query.get("blockid", ""), request.stream)
            return Answer(201)
        if comp == "blocklist":
            return self._told(201, self._commit(request, container, blob))
        if request.headers.get("if-none-match") == "*" and self.blobs.find(container, blob):
            raise StorageError(409, "BlobAlreadyExists", "The specified blob already exists.")
        request.stream.seek(0)
        return self._told(201, self._write(request, container, blob, request.stream))

    def _write(self, request: Request, container: str, blob: str, stream: IO[bytes]) -> Blob:
        headers = {
            name: request.headers[f"x-ms-blob-{name}"] for name in _KEPT if f"x-ms-blob-{name}" in request.headers
        }
        return self.blobs.write(
            container,
            blob,
            stream,
            self.world.clock.now(),
            headers=headers,
            metadata=_metadata(request),
        )

    def _commit(self, request: Request, container: str, blob: str) -> Blob:
        there = self.blobs.containers[container]
        wanted = [each.text or "" for each in ET.fromstring(request.body())]  # noqa: S314 - from a client on this machine
        with self.blobs.lock:
            files = [there.blocks.pop((blob, each), None) for each in wanted]
        if None in files:
            raise StorageError(400, "InvalidBlockList", "The specified block list is invalid.")
        whole = io.BytesIO(b"".join(file.read_bytes() for file in files if file is not None))
        return self._write(request, container, blob, whole)

    def _change(self, container: str, blob: Blob, metadata: dict[str, str]) -> Blob:
        changed = attrs.evolve(blob, metadata=metadata, etag=etag(), modified=self.world.clock.now())
        with self.blobs.lock:
            self.blobs.containers[container].blobs[blob.name] = changed
        return changed

    def _find(self, container: str, blob: str) -> Blob:
        found = self.blobs.find(container, blob)
        if found is None:
            raise StorageError(404, "BlobNotFound", "The specified blob does not exist.")
        return found

    @staticmethod
    def _told(status: int, blob: Blob) -> Answer:
        headers = {"ETag": blob.etag, "Last-Modified": _date(blob.modified), "Content-MD5": blob.md5}
        return Answer(status, {**headers, "x-ms-request-server-encrypted": "true"})

    def _listed(self, request: Request, container: str) -> Answer:
        found = self.blobs.under(container, request.query.get("prefix", ""))
        most = int(request.query.get("maxresults", 5000))
        after = request.query.get("marker", "")
        found = [each for each in found if each.name > after]
        root = ET.Element("EnumerationResults", ServiceEndpoint=f"{self.world.storage_url}/", ContainerName=container)
        # The client takes its prefix for the next page from here.
        for name in ("Prefix", "Marker", "MaxResults"):
            ET.SubElement(root, name).text = request.query.get(name.lower(), "")
        blobs = ET.SubElement(root, "Blobs")
        for blob in found[:most]:
            _entry(blobs, blob, metadata="metadata" in request.query.get("include", ""))
        ET.SubElement(root, "NextMarker").text = found[most - 1].name if len(found) > most else ""
        return Answer(200, _XML, ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _entry(within: ET.Element, blob: Blob, *, metadata: bool) -> None:
    entry = ET.SubElement(within, "Blob")
    ET.SubElement(entry, "Name").text = blob.name
    properties = ET.SubElement(entry, "Properties")
    told = {
        "Last-Modified": _date(blob.modified), "Etag": blob.etag.strip('"'), "Content-Length": str(blob.size),
        "Content-Type": blob.headers.get("content-type", "application/octet-stream"), "Content-MD5": blob.md5, "BlobType": "BlockBlob",
    }  # fmt: skip
    for name, value in told.items():
        ET.SubElement(properties, name).text = value
    if metadata:
        within_metadata = ET.SubElement(entry, "Metadata")
        for name, value in blob.metadata.items():
            ET.SubElement(within_metadata, name).text = value


def _read(request: Request, blob: Blob) -> Answer:
    headers = {
        "ETag": blob.etag, "Last-Modified": _date(blob.modified), "x-ms-blob-type": "BlockBlob", "Accept-Ranges": "bytes",
        "x-ms-creation-time": _date(blob.modified), "x-ms-lease-status": "unlocked", "x-ms-lease-state": "available",
        "Content-Type": blob.headers.get("content-type", "application/octet-stream"),
        **{f"x-ms-meta-{name}": value for name, value in blob.metadata.items()},
    }  # fmt: skip
    if request.method == "HEAD":
        return Answer(200, {**headers, "Content-Length": str(blob.size), "Content-MD5": blob.md5})
    begin, end = _span(request, blob)
    if blob.size and begin >= blob.size:
        raise StorageError(416, "InvalidRange", "The range specified is invalid for the current size of the resource.")
    with blob.file.open("rb") as file:
        file.seek(begin)
        body = file.read(end - begin)
    ranged = "x-ms-range" in request.headers or "range" in request.headers
    if not blob.size and ranged:
        raise StorageError(416, "InvalidRange", "The range specified is invalid for the current size of the resource.")
    if not ranged:
        return Answer(200, {**headers, "Content-MD5": blob.md5}, body)
    return Answer(206, {**headers, "Content-Range": f"bytes {begin}-{begin + len(body) - 1}/{blob.size}"}, body)


def _span(request: Request, blob: Blob) -> tuple[int, int]:
    found = _RANGE.fullmatch(request.headers.get("x-ms-range") or request.headers.get("range") or "")
    if found is None:
        return 0, blob.size
    return int(found[1]), min(int(found[2]) + 1 if found[2] else blob.size, blob.size)


def _metadata(request: Request) -> dict[str, str]:
    prefix = "x-ms-meta-"
    return {name.removeprefix(prefix): value for name, value in request.headers.items() if name.startswith(prefix)}


def _refusal(request: Request, error: StorageError) -> Answer:
    root = ET.Element("Error")
    ET.SubElement(root, "Code").text = error.code
    ET.SubElement(root, "Message").text = str(error)
    body = b"" if request.method == "HEAD" else ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return Answer(error.status, {**_XML, "x-ms-error-code": error.code}, body)


def _date(at: float) -> str:
    return formatdate(at, usegmt=True)


def blob_url(world: World, container: str, path: str = "") -> str:
    """Name a blob, or what its name begins with."""
    return f"{world.storage_url}/{container}/{quote(path)}".rstrip("/")
