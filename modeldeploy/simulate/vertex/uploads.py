"""Uploads: in one piece, with what is said about them in front, or piece by piece over many requests."""

from __future__ import annotations

import io
import re
import secrets
from collections.abc import Mapping
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Any

import attrs

from modeldeploy.simulate.vertex.exchange import Answer, Refusal, Request, answer, parsed
from modeldeploy.simulate.vertex.objects import Conditions, Objects, checksums
from modeldeploy.simulate.vertex.resources import settings_of, written
from modeldeploy.simulate.vertex.world import World

_GRAIN = 256 * 1024
_RESUME = 308
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_OCTETS = "application/octet-stream"


@attrs.define(eq=False)
class Session:
    """A resumable upload: where it goes, and what has come so far."""

    place: tuple[str, str]
    resource: Mapping[str, Any]
    conditions: Conditions
    file: Path
    size: int = 0
    done: Answer | None = None


@attrs.define(eq=False)
class Uploads:
    """All uploads that go on."""

    world: World
    objects: Objects
    _sessions: dict[str, Session] = attrs.field(factory=dict)

    def answer(self, bucket: str, request: Request, url: str) -> Answer:
        """Answer a request that brings bytes."""
        kind = request.query.get("uploadtype", "media")
        if kind == "resumable":
            return self._resumable(bucket, request, url)
        if request.method != "POST":
            raise Refusal(405, "methodNotAllowed", f"{request.method} is not supported here.")
        if kind == "multipart":
            resource, data = _split(request)
        else:
            resource, data = {"contentType": request.headers.get("content-type", _OCTETS)}, request.body.read()
        place = bucket, _name(request, resource)
        file = self.objects.kept(io.BytesIO(data))
        return self._made(place, resource, conditions_of(request), file, url)

    def _made(
        self, place: tuple[str, str], resource: Mapping[str, Any], conditions: Conditions, file: Path, url: str
    ) -> Answer:
        md5, crc32c = checksums(file)
        for field, value in (("md5Hash", md5), ("crc32c", crc32c)):
            if resource.get(field) not in {None, value}:
                file.unlink()
                raise Refusal(
                    400, "invalid", f'Provided {field} "{resource[field]}" doesn\'t match calculated "{value}".'
                )
        now = self.world.clock.now()
        made = self.objects.put(place, file, now, settings=settings_of(resource), conditions=conditions)
        return answer(200, written(made, url))

    # Piece by piece.

    def _resumable(self, bucket: str, request: Request, url: str) -> Answer:
        key = request.query.get("upload_id", "")
        if request.method == "POST" and not key:
            return self._begun(bucket, request, url)
        session = self._sessions.get(key)
        if session is None:
            raise Refusal(404, "notFound", "There is no such upload.")
        if request.method == "DELETE":
            del self._sessions[key]
            return Answer(499)
        return session.done or self._piece(session, request, url)

    def _begun(self, bucket: str, request: Request, url: str) -> Answer:
        resource = request.json()
        resource.setdefault("contentType", request.headers.get("x-upload-content-type", _OCTETS))
        place, conditions = (bucket, _name(request, resource)), conditions_of(request)
        conditions.check(self.objects.find(*place))
        key = secrets.token_urlsafe(24)
        self._sessions[key] = Session(place, resource, conditions, self.objects.kept(io.BytesIO()))
        where = f"{url}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={key}"
        return Answer(200, {"Location": where, "X-GUploader-UploadID": key})

    def _piece(self, session: Session, request: Request, url: str) -> Answer:
        """Take the next piece; a piece of which a part is known already is taken from there on."""
        begin, end, total = _range(request)
        if begin is not None:
            if begin > session.size:
                raise Refusal(503, "backendError", f"The piece begins at {begin}, and {session.size} bytes have come.")
            data = request.body.read()[session.size - begin :]
            last = total is not None and end + 1 >= total
            # All pieces but the last are whole multiples of 256 KiB, and what is more of one does not count.
            kept = len(data) if last else len(data) // _GRAIN * _GRAIN
            with session.file.open("ab") as out:
                out.write(data[:kept])
            session.size += max(0, kept)
        if total is not None and session.size >= total:
            session.done = self._made(session.place, session.resource, session.conditions, session.file, url)
            return session.done
        return Answer(_RESUME, {"Range": f"bytes=0-{session.size - 1}"} if session.size else {})


def conditions_of(request: Request) -> Conditions:
    """Read what a caller wants an object to be."""
    return Conditions(
        request.number("ifgenerationmatch"),
        request.number("ifgenerationnotmatch"),
        request.number("ifmetagenerationmatch"),
    )


def _name(request: Request, resource: Mapping[str, Any]) -> str:
    name = request.query.get("name") or resource.get("name")
    if not name:
        raise Refusal(400, "required", "The object has no name.")
    return str(name)


def _range(request: Request) -> tuple[int | None, int, int | None]:
    """Read which piece it is: its first and last byte, and how many there are in all; None where that is not said."""
    asked = request.headers.get("content-range", "")
    if not asked:
        return 0, request.length - 1, request.length
    found = _CONTENT_RANGE.fullmatch(asked)
    if found is None:
        raise Refusal(400, "invalid", f"Content-Range {asked!r} is none.")
    total = None if found[3] == "*" else int(found[3])
    return (None if found[1] is None else int(found[1])), int(found[2] or -1), total


def _split(request: Request) -> tuple[dict[str, Any], bytes]:
    """Take the two parts of a multipart body apart: what is said about the object, and its bytes."""
    found = re.search(r"boundary=\"?([^\";]+)", request.headers.get("content-type", ""))
    pieces = request.body.read().split(b"--" + found[1].encode()) if found else []
    if len(pieces) < 4:  # noqa: PLR2004 - nothing, two parts, and the end
        raise Refusal(400, "badContent", "The body is not multipart/related with two parts.")
    # The bytes may hold anything but the boundary, also what looks like the end of a line.
    first, second = (each.partition(b"\r\n\r\n") for each in (pieces[1], pieces[2]))
    resource = parsed(first[2])
    resource.setdefault("contentType", BytesHeaderParser().parsebytes(second[0].lstrip()).get("content-type", _OCTETS))
    return resource, second[2].removesuffix(b"\r\n")
