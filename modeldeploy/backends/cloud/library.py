"""What goes along with a bundle into a provider's own container: this library's source, what it needs, and whether it may be loaded.

The library travels as source. A requirement would need an index that has this very version, from inside a private network too. What loads
the bundle is then exactly what packaged it.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import modeldeploy
from modeldeploy.errors import IntegrityError
from modeldeploy.packaging.bundle import Bundle

OWN = "modeldeploy"
_NEEDED = ("attrs>=25.1", "numpy>=1.26", "orjson>=3.10", "packaging>=24")
"""What the shipped part of the library imports; docs/dependencies.md has the reasons."""
_SHIPPED = ("values", "packaging", "serving")
_SHIPPED_FILES = ("__init__.py", "errors.py")


@functools.cache
def sources() -> Mapping[str, bytes]:
    """Give the files of the library that load and serve a bundle, by their path below the place of the package."""
    root = Path(modeldeploy.__file__).parent
    return {f"{OWN}/{name}": (root / name).read_bytes() for name in sorted(_names(root))}


def _names(root: Path) -> Iterator[str]:
    yield from _SHIPPED_FILES
    for folder in _SHIPPED:
        yield from (path.relative_to(root).as_posix() for path in (root / folder).rglob("*.py"))


def needed(bundle: Bundle) -> list[str]:
    """List the requirements: what the bundle pins, and what the shipped library needs beside it."""
    pinned = [text for text in bundle.manifest.requirements if _name(text) != OWN]
    named = {_name(text) for text in pinned}
    return [*pinned, *(text for text in _NEEDED if _name(text) not in named)]


def _name(requirement: str) -> str:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    return canonicalize_name(Requirement(requirement).name)


def refuse_untrusted(bundle: Bundle, trust: Collection[str]) -> bool:
    """Say whether somebody vouched for the bundle; IntegrityError for pickled content that nobody vouched for."""
    trusted = bundle.digest in trust
    if bundle.manifest.pickled and not trusted:
        message = (
            f"{bundle.manifest.name} {bundle.manifest.version} holds pickled code and nobody here vouched for "
            f"{bundle.digest}"
        )
        raise IntegrityError(
            message, hint=f"if you know where it comes from, pass trust={bundle.digest!r} to Model.from_path"
        )
    return trusted
