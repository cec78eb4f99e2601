"""The last step: the complete result gets the name of the output, and never before."""

from __future__ import annotations

from pathlib import Path

from modeldeploy.errors import ConflictError
from modeldeploy.scoring import durable
from modeldeploy.scoring.formats import guess
from modeldeploy.scoring.job import Job, Request
from modeldeploy.scoring.quarantine import Quarantine
from modeldeploy.values.codec import from_json, to_json


def finished(job: Job) -> bool:
    """Whether the job published its output once."""
    return durable.last(job.entries(), "done") is not None


def is_ours(job: Job, output: Path) -> bool:
    """Whether what bears the output's name is what this job published last."""
    row = durable.last(job.entries(), "publish")
    return row is not None and durable.Identity.of(output) == from_json(durable.Identity, row["identity"])


def check_free(job: Job, request: Request) -> None:
    """Raise ConflictError when something else bears the output's name and may not be replaced."""
    output = Path(request.spec.output)
    if not output.exists() or (not request.overwrite and is_ours(job, output)):
        return
    if request.overwrite:
        _check_tables_only(output)
        return
    if output.is_dir() and not any(output.iterdir()):
        return
    message = f"output {str(output)!r} exists and was not made by this job"
    raise ConflictError(message, hint="choose another output, or replace it with overwrite=True")


def _check_tables_only(output: Path) -> None:
    """Raise ConflictError for a directory that holds more than tables: it is replaced as a whole, and may be somebody's home."""
    for path in sorted(output.iterdir()) if output.is_dir() else ():
        hidden = path.name.startswith((".", "_"))
        if path.is_dir() or (not hidden and guess(path.name) is None):
            message = f"output directory {str(output)!r} holds {path.name!r}, which is no table, and is not replaced"
            raise ConflictError(message, hint="choose another output, or empty the directory yourself")


def publish(job: Job, request: Request, ledger: durable.Ledger, *, result: Path, quarantine: Quarantine) -> None:
    """Give the result its name; a kill at any moment leaves the old state or the new one."""
    quarantine.plan.check_inputs()
    check_free(job, request)
    identity = durable.Identity.of(result)
    rows = ledger_rows(ledger)
    quarantine.write()
    ledger.append({"kind": "publish", "identity": to_json(identity), **rows})
    _move(result, job.output, job.parts / "replaced")
    durable.flush_directory(job.output.parent)
    finish(job, ledger)


def finish(job: Job, ledger: durable.Ledger) -> None:
    """Write down that the output is there."""
    row = ledger.last("publish") or {}
    durable.flush_directory(job.output.parent)
    ledger.append({**row, "kind": "done"})


def ledger_rows(ledger: durable.Ledger) -> dict[str, int]:
    """Count the rows of all parts; of a part that was scored twice the last entry counts."""
    parts = {row["done"]["part"]: row["done"] for row in ledger.rows if row["kind"] == "part"}
    return {name: sum(done[name] for done in parts.values()) for name in ("rows_in", "rows_out", "bad_rows")}


def _move(result: Path, output: Path, aside: Path) -> None:
    if output.is_dir() and any(output.iterdir()):
        output.rename(aside)
    result.rename(output) if result.is_dir() else result.replace(output)
