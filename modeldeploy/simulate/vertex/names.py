"""Names of resources, ids, labels and aliases: their grammars, and the things that they name."""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from modeldeploy.simulate.vertex.errors import ServiceError, invalid

ENDPOINT_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?|[1-9][0-9]{0,8}")
MODEL_ID = re.compile(r"[a-z_][a-z0-9_-]{0,62}")
DEPLOYED_ID = re.compile(r"[0-9]{1,10}")
ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")
_LABEL = re.compile(r"[\w-]{0,64}")
_PARENT = re.compile(r"projects/([^/]+)/locations/([^/]+)")
_MOST_NAME = 128
_MOST_LABELS = 64


@attrs.frozen
class Site:
    """The project and the region of everything; names that the service writes have the project's number."""

    project: str
    number: str
    location: str

    @property
    def parent(self) -> str:
        """What all names begin with."""
        return f"projects/{self.number}/locations/{self.location}"

    def check_parent(self, name: str) -> None:
        """Refuse what is in no project, in another project, or in another region."""
        found = _PARENT.fullmatch(name)
        if found is None:
            message = f"Invalid resource field value in the request: parent {name!r}."
            raise invalid(message)
        self._check(name, found[1], found[2])

    def id_of(self, name: str, collection: str) -> str:
        """Give the last part of a name of this collection."""
        parent, _, own = name.partition(f"/{collection}/")
        found = _PARENT.fullmatch(parent)
        if found is None or not own or "/" in own:
            message = f"Invalid resource name {name!r}: it must be projects/*/locations/*/{collection}/*."
            raise invalid(message)
        self._check(name, found[1], found[2])
        return own

    def _check(self, name: str, project: str, location: str) -> None:
        if project not in {self.project, self.number}:
            message = f"Permission denied on resource project {project}."
            raise ServiceError("PERMISSION_DENIED", message)
        if location != self.location:
            message = f"The region of {name} is not {self.location}, which this address serves."
            raise invalid(message)


def check_id(value: str, grammar: re.Pattern[str], field: str) -> None:
    """Refuse an id that its grammar does not allow."""
    if grammar.fullmatch(value) is None:
        message = f"{field} {value!r} must match {grammar.pattern}."
        raise invalid(message)


def check_display_name(value: str, *, needed: bool = True) -> None:
    """Refuse a name for people that is missing or too long."""
    if needed and not value:
        message = "display_name is required."
        raise invalid(message)
    if len(value) > _MOST_NAME:
        message = f"display_name must have at most {_MOST_NAME} characters."
        raise invalid(message)


def check_labels(labels: Mapping[str, str]) -> None:
    """Refuse labels that have a character, a length or a number that is not allowed."""
    if len(labels) > _MOST_LABELS:
        message = f"At most {_MOST_LABELS} labels are allowed."
        raise invalid(message)
    for key, value in labels.items():
        if not key or not _is_label(key) or not _is_label(value):
            message = f"Label {key!r}: {value!r} must be lowercase letters, digits, '_' and '-', at most 64 of them."
            raise invalid(message)


def _is_label(text: str) -> bool:
    return _LABEL.fullmatch(text) is not None and text == text.lower()
