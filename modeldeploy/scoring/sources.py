"""What a caller names as input (a file, a glob, a directory, a list of them) to files in a fixed order."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from modeldeploy.errors import ConfigurationError
from modeldeploy.scoring.formats import guess


def resolve(source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> tuple[str, ...]:
    """List the files of ``source`` as absolute paths: a list in its own order, a glob or a directory sorted by name.

    ConfigurationError names what does not exist, is empty or occurs twice. Names that begin with a dot or an underscore are not data.
    """
    given = [source] if isinstance(source, str | os.PathLike) else list(source)
    if not given:
        message = "the list of input files is empty"
        raise ConfigurationError(message, hint="name at least one file")
    files = [file for each in given for file in _expand(os.fspath(each))]
    twice = sorted({file for file in files if files.count(file) > 1}) if len(set(files)) < len(files) else []
    if twice:
        message = f"input file {twice[0]!r} is named more than once"
        raise ConfigurationError(message, hint="its rows would be scored twice; name it once")
    return tuple(files)


def _expand(name: str) -> list[str]:
    path = Path(name).expanduser().absolute()
    if path.is_file():
        return [str(path)]
    if path.is_dir():
        return _some(sorted(_files_below(path)), f"directory {name!r} holds no parquet, CSV or JSON Lines file")
    if glob.has_magic(name):
        found = (each for each in glob.glob(str(path), recursive=True) if Path(each).is_file())  # noqa: PTH207 - ** and absolute
        return _some(sorted(found), f"no file matches {name!r}")
    message = f"input file {name!r} does not exist"
    raise ConfigurationError(message, hint=f"looked for {str(path)!r}")


def _files_below(root: Path) -> Iterable[str]:
    for path in root.rglob("*"):
        hidden = any(part.startswith((".", "_")) for part in path.relative_to(root).parts)
        if not hidden and path.is_file() and guess(path.name) is not None:
            yield str(path)


def _some(files: list[str], otherwise: str) -> list[str]:
    if not files:
        raise ConfigurationError(otherwise, hint="correct the path")
    return files
