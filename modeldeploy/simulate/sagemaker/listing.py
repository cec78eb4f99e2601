"""The List operations: filters, order and pages."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from modeldeploy.simulate.sagemaker.errors import invalid
from modeldeploy.simulate.sagemaker.world import Json

_PAGE = 10
_BY_TIME = "CreationTime"


class Listed(Protocol):
    """What can be listed."""

    name: str
    created: float


T = TypeVar("T", bound=Listed)


def listed(
    items: Iterable[T],
    request: Json,
    member: str,
    summary: Callable[[T], Json],
    *,
    status: tuple[str, str] = ("StatusEquals", ""),
    newest_first: bool = True,
) -> Json:
    """Answer a List request: what passes the filters, in the asked order, one page of it.

    ``status`` names the request's filter of a status and the member of a summary that it is compared with.
    """
    kept = [(item, summary(item)) for item in items if _passes(item, request)]
    kept = [(item, each) for item, each in kept if _has_status(each, request, status)]
    default = "Descending" if newest_first else "Ascending"
    key: Callable[[tuple[T, Json]], tuple[object, str]] = lambda pair: _key(pair[0], pair[1], request)  # noqa: E731
    kept.sort(key=key, reverse=request.get("SortOrder", default) == "Descending")
    start, size = _start(request), int(request.get("MaxResults", _PAGE))
    answer: Json = {member: [each for _item, each in kept[start : start + size]]}
    if start + size < len(kept):
        answer["NextToken"] = _token(start + size)
    return answer


def _key(item: Listed, summary: Json, request: Json) -> tuple[object, str]:
    by = request.get("SortBy", _BY_TIME)
    if by == "Name":
        return item.name, ""
    return summary.get("LastModifiedTime" if by == "LastModifiedTime" else by, item.created), item.name


def _passes(item: Listed, request: Json) -> bool:
    part = request.get("NameContains", "")
    return bool(
        part.lower() in item.name.lower()
        and item.created <= request.get("CreationTimeBefore", item.created)
        and item.created >= request.get("CreationTimeAfter", item.created)
    )


def _has_status(summary: Json, request: Json, status: tuple[str, str]) -> bool:
    asked, member = status
    modified = summary.get("LastModifiedTime", 0.0)
    return bool(
        (asked not in request or summary.get(member) == request[asked])
        and modified <= request.get("LastModifiedTimeBefore", modified)
        and modified >= request.get("LastModifiedTimeAfter", modified)
    )


def _token(start: int) -> str:
    return base64.b64encode(b"%d" % start).decode()


def _start(request: Json) -> int:
    token = request.get("NextToken")
    if token is None:
        return 0
    try:
        return int(base64.b64decode(token, validate=True))
    except (binascii.Error, ValueError) as error:
        text = "Invalid next token."
        raise invalid(text) from error
