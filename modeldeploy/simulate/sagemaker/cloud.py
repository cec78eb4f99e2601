"""The services beside SageMaker, as its own parts use them: through the same door as everybody else."""

from __future__ import annotations

import functools
import threading
from typing import Any

import attrs

from modeldeploy.simulate.sagemaker.signature import Credentials
from modeldeploy.simulate.sagemaker.site import Site

_MISSING = frozenset({"404", "NoSuchKey", "NoSuchBucket", "NotFound", "403", "AccessDenied"})

_making = threading.Lock()


@functools.cache
def _session() -> Any:
    """Make the session of all simulators of this process: it keeps the services' models, and nothing of anybody."""
    from botocore.session import Session

    return Session()


@attrs.define(eq=False)
class Cloud:
    """Clients for storage, logs and metrics of the simulated account."""

    url: str
    site: Site
    credentials: Credentials
    _clients: dict[str, Any] = attrs.field(factory=dict)

    def client(self, service: str) -> Any:
        """Give the client of a service; making one takes a tenth of a second, so each is kept."""
        with _making:
            if service not in self._clients:
                self._clients[service] = self._make(service)
            return self._clients[service]

    def close(self) -> None:
        """Let go of the connections."""
        for each in self._clients.values():
            each.close()

    def _make(self, service: str) -> Any:
        from botocore.config import Config

        # Not one retry: the other end is in this process, and where it fails it shall be seen.
        config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
        return _session().create_client(
            service,
            region_name=self.site.region,
            endpoint_url=self.url,
            aws_access_key_id=self.credentials.access_key,
            aws_secret_access_key=self.credentials.secret_key,
            config=config,
        )

    def size(self, bucket: str, key: str) -> int | None:
        """Tell an object's size; None when it is not there or may not be read."""
        from botocore.exceptions import ClientError

        try:
            return int(self.client("s3").head_object(Bucket=bucket, Key=key)["ContentLength"])
        except ClientError as error:
            if error.response["Error"]["Code"] in _MISSING:
                return None
            raise

    def open(self, bucket: str, key: str) -> Any:
        """Open an object for reading; None when it is not there or may not be read."""
        from botocore.exceptions import ClientError

        try:
            return self.client("s3").get_object(Bucket=bucket, Key=key)["Body"]
        except ClientError as error:
            if error.response["Error"]["Code"] in _MISSING:
                return None
            raise

    def read(self, bucket: str, key: str) -> bytes | None:
        """Read an object whole; None when it is not there or may not be read."""
        body = self.open(bucket, key)
        return None if body is None else bytes(body.read())

    def write(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> None:
        """Write an object."""
        self.client("s3").put_object(Bucket=bucket, Key=key, Body=data, ContentType=content_type)

    def keys(self, bucket: str, prefix: str) -> list[str]:
        """List the objects under a prefix, in order; nothing when there is no such bucket."""
        from botocore.exceptions import ClientError

        pages = self.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        try:
            return [each["Key"] for page in pages for each in page.get("Contents", [])]
        except ClientError as error:
            if error.response["Error"]["Code"] in _MISSING:
                return []
            raise


def split_s3(uri: str) -> tuple[str, str]:
    """Split ``s3://bucket/key``."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
