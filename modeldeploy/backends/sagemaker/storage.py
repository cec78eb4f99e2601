"""The few calls to S3 that shipping and batch jobs make; one bucket, one client, errors as the library's own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import attrs

from modeldeploy.errors import AccessDeniedError, NotFoundError

_GONE = frozenset({"404", "NoSuchKey", "NotFound"})
_MANY = 1_000
"""Keys that one call deletes (DeleteObjects takes 1,000)."""

Guard = Callable[[], AbstractContextManager[object]]
"""Gives a context in which the provider's errors become ours."""


class UploadGoneError(NotFoundError):
    """An upload in parts was completed or thrown away by somebody."""


@attrs.frozen
class Stored:
    """An object as S3 shows it."""

    key: str
    size: int
    metadata: Mapping[str, str] = attrs.field(factory=dict[str, str])


@attrs.frozen
class Part:
    """A part of an unfinished upload."""

    number: int
    etag: str
    sha256: str | None = None


def _listed(part: Part) -> dict[str, object]:
    check = {"ChecksumSHA256": part.sha256} if part.sha256 else {}
    return {"PartNumber": part.number, "ETag": part.etag, **check}


def sha256(data: bytes) -> str:
    """Give the check sum as S3 writes it."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


class Storage:
    """A bucket. ``client`` is boto3's; ``kms_key`` encrypts what is written; ``guard`` translates errors."""

    def __init__(self, client: Any, bucket: str, *, kms_key: str | None = None, guard: Guard = nullcontext) -> None:
        self._client = client
        self.bucket = bucket
        self._guard = guard
        self._encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}

    def url(self, key: str) -> str:
        """Give the address of a key."""
        return f"s3://{self.bucket}/{key}"

    def _call(self, operation: str, **arguments: Any) -> Any:
        with self._guard():
            try:
                return getattr(self._client, operation)(Bucket=self.bucket, **arguments)
            except self._client.exceptions.ClientError as error:
                if _code(error) != "NoSuchUpload":
                    raise
                message = f"the upload to {self.url(arguments['Key'])} is not there any more"
                raise UploadGoneError(message, hint="it was completed or thrown away; ship again") from error

    # Objects

    def find(self, key: str) -> Stored | None:
        """Look at an object; None when there is none."""
        with self._guard():
            try:
                found = self._client.head_object(Bucket=self.bucket, Key=key)
            except self._client.exceptions.ClientError as error:
                if _code(error) in _GONE:
                    return None
                raise
        return Stored(key, found["ContentLength"], found.get("Metadata", {}))

    def put(
        self,
        key: str,
        data: bytes,
        *,
        kind: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Write an object whole; S3 compares the check sum before it keeps it."""
        self._call(
            "put_object", Key=key, Body=data, ContentType=kind, Metadata=dict(metadata or {}),
            ChecksumSHA256=sha256(data), **self._encryption,
        )  # fmt: skip

    def get(self, key: str) -> bytes:
        """Read an object whole."""
        body = self._call("get_object", Key=key)["Body"]
        with self._guard(), body:
            data: bytes = body.read()
        return data

    def below(self, prefix: str) -> Iterator[Stored]:
        """Give the objects below a prefix."""
        token: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", Prefix=prefix, **token)
            yield from (Stored(each["Key"], each["Size"]) for each in page.get("Contents", ()))
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, keys: list[str]) -> None:
        """Delete objects; those that are gone are no error."""
        for at in range(0, len(keys), _MANY):
            objects = [{"Key": key} for key in keys[at : at + _MANY]]
            answer = self._call("delete_objects", Delete={"Objects": objects, "Quiet": True})
            # The call itself succeeds whatever became of each object.
            for each in answer.get("Errors", ()):
                message = f"{self.url(each['Key'])} cannot be deleted: {each.get('Message') or each.get('Code')}"
                raise AccessDeniedError(message, hint="the caller needs s3:DeleteObject; docs/backends/sagemaker.md")

    # Uploads in parts

    def begin(self, key: str, metadata: Mapping[str, str]) -> str:
        """Begin an upload in parts and give its id."""
        begun = self._call(
            "create_multipart_upload", Key=key, ContentType="application/gzip", Metadata=dict(metadata),
            ChecksumAlgorithm="SHA256", **self._encryption,
        )  # fmt: skip
        return str(begun["UploadId"])

    def begun(self, key: str) -> list[str]:
        """Name the uploads of this very key that nobody finished."""
        page = self._call("list_multipart_uploads", Prefix=key)
        return [each["UploadId"] for each in page.get("Uploads", ()) if each["Key"] == key]

    def send(self, key: str, upload: str, number: int, data: bytes) -> Part:
        """Send one part; sending it again replaces it."""
        check = sha256(data)
        sent = self._call("upload_part", Key=key, UploadId=upload, PartNumber=number, Body=data, ChecksumSHA256=check)
        return Part(number, sent["ETag"], check)

    def parts(self, key: str, upload: str) -> list[Part]:
        """List the parts that were sent, in their order."""
        found: list[Part] = []
        marker: dict[str, int] = {}
        while True:
            page = self._call("list_parts", Key=key, UploadId=upload, **marker)
            found += [
                Part(each["PartNumber"], each["ETag"], each.get("ChecksumSHA256")) for each in page.get("Parts", ())
            ]
            if not page.get("IsTruncated"):
                return found
            marker = {"PartNumberMarker": page["NextPartNumberMarker"]}

    def finish(self, key: str, upload: str, parts: Sequence[Part]) -> None:
        """Put these parts together to the object; S3 compares their check sums."""
        listed = [_listed(each) for each in parts]
        self._call("complete_multipart_upload", Key=key, UploadId=upload, MultipartUpload={"Parts": listed})

    def abandon(self, key: str, upload: str) -> None:
        """Throw an unfinished upload away, its parts with it."""
        self._call("abort_multipart_upload", Key=key, UploadId=upload)


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
