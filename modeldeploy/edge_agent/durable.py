"""Writing so that the power may fail at any moment: a file is the old one or the new one, whole, and on the disk before anything rests on it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import orjson

Reached = Callable[[str], None]


def reached(_step: str) -> None:
    """Take note of a step of an activation; tests that end the process at each of them stand here."""


def write(path: Path, data: bytes) -> None:
    """Replace a file: written beside, flushed, renamed, and the rename flushed too."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            reached(f"write {path.name}")
            stream.flush()
            os.fsync(stream.fileno())
        reached(f"flush {path.name}")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    reached(f"rename {path.name}")
    sync(path.parent)
    reached(f"keep {path.name}")


def write_json(path: Path, document: object) -> None:
    """Replace a file by a document."""
    write(path, orjson.dumps(document, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2) + b"\n")


def remove(path: Path) -> None:
    """Remove a file, and have that on the disk."""
    path.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush one file or directory."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(root: Path) -> None:
    """Flush every file and directory below, and the name of the tree itself."""
    for folder, _folders, files in os.walk(root):
        for name in files:
            sync(Path(folder) / name)
        sync(Path(folder))
    sync(root.parent)
