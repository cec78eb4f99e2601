"""The bucket: an archive goes up in slices, whose position is a short text that a ticket carries."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from modeldeploy.backends.greengrass.client import Client
from modeldeploy.errors import AccessDeniedError, NotFoundError

SLICE = 8 << 20
"""S3 takes no part under 5 MiB but the last."""
_DIGEST = "modeldeploy-content"
_MANY = 1_000


@attrs.frozen
class Position:
    """Where an upload stands."""

    upload: str = ""
    etags: tuple[str, ...] = ()
    done: bool = False

    def dump(self) -> str:
        """Write it as a text for a ticket."""
        return json.dumps([self.upload, self.etags, self.done])

    @classmethod
    def load(cls, text: str) -> Position:
        """Read what ``dump`` wrote; an empty text is the start."""
        if not text:
            return cls()
        upload, etags, done = json.loads(text)
        return cls(upload, tuple(etags), done)


class Storage:
    """One bucket."""

    def __init__(self, client: Client, bucket: str) -> None:
        self._client = client
        self.bucket = bucket

    def url(self, key: str) -> str:
        """Give the address of a key."""
        return f"s3://{self.bucket}/{key}"

    def _call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        return self._client.call("s3", operation, Bucket=self.bucket, **parameters)

    def put(self, key: str, data: bytes, *, digest: str = "") -> None:
        """Write an object whole; S3 compares the check sum before it keeps it."""
        self._call("put_object", Key=key, Body=data, ChecksumSHA256=_checksum(data), Metadata={_DIGEST: digest})

    def get(self, key: str) -> bytes:
        """Read an object whole."""
        body = self._call("get_object", Key=key)["Body"]
        with body:
            data: bytes = body.read()
        return data

    def holds(self, key: str, digest: str) -> bool:
        """Whether an object is there that was written as this content."""
        found = self._client.find("s3", "head_object", Bucket=self.bucket, Key=key)
        return found is not None and found.get("Metadata", {}).get(_DIGEST) == digest

    def send(self, key: str, path: Path, digest: str, position: Position) -> Position:
        """Send the next slice of a file; ``done`` when the whole of it is observed to be there. Safe to repeat with any position."""
        if position.done or self.holds(key, digest):
            return Position(done=True)
        if path.stat().st_size <= SLICE:
            self.put(key, path.read_bytes(), digest=digest)
            return Position(done=self.holds(key, digest))
        if not position.upload:
            begun = self._call(
                "create_multipart_upload", Key=key, ChecksumAlgorithm="SHA256", Metadata={_DIGEST: digest}
            )
            return Position(str(begun["UploadId"]))
        try:
            return self._go_on(key, path, position)
        except NotFoundError:
            # Somebody else finished the upload, or threw it away.
            return Position(done=self.holds(key, digest))

    def _go_on(self, key: str, path: Path, position: Position) -> Position:
        number = len(position.etags)
        data = _slice(path, number)
        if data:
            sent = self._call(
                "upload_part",
                Key=key,
                UploadId=position.upload,
                PartNumber=number + 1,
                Body=data,
                ChecksumSHA256=_checksum(data),
            )
            return attrs.evolve(position, etags=(*position.etags, sent["ETag"]))
        parts = [
            {"PartNumber": at + 1, "ETag": etag, "ChecksumSHA256": _checksum(_slice(path, at))}
            for at, etag in enumerate(position.etags)
        ]
        self._call("complete_multipart_upload", Key=key, UploadId=position.upload, MultipartUpload={"Parts": parts})
        return Position(done=True)

    def below(self, prefix: str) -> Iterator[str]:
        """Name the objects below a prefix."""
        token: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", Prefix=prefix, **token)
            yield from (each["Key"] for each in page.get("Contents", ()))
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def sweep(self, prefix: str) -> None:
        """Delete what lies below a prefix, unfinished uploads too; nothing there is no error."""
        for each in self._call("list_multipart_uploads", Prefix=prefix).get("Uploads", ()):
            self._call("abort_multipart_upload", Key=each["Key"], UploadId=each["UploadId"])
        keys = list(self.below(prefix))
        for at in range(0, len(keys), _MANY):
            objects = [{"Key": key} for key in keys[at : at + _MANY]]
            answer = self._call("delete_objects", Delete={"Objects": objects, "Quiet": True})
            for each in answer.get("Errors", ()):
                message = f"{self.url(each['Key'])} cannot be deleted: {each.get('Message') or each.get('Code')}"
                raise AccessDeniedError(message, hint="the caller needs s3:DeleteObject; docs/backends/greengrass.md")


def _slice(path: Path, number: int) -> bytes:
    with path.open("rb") as stream:
        stream.seek(number * SLICE)
        return stream.read(SLICE)


def _checksum(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
