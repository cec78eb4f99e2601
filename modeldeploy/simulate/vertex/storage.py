"""The JSON API of Cloud Storage: uploads of all three kinds, downloads by ranges, lists, conditions on generations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

import attrs

from modeldeploy.simulate.vertex.exchange import Answer, Refusal, Request, answer
from modeldeploy.simulate.vertex.objects import Object, Objects
from modeldeploy.simulate.vertex.resources import bucket_resource, etag_of, settings_of, written
from modeldeploy.simulate.vertex.uploads import Uploads, conditions_of
from modeldeploy.simulate.vertex.world import World

_BUCKET = re.compile(r"/storage/v1/b/([^/]+)")
_OBJECTS = re.compile(r"/storage/v1/b/([^/]+)/o")
_OBJECT = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/]+)")
_UPLOAD = re.compile(r"(?:/resumable)?/upload/storage/v1/b/([^/]+)/o")
_REWRITE = re.compile(r"/storage/v1/b/([^/]+)/o/([^/]+)/(?:rewriteTo|copyTo)/b/([^/]+)/o/([^/]+)")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_MOST = 1_000
_CHUNK = 1 << 20


@attrs.define(eq=False)
class Storage:
    """Answers what has the paths of Cloud Storage."""

    world: World
    objects: Objects
    uploads: Uploads
    url: str

    def answer(self, request: Request) -> Answer:
        """Answer a request; PreconditionError or Refusal when it is not to be done."""
        path = request.path
        if found := _UPLOAD.fullmatch(path):
            self._bucket(unquote(found[1]))
            return self.uploads.answer(unquote(found[1]), request, self.url)
        if found := _REWRITE.fullmatch(path):
            return self._rewrite(request, *(unquote(each) for each in found.groups()))
        if found := _OBJECT.fullmatch(path):
            return self._object(request, unquote(found[1]), unquote(found[2]))
        if found := _OBJECTS.fullmatch(path):
            return self._list(request, unquote(found[1]))
        if path.rstrip("/") == "/storage/v1/b":
            return self._buckets(request)
        if found := _BUCKET.fullmatch(path):
            return self._one_bucket(request, unquote(found[1]))
        raise Refusal(501, "notImplemented", f"{request.method} {path} is not simulated.")

    # Buckets.

    def _buckets(self, request: Request) -> Answer:
        if request.method == "GET":
            prefix = request.query.get("prefix", "")
            items = [bucket_resource(name, self._created(name), self.url) for name in sorted(self.objects.buckets)]
            return answer(200, {"kind": "storage#buckets", "items": [e for e in items if e["name"].startswith(prefix)]})
        name = str(request.json().get("name", ""))
        if _BUCKET_NAME.fullmatch(name) is None:
            raise Refusal(400, "invalid", f"Invalid bucket name: {name!r}")
        with self.objects.lock:
            if name in self.objects.buckets:
                raise Refusal(
                    409,
                    "conflict",
                    "Your previous request to create the named bucket succeeded and you already own it.",
                )
            self.objects.create(name, self.world.clock.now())
        return answer(200, bucket_resource(name, self._created(name), self.url))

    def _one_bucket(self, request: Request, name: str) -> Answer:
        there = self._bucket(name)
        if request.method != "DELETE":
            return answer(200, bucket_resource(name, self._created(name), self.url))
        if there:
            raise Refusal(409, "conflict", "The bucket you tried to delete is not empty.")
        with self.objects.lock:
            self.objects.buckets.pop(name, None)
        return Answer(204)

    def _created(self, name: str) -> float:
        return self.objects.created.get(name, 0.0)

    def _bucket(self, name: str) -> dict[str, Object]:
        there = self.objects.buckets.get(name)
        if there is None:
            raise Refusal(404, "notFound", "The specified bucket does not exist.")
        return there

    def _list(self, request: Request, bucket: str) -> Answer:
        """List objects and folders in the order of their names, a page at a time."""
        self._bucket(bucket)
        query = request.query
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        found: dict[str, Object | None] = {}
        for each in self.objects.under(bucket, prefix):
            cut = each.name.find(delimiter, len(prefix)) if delimiter else -1
            if cut < 0:
                found[each.name] = each
            else:
                found.setdefault(each.name[: cut + len(delimiter)], None)
        names = [
            name
            for name in found
            if query.get("startoffset", "") <= name and (not query.get("endoffset") or name < query["endoffset"])
        ]
        # The token is the last name that was told, so that changes between two pages shift nothing.
        after = _name(query.get("pagetoken", ""))
        names = [name for name in names if name > after] if after else names
        size = max(1, min(request.number("maxresults") or _MOST, _MOST))
        told: dict[str, Any] = {"kind": "storage#objects"}
        if len(names) > size:
            names = names[:size]
            told["nextPageToken"] = names[-1].encode().hex()
        items = [written(there, self.url) for name in names if (there := found[name]) is not None]
        folders = [name for name in names if found[name] is None]
        return answer(
            200, {**told, **({"items": items} if items else {}), **({"prefixes": folders} if folders else {})}
        )

    # Objects.

    def _object(self, request: Request, bucket: str, name: str) -> Answer:
        self._bucket(bucket)
        there = self._there(bucket, name)
        if request.method == "DELETE":
            self.objects.delete(there, conditions_of(request))
            return Answer(204)
        if request.method in {"PATCH", "PUT"}:
            settings = {**there.settings, **settings_of(request.json())}
            return answer(200, written(self.objects.evolve(there, settings, conditions_of(request)), self.url))
        conditions_of(request).check(there)
        if request.query.get("generation", str(there.generation)) != str(there.generation):
            raise Refusal(404, "notFound", f"No such object: {bucket}/{name}")
        if request.query.get("alt") == "media":
            return _media(there, request.headers.get("range", ""))
        return answer(200, written(there, self.url))

    def _there(self, bucket: str, name: str) -> Object:
        there = self.objects.find(bucket, name)
        if there is None:
            raise Refusal(404, "notFound", f"No such object: {bucket}/{name}")
        return there

    def _rewrite(self, request: Request, bucket: str, name: str, to_bucket: str, to_name: str) -> Answer:
        self._bucket(bucket)
        self._bucket(to_bucket)
        there = self._there(bucket, name)
        made = self.objects.copy(there, (to_bucket, to_name), self.world.clock.now(), conditions_of(request))
        resource = written(made, self.url)
        if "/copyTo/" in request.path:
            return answer(200, resource)
        size = str(made.size)
        told = {"kind": "storage#rewriteResponse", "totalBytesRewritten": size, "objectSize": size, "done": True}
        return answer(200, {**told, "resource": resource})


def _name(token: str) -> str:
    """Read the name that a page's token stands for."""
    try:
        return bytes.fromhex(token).decode()
    except ValueError as error:
        raise Refusal(400, "invalid", f"Invalid page token: {token!r}") from error


def _media(there: Object, asked: str) -> Answer:
    """Give an object's bytes, or the range of them that is asked for."""
    headers = {
        "Content-Type": str(there.settings.get("contentType") or "application/octet-stream"),
        "X-Goog-Hash": f"crc32c={there.crc32c},md5={there.md5}",
        "X-Goog-Generation": str(there.generation),
        "X-Goog-Metageneration": str(there.metageneration),
        "X-Goog-Stored-Content-Length": str(there.size),
        "X-Goog-Stored-Content-Encoding": "identity",
        "Accept-Ranges": "bytes",
        "ETag": etag_of(there),
    }
    begin, end = _span(asked, there.size)
    if begin is None:
        return Answer(416, {"Content-Range": f"bytes */{there.size}"})
    if asked:
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{there.size}"
    headers["Content-Length"] = str(end - begin)
    return Answer(206 if asked else 200, headers, parts=_parts(there, begin, end))


def _span(asked: str, size: int) -> tuple[int | None, int]:
    found = _RANGE.fullmatch(asked)
    if not asked or found is None:
        return 0, size
    if not found[1]:
        return max(0, size - int(found[2] or 0)), size
    begin = int(found[1])
    end = min(size, int(found[2]) + 1) if found[2] else size
    return (begin, end) if begin < size else (None, 0)


def _parts(there: Object, begin: int, end: int) -> Iterable[bytes]:
    with there.file.open("rb") as stream:
        stream.seek(begin)
        left = end - begin
        while left and (data := stream.read(min(_CHUNK, left))):
            left -= len(data)
            yield data
