"""Buckets and objects as the JSON API writes them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from modeldeploy.simulate.vertex.objects import Object

_SETTINGS = (
    "contentType",
    "contentEncoding",
    "contentDisposition",
    "contentLanguage",
    "cacheControl",
    "metadata",
    "customTime",
)


def stamp(at: float) -> str:
    """Write an instant as the service does.

    >>> stamp(0.25)
    '1970-01-01T00:00:00.250Z'
    """
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def settings_of(resource: Mapping[str, Any]) -> dict[str, Any]:
    """Take what callers may say about an object."""
    return {name: resource[name] for name in _SETTINGS if resource.get(name) is not None}


def etag_of(there: Object) -> str:
    """Give the entity tag of an object, which is made of its generations."""
    return base64.b64encode(f"{there.generation}/{there.metageneration}".encode()).decode()


def written(there: Object, url: str) -> dict[str, Any]:
    """Write an object."""
    path = f"{there.bucket}/o/{quote(there.name, safe='')}"
    return {
        "kind": "storage#object",
        "id": f"{there.bucket}/{there.name}/{there.generation}",
        "selfLink": f"{url}/storage/v1/b/{path}",
        "mediaLink": f"{url}/download/storage/v1/b/{path}?generation={there.generation}&alt=media",
        "bucket": there.bucket,
        "name": there.name,
        "generation": str(there.generation),
        "metageneration": str(there.metageneration),
        "size": str(there.size),
        "md5Hash": there.md5,
        "crc32c": there.crc32c,
        "etag": etag_of(there),
        "storageClass": "STANDARD",
        "timeCreated": stamp(there.created),
        "updated": stamp(there.created),
        **there.settings,
    }


def bucket_resource(name: str, created: float, url: str) -> dict[str, Any]:
    """Write a bucket."""
    return {
        "kind": "storage#bucket",
        "id": name,
        "name": name,
        "selfLink": f"{url}/storage/v1/b/{name}",
        "location": "REHEARSAL",
        "storageClass": "STANDARD",
        "metageneration": "1",
        "etag": "CAE=",
        "timeCreated": stamp(created),
        "updated": stamp(created),
    }
