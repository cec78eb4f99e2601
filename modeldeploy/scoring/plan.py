"""The plan of a job: its files as they were, its columns, and the parts in which it is scored."""

from __future__ import annotations

import base64
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from modeldeploy.errors import ConfigurationError, ConflictError
from modeldeploy.scoring.formats import Format
from modeldeploy.values.batch import BatchSpec

if TYPE_CHECKING:
    import pyarrow as pa

    from modeldeploy.scoring.layout import Layout

PART_CHUNKS = 4
"""Chunks in a part: enough that flushing it to the disk costs little, few enough that a kill loses little."""
PART_BYTES = 16 << 20
"""The same for text, whose rows are not counted beforehand."""


@attrs.frozen
class Part:
    """Some consecutive rows of one file; what is scored, made durable and, after a kill, scored again as a whole."""

    number: int
    file: int
    """The file's place in the job's list."""
    size: int
    """How much work it is: rows where they are known, else bytes."""
    groups: tuple[int, ...] = ()
    """Parquet: the first row group and the one past the last."""
    skip: int = 0
    """Parquet: rows of the first group that belong to earlier parts."""
    span: tuple[int, ...] = ()
    """Text: the first byte and the one past the last; empty for a file that is read from its beginning."""


@attrs.frozen
class InputFile:
    """A file as it was when the job was planned."""

    path: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: str) -> InputFile:
        """Look at it."""
        try:
            found = Path(path).stat()
        except OSError as error:
            message = f"input file {path!r} cannot be read: {error.strerror}"
            raise ConfigurationError(message, hint="was it moved or deleted?") from error
        return cls(path, found.st_size, found.st_mtime_ns)


@attrs.frozen
class Plan:
    """What was found when the job began; it holds until the job ends."""

    files: tuple[InputFile, ...]
    parts: tuple[Part, ...]
    schema: str
    """The columns of the files, in Arrow's own encoding."""
    source: Format
    target: Format
    directory: bool
    """Whether the output is a directory, with a file for each part."""
    rows: int | None
    """All rows, where they are known beforehand."""
    chunk_rows: int

    def layout(self, spec: BatchSpec) -> Layout:
        """Give the plan of the columns."""
        import pyarrow as pa

        from modeldeploy.scoring.layout import Layout

        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(self.schema)))
        return Layout.of(spec, schema, source=self.source, target=self.target)

    def check_inputs(self) -> None:
        """Raise ConflictError when a file is no longer what it was."""
        for file in self.files:
            if InputFile.of(file.path) != file:
                message = f"input file {file.path!r} changed since the job began"
                raise ConflictError(
                    message, hint="run it again with overwrite=True to score the new content from the start"
                )


def target_of(spec: BatchSpec) -> tuple[Format, bool]:
    """Tell the format of the output and whether it is a directory: one that exists, or a name that ends in a slash."""
    given = spec.options.get("output_format") or None
    directory = spec.output.endswith("/") or Path(spec.output).is_dir()
    if directory:
        form = Format.named(given) if given else source_of(spec)
        return form, True
    return Format.of(
        spec.output, given, argument="a name that ends in a slash for a directory, or output_format="
    ), False


def source_of(spec: BatchSpec) -> Format:
    """Tell the format of the input, which all files share."""
    given = spec.options.get("format") or None
    forms = {path: Format.of(path, given) for path in spec.source}
    first = forms[spec.source[0]]
    other = next((path for path, form in forms.items() if form != first), None)
    if other is not None:
        message = f"input files {spec.source[0]!r} and {other!r} are of different formats"
        raise ConfigurationError(message, hint="score them in separate jobs")
    return first


def inspect(spec: BatchSpec) -> tuple[pa.Schema, Layout]:
    """Check the whole job against its files without reading them through; every mistake of the caller is raised here."""
    from modeldeploy.scoring import schemas
    from modeldeploy.scoring.layout import Layout

    schemas.need_pyarrow()
    source, (target, _directory) = source_of(spec), target_of(spec)
    for path in spec.source:
        InputFile.of(path)
    schema = schemas.together(spec.source, [schemas.of_file(path, source) for path in spec.source])
    return schema, Layout.of(spec, schema, source=source, target=target)


def make(spec: BatchSpec) -> Plan:
    """Look at the files and divide the work; text is scanned once for places where it may be cut."""
    files = tuple(InputFile.of(path) for path in spec.source)
    schema, _layout = inspect(spec)
    source, (target, directory) = source_of(spec), target_of(spec)
    parts: list[Part] = []
    for at in range(len(files)):
        parts += _parts(spec, at, source, first=len(parts))
    return Plan(
        files=files,
        parts=tuple(parts),
        schema=base64.b64encode(schema.serialize().to_pybytes()).decode(),
        source=source,
        target=target,
        directory=directory,
        rows=sum(part.size for part in parts) if source.kind == "parquet" else None,
        chunk_rows=spec.chunk_rows,
    )


def _parts(spec: BatchSpec, at: int, form: Format, *, first: int) -> list[Part]:
    path = spec.source[at]
    if form.kind == "parquet":
        return _of_groups(path, at, spec.chunk_rows * PART_CHUNKS, first)
    from modeldeploy.scoring import csvtext, jsontext

    spans: list[tuple[int, int]] | None = None
    if form.kind == "csv" and not form.gzip:
        spans = csvtext.cuts(path, csvtext.header(path, form).start, _part_bytes(spec), form.delimiter)
    elif not form.gzip:
        spans = jsontext.cuts(path, _part_bytes(spec))
    if spans is None:
        return [Part(number=first, file=at, size=Path(path).stat().st_size)]
    return [Part(number=first + n, file=at, size=b - a, span=(a, b)) for n, (a, b) in enumerate(spans)]


def _part_bytes(spec: BatchSpec) -> int:
    return int(spec.options.get("part_bytes") or PART_BYTES)


def _of_groups(path: str, at: int, rows: int, first: int) -> list[Part]:
    """Join small row groups to a part and cut large ones into several."""
    import pyarrow.parquet as pq

    found = pq.read_metadata(path)
    sizes = [found.row_group(group).num_rows for group in range(found.num_row_groups)]
    parts: list[Part] = []
    start, held = 0, 0
    for group, size in enumerate(sizes):
        held += size
        if held < rows and group + 1 < len(sizes):
            continue
        # An even share: a row group a little over the size is not cut into a whole part and a crumb.
        count = max(1, round(held / rows))
        edges = [held * n // count for n in range(count + 1)]
        for a, b in itertools.pairwise(edges):
            if b > a:
                parts.append(Part(number=first + len(parts), file=at, size=b - a, groups=(start, group + 1), skip=a))
        start, held = group + 1, 0
    return parts
