"""Read a result back into memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modeldeploy.errors import NotFoundError
from modeldeploy.scoring.formats import Format

if TYPE_CHECKING:
    import pyarrow as pa


def read(path: Path, given: str | None = None) -> pa.Table:
    """Read a file, or all files of a directory in their order; ``given`` names the format where the file does not."""
    import pyarrow as pa

    if not path.exists():
        message = f"output {str(path)!r} is not there any more"
        raise NotFoundError(message, hint="run the job again")
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    tables = [_read(file, Format.of(str(file), given)) for file in files]
    return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})


def _read(path: Path, form: Format) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv, json, parquet

    if form.kind == "parquet":
        return parquet.read_table(path)
    with pa.input_stream(str(path), compression="gzip" if form.gzip else None) as file:
        if form.kind == "csv":
            return csv.read_csv(file, parse_options=csv.ParseOptions(delimiter=form.delimiter, newlines_in_values=True))
        return json.read_json(file)
