"""The few calls of Cloud Storage that shipping and batch jobs make; one bucket, time-outs everywhere, errors as the library's own."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Iterator
from typing import Any

import attrs

from modeldeploy.backends.vertex.client import TIMEOUT_S, Client, installed
from modeldeploy.backends.vertex.errors import of_said, of_status, translated
from modeldeploy.backends.vertex.settings import refuse_incomplete
from modeldeploy.errors import NotFoundError

_GOES_ON, _GOOD, _GONE = 308, (200, 201), (404, 410)
_RANGE = re.compile(r"bytes=0-(\d+)")


class UploadGoneError(NotFoundError):
    """An upload in slices was finished or thrown away by somebody, or a week has passed."""


@attrs.frozen
class Stored:
    """An object as a listing shows it."""

    key: str
    size: int
    crc32c: str
    """As Cloud Storage writes it: four bytes in base 64."""


def crc32c(data: bytes, so_far: int = 0) -> int:
    """Give the check sum of bytes that follow others."""
    import google_crc32c

    found: int = google_crc32c.extend(so_far, data)
    return found


def written(check: int) -> str:
    """Write a check sum as Cloud Storage does."""
    return base64.b64encode(check.to_bytes(4, "big")).decode()


class Storage:
    """The bucket of a backend; keys are names of objects."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()

    @property
    def _bucket(self) -> Any:
        access = self._client.access
        refuse_incomplete({"bucket": access.bucket}, "bucket")
        return self._client.made("storage", self._connect).bucket(access.bucket)

    def _connect(self) -> Any:
        with installed("google-cloud-storage"):
            from google.cloud import storage
        access = self._client.access
        with translated():
            if not access.rest_url:
                return storage.Client(project=access.project, credentials=self._client.credentials)
            from google.auth.credentials import AnonymousCredentials

            return storage.Client(
                project=access.project,
                credentials=AnonymousCredentials(),
                _http=self._client.session,
                client_options={"api_endpoint": access.rest_url},
            )

    def url(self, key: str) -> str:
        """Give the address of a key."""
        return f"gs://{self._client.access.bucket}/{key}"

    def key(self, url: str) -> str:
        """Give the key of an address of this bucket."""
        return url.removeprefix(f"gs://{self._client.access.bucket}/")

    # Objects

    def put(self, key: str, data: bytes, *, kind: str = "application/octet-stream") -> None:
        """Write an object whole; the service compares the check sum before it keeps it."""
        blob = self._bucket.blob(key)
        with translated(object=self.url(key)):
            blob.upload_from_string(data, content_type=kind, timeout=TIMEOUT_S, retry=None, checksum="crc32c")
        self._client.count()

    def get(self, key: str) -> bytes:
        """Read an object whole."""
        with translated(object=self.url(key)):
            data: bytes = self._bucket.blob(key).download_as_bytes(timeout=TIMEOUT_S, retry=None, checksum="crc32c")
        return data

    def below(self, prefix: str) -> Iterator[Stored]:
        """Give the objects below a prefix."""
        with translated(object=self.url(prefix)):
            found = list(self._bucket.client.list_blobs(self._bucket, prefix=prefix, timeout=TIMEOUT_S, retry=None))
        yield from (Stored(each.name, int(each.size or 0), each.crc32c or "") for each in found)

    def delete(self, keys: list[str]) -> None:
        """Delete objects; those that are gone are no error."""
        for key in keys:
            try:
                with translated(object=self.url(key)):
                    self._bucket.blob(key).delete(timeout=TIMEOUT_S, retry=None)
            except NotFoundError:
                continue
            self._client.count()

    # Uploads in slices

    def begin(self, key: str, size: int) -> str:
        """Begin an upload in slices and give its address, which is good for a week and for this object alone."""
        blob = self._bucket.blob(key)
        with translated(object=self.url(key)):
            address = blob.create_resumable_upload_session(
                content_type="application/octet-stream", size=size, timeout=TIMEOUT_S, retry=None
            )
        self._client.count()
        return str(address)

    def arrived(self, address: str, size: int) -> int:
        """Ask how many bytes of an upload have arrived; all of them when it is finished."""
        return self._put(address, b"", f"bytes */{size}", size)

    def send(self, address: str, data: bytes, start: int, size: int) -> int:
        """Send the bytes from ``start`` on, and say how many have arrived in all."""
        found = self._put(address, data, f"bytes {start}-{start + len(data) - 1}/{size}", size)
        self._client.count()
        return found

    def _put(self, address: str, data: bytes, place: str, size: int) -> int:
        with translated():
            answer = self._client.session.put(
                address, data=data, headers={"Content-Range": place}, timeout=TIMEOUT_S, allow_redirects=False
            )
        if answer.status_code in _GOOD:
            return size
        if answer.status_code == _GOES_ON:
            match = _RANGE.fullmatch(answer.headers.get("Range", ""))
            return int(match[1]) + 1 if match else 0
        if answer.status_code in _GONE:
            message = "the upload is not there any more"
            raise UploadGoneError(message, hint="it is begun anew")
        raise of_said(of_status(answer.status_code, answer.text[:400]), {})
