"""The manifest of a bundle: what the model is, how it is loaded, and the digest of every file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import attrs
import orjson

from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.values.codec import from_document, to_document
from modeldeploy.values.model import Signature
from modeldeploy.values.names import check_name, check_version

GOLDEN = "golden.json"
PARITY = "parity.json"
"""How a converted model compared with the one that it was made of; a bundle that was not converted has none."""
ARTIFACTS = "artifacts/"

# One path grammar for manifests and archives: no "..", no hidden, absolute, backslashed or drive-lettered names.
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.+=@-]*"
_PATH = re.compile(rf"{_PART}(?:/{_PART})*")
_MAX_PATH = 200
# What packaging writes; anything else is parsed, which costs an import.
_PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!_-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_path(path: str) -> str:
    """Return ``path`` when it stays inside a bundle on every operating system, else raise IntegrityError."""
    if not isinstance(path, str) or len(path) > _MAX_PATH or _PATH.fullmatch(path) is None:
        message = f"{path!r} is not a path inside a bundle"
        raise IntegrityError(message, hint="a bundle holds plain relative names of letters, digits and . _ - + = @")
    return path


@attrs.frozen
class FileEntry:
    """What one file must be."""

    sha256: str
    size: int

    @classmethod
    def of(cls, data: bytes) -> FileEntry:
        """Describe these bytes."""
        return cls(sha256=hashlib.sha256(data).hexdigest(), size=len(data))


@attrs.frozen
class Column:
    """How one column looks in the table that the model was fitted with."""

    name: str
    label: Any
    """Its label in the table: the name, or a whole number."""
    dtype: str = ""
    """The library's own name of its type; empty when numpy's says it all."""
    categories: tuple[Any, ...] | None = None
    ordered: bool = False


@attrs.frozen
class Manifest:
    """Everything about a packaged model but its bytes."""

    name: str = attrs.field(validator=lambda _i, _a, value: _named(value))
    version: str = attrs.field(validator=lambda _i, _a, value: _versioned(value))
    flavour: str
    method: str
    """What is called for a prediction, such as ``predict``."""
    options: Mapping[str, str]
    """The flavour's own notes on how to load it."""
    signature: Signature
    container: str
    """What the model is given: ``array``, ``matrix``, ``columns``, ``records``, ``pandas``, ``polars`` or ``arrow``."""
    columns: tuple[Column, ...]
    requirements: tuple[str, ...] = attrs.field(validator=lambda _i, _a, value: _check_requirements(value))
    python: str
    pickled: bool
    """Whether loading runs code that the files hold; such a bundle loads only when its digest is trusted."""
    files: Mapping[str, FileEntry] = attrs.field(validator=lambda _i, _a, value: _check_files(value))

    def to_bytes(self) -> bytes:
        """Write it canonically: the same manifest is always the same bytes."""
        return orjson.dumps(to_document(self), option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2) + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read what ``to_bytes`` wrote; ConfigurationError or IntegrityError says what does not fit."""
        try:
            document = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            message = f"the manifest is not JSON: {error}"
            raise IntegrityError(message, hint="the bundle is damaged; package the model again") from error
        return from_document(cls, document)


def _named(value: str) -> None:
    check_name(value, "model name")


def _versioned(value: str) -> None:
    check_version(value)


def _check_requirements(requirements: tuple[str, ...]) -> None:
    """Refuse what is no requirement: written into a file for pip it could be an option of pip's, or begin another line."""
    for text in requirements:
        if _PINNED.fullmatch(text) is None and not _is_requirement(text):
            message = f"{text[:_MAX_PATH]!r} in the manifest is not a requirement"
            raise IntegrityError(message, hint="the bundle is damaged or hostile; package the model again")


def _is_requirement(text: str) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        Requirement(text)
    except InvalidRequirement:
        return False
    return text.isprintable()


def _check_files(files: Mapping[str, FileEntry]) -> None:
    for path, entry in files.items():
        check_path(path)
        if _SHA256.fullmatch(entry.sha256) is None or entry.size < 0:
            message = f"the manifest's entry for {path!r} is not a digest and a size"
            raise ConfigurationError(message, hint="the bundle is damaged; package the model again")
