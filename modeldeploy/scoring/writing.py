"""Results to files of the output's format."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from modeldeploy.scoring import render
from modeldeploy.scoring.formats import Format
from modeldeploy.scoring.parquet import ParquetSink

if TYPE_CHECKING:
    import pyarrow as pa


class Sink(Protocol):
    """Takes tables and makes a file of them."""

    def write(self, table: pa.Table) -> None:
        """Add rows."""
        ...

    def close(self) -> None:
        """Write what is still held, and the end of the file."""
        ...

    def drop(self) -> None:
        """Forget the file; nothing more is written, not by the garbage collector either."""
        ...


class Writer:
    """A file of results under construction, whole when it is left without an error."""

    def __init__(self, path: Path, form: Format, schema: pa.Schema, *, header: bool = True) -> None:
        self._file = path.open("wb")
        try:
            self._sink = _sink(self._file, form, schema, header=header)
        except BaseException:
            self._file.close()
            raise

    def write(self, table: pa.Table) -> None:
        """Add rows."""
        if table.num_rows:
            self._sink.write(table)

    def finish(self) -> None:
        """Write the end of the file."""
        with self._file:
            self._sink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self._sink.drop()
            self._file.close()


def _sink(file: Any, form: Format, schema: pa.Schema, *, header: bool) -> Sink:
    if form.kind == "parquet":
        return ParquetSink(file, schema)
    return _Text(file, form, schema, header=header)


class _Text:
    """Lines of CSV or JSON; compressed parts may stand one after another in one file (RFC 1952, section 2.2)."""

    def __init__(self, file: Any, form: Format, schema: pa.Schema, *, header: bool) -> None:
        import gzip

        # No name and no time inside, so that the same rows are the same bytes.
        self._out = gzip.GzipFile("", "wb", 6, file, 0) if form.gzip else file
        self._form = form
        if form.kind == "csv" and header:
            self._out.write(render.csv_header(schema.names, form.delimiter))

    def write(self, table: pa.Table) -> None:
        lines = (
            render.json_lines(table) if self._form.kind == "jsonl" else render.csv_lines(table, self._form.delimiter)
        )
        self._out.write(lines)

    def close(self) -> None:
        if self._form.gzip:
            self._out.close()

    def drop(self) -> None:
        if self._form.gzip:
            self._out.fileobj = None
