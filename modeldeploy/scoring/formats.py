"""File formats by their extension: parquet, CSV (and TSV), JSON Lines, plain or gzip-compressed."""

from __future__ import annotations

from pathlib import Path

import attrs

from modeldeploy.errors import ConfigurationError

_KINDS = {
    "parquet": ("parquet", ","),
    "pq": ("parquet", ","),
    "csv": ("csv", ","),
    "tsv": ("csv", "\t"),
    "jsonl": ("jsonl", ","),
    "ndjson": ("jsonl", ","),
    "json": ("jsonl", ","),
}
NAMES = ("parquet", "csv", "tsv", "jsonl", "csv.gz", "tsv.gz", "jsonl.gz")


@attrs.frozen
class Format:
    """How a table lies in a file."""

    kind: str
    """``parquet``, ``csv`` or ``jsonl``."""
    delimiter: str = ","
    gzip: bool = False

    @property
    def suffix(self) -> str:
        """The extension that fits, with its dot."""
        name = "tsv" if self.kind == "csv" and self.delimiter == "\t" else self.kind
        return f".{name}.gz" if self.gzip else f".{name}"

    @classmethod
    def named(cls, name: str) -> Format:
        """Understand a ``format=`` argument; ConfigurationError lists the known ones."""
        parts = name.lower().lstrip(".").split(".")
        gzip = parts[-1] == "gz"
        kind = _KINDS.get(parts[0])
        if kind is None or len(parts) > 1 + gzip or (gzip and kind[0] == "parquet"):
            message = f"format {name!r} is not known"
            raise ConfigurationError(message, hint=f"use one of {list(NAMES)}")
        return cls(kind[0], kind[1], gzip)

    @classmethod
    def of(cls, path: str, given: str | None = None, *, argument: str = "format=") -> Format:
        """Tell the format of a file from ``given`` or from its name; ConfigurationError names the ``argument`` when the name does not tell."""
        if given:
            return cls.named(given)
        found = guess(path)
        if found is None:
            message = f"the name of {path!r} does not say its format"
            raise ConfigurationError(message, hint=f"give {argument} as one of {list(NAMES)}")
        return found


def guess(path: str) -> Format | None:
    """Tell the format from a file's name, or None."""
    suffixes = [suffix.lstrip(".").lower() for suffix in Path(path).suffixes]
    gzip = suffixes[-1:] == ["gz"]
    kind = _KINDS.get(suffixes[-1 - gzip]) if len(suffixes) > gzip else None
    if kind is None or (gzip and kind[0] == "parquet"):
        return None
    return Format(kind[0], kind[1], gzip)
