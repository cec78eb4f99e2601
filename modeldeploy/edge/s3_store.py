"""A fleet's store in an S3 bucket, or in anything that speaks S3 (``AWS_ENDPOINT_URL_S3``); needs ``boto3``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from modeldeploy.edge.stores import MAX_DOCUMENT, Partial, Tick, bounded
from modeldeploy.errors import AccessDeniedError, ConfigurationError, CredentialsError, UnavailableError
from modeldeploy.packaging.dependencies import need
from modeldeploy.packaging.manifest import check_path

_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
_PAST_THE_END = "InvalidRange"
_DENIED = frozenset({"403", "AccessDenied"})
_TIMEOUT_S = 10


class S3Store:
    """``s3://bucket/prefix``; credentials are those of boto3's own chain."""

    def __init__(self, where: str, client: Any = None) -> None:
        bucket, _, prefix = where.removeprefix("s3://").partition("/")
        if not bucket:
            message = f"{where!r} names no bucket"
            raise ConfigurationError(message, hint="pass s3://bucket/prefix")
        self._bucket = bucket
        self._prefix = f"{prefix.rstrip('/')}/" if prefix.rstrip("/") else ""
        self._made = client

    def get(self, path: str) -> bytes | None:
        """Read a small document whole."""
        with self._translated(path):
            found = self._find(path)
            return None if found is None else bounded(found["Body"].read(MAX_DOCUMENT + 1), path)

    def get_to(self, path: str, file: Path, *, size: int | None = None, tick: Tick | None = None) -> bool:
        """Fetch on from where an earlier attempt stopped."""
        with self._translated(path):
            if self._head(path) is None:
                return False
            with Partial(file, size) as partial:
                found = self._find(path, Range=f"bytes={partial.have}-") if partial.have else self._find(path)
                for block in found["Body"].iter_chunks(Partial.BLOCK) if found is not None else ():
                    partial.write(block, tick)
            return True

    def put(self, path: str, data: bytes | Path) -> None:
        """Upload it; an object appears whole."""
        with self._translated(path):
            if isinstance(data, bytes):
                self._client.put_object(Bucket=self._bucket, Key=self._key(path), Body=data)
            else:
                self._client.upload_file(str(data), self._bucket, self._key(path))

    def list(self, prefix: str) -> Iterable[str]:
        """Name the objects below, in order, however many pages there are."""
        check_path(prefix.rstrip("/"))
        with self._translated(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            found = [each["Key"].removeprefix(self._prefix) for page in pages for each in page.get("Contents", ())]
        return sorted(found)

    def modified(self, path: str) -> float | None:
        """Read when the object was written."""
        with self._translated(path):
            head = self._head(path)
        return None if head is None else float(head["LastModified"].timestamp())

    def delete(self, path: str) -> None:
        """Delete the object."""
        with self._translated(path):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(path))

    @property
    def _client(self) -> Any:
        if self._made is None:
            config = need("botocore.config").Config(
                connect_timeout=_TIMEOUT_S, read_timeout=_TIMEOUT_S, retries={"total_max_attempts": 2}
            )
            self._made = need("boto3").client("s3", config=config)
        return self._made

    def _key(self, path: str) -> str:
        return self._prefix + check_path(path)

    def _head(self, path: str) -> Any:
        return self._ask(self._client.head_object, path)

    def _find(self, path: str, **more: str) -> Any:
        return self._ask(self._client.get_object, path, **more)

    def _ask(self, call: Any, path: str, **more: str) -> Any:
        try:
            return call(Bucket=self._bucket, Key=self._key(path), **more)
        except need("botocore.exceptions").ClientError as error:
            if _code(error) in _MISSING or _code(error) == _PAST_THE_END:
                return None
            raise

    @contextlib.contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        exceptions = need("botocore.exceptions")
        try:
            yield
        except exceptions.NoCredentialsError as error:
            message = f"no credentials for the bucket {self._bucket!r} were found"
            raise CredentialsError(message, hint="give the device credentials that may read the bucket") from error
        except exceptions.ClientError as error:
            message = f"{path!r} in the bucket {self._bucket!r} cannot be used: {_code(error)}"
            if _code(error) in _DENIED:
                raise AccessDeniedError(message, hint="allow s3:GetObject, and s3:PutObject for reports/") from error
            raise UnavailableError(message, hint="look at the bucket's name, region and rights") from error
        except (exceptions.BotoCoreError, OSError) as error:
            message = f"the bucket {self._bucket!r} cannot be reached: {error}"
            raise UnavailableError(message, hint="it is tried again") from error


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
