"""The name grammar that all providers accept, and deterministic names.

``[a-z][a-z0-9-]{1,30}[a-z0-9]`` is the intersection of what the providers take: SageMaker endpoint and variant names are at most 63
characters, Azure ML names 3-32 with a letter first (and its SDK lower-cases traffic keys), Vertex AI ids and labels lower-case.
"""

from __future__ import annotations

import hashlib
import re

from modeldeploy.errors import ConfigurationError

_NAME = re.compile(r"[a-z][a-z0-9-]{1,30}[a-z0-9]")
# semver.org, section "Is there a suggested regular expression"; groups dropped.
_SEMVER = re.compile(
    r"(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)"
    r"(?:-(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
    r"(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?"
)
_HASH_CHARS = 8
_MAX_NAME = 32


def check_name(name: str, what: str) -> str:
    """Return ``name`` when every provider accepts it, else raise ConfigurationError that says what to change.

    >>> check_name("iris", "endpoint name")
    'iris'
    """
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        message = f"{what} {name!r} is not a valid name"
        suggestion = suggest_name(name) if isinstance(name, str) else "model"
        hint = f"use 3-32 lower-case letters, digits and hyphens, starting with a letter, for example {suggestion!r}"
        raise ConfigurationError(message, hint=hint)
    return name


def suggest_name(text: str) -> str:
    """Give the valid name nearest to ``text``.

    >>> suggest_name("My Model_v2!")
    'my-model-v2'
    """
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-").lstrip("0123456789-")[:_MAX_NAME].strip("-")
    return slug if _NAME.fullmatch(slug) else f"model-{slug}".strip("-")[:_MAX_NAME].strip("-")


def check_version(version: str) -> str:
    """Return ``version`` when it is a semantic version (semver.org 2.0.0), else raise ConfigurationError."""
    if not isinstance(version, str) or _SEMVER.fullmatch(version) is None:
        message = f"version {version!r} is not a semantic version"
        raise ConfigurationError(message, hint="use MAJOR.MINOR.PATCH such as '1.0.0' or '2.1.0-rc.1'")
    return version


def short_hash(*parts: str) -> str:
    """Eight hexadecimal characters that depend on all parts and their borders."""
    digest = hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
    return digest[:_HASH_CHARS]


def revision_id(version: str, *content: str) -> str:
    """Derive a revision's id from its content, so that the same content is always the same revision.

    >>> revision_id("1.0.0", "sha256:aa")
    'v1-0-0-e13d86e1'
    """
    slug = re.sub(r"[^a-z0-9]+", "-", version.lower()).strip("-")[: _MAX_NAME - _HASH_CHARS - 2].strip("-")
    return f"v{slug}-{short_hash(*content)}"


def operation_id(kind: str) -> str:
    """Make a new, unguessable operation id that says what it is, such as ``rollout-3f9c2a71b0d4``."""
    import secrets  # draws in what no process needs that only serves

    return f"{kind}-{secrets.token_hex(6)}"
