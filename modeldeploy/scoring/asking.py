"""What every backend asks before it takes a job that writes to this machine: may the model be loaded, may the output be written, is it new."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from modeldeploy.errors import ConfigurationError, ConflictError, IntegrityError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.scoring import publish
from modeldeploy.scoring.job import Job, Progress, Request, content
from modeldeploy.values.batch import BatchSpec

_ELSEWHERE = "write to another directory, or name the input files more narrowly"


def request(spec: BatchSpec, trusted: Collection[str]) -> Request:
    """Check that the model is there and may be loaded; IntegrityError for pickled content that nobody vouched for."""
    bundle = Bundle.open(Path(spec.model.uri), expect=spec.model.digest)
    if bundle.manifest.pickled and bundle.digest not in trusted:
        message = f"{spec.model} holds pickled code and nobody here vouched for {bundle.digest}"
        raise IntegrityError(
            message, hint=f"if you know where it comes from, pass trust={bundle.digest!r} to Model.from_path"
        )
    trust = (bundle.digest,) if bundle.digest in trusted else ()
    return Request(spec, trust, overwrite=spec.options.get("overwrite") == "true")


def check_output(spec: BatchSpec) -> None:
    """Raise ConfigurationError for an output that cannot be written, or that is or holds an input file."""
    output = Path(spec.output)
    if not output.parent.is_dir():
        message = f"the output's directory {str(output.parent)!r} does not exist"
        raise ConfigurationError(message, hint="make it first")
    if str(output) in spec.source:
        message = f"output {spec.output!r} is one of the input files"
        raise ConfigurationError(message, hint=_ELSEWHERE)
    inside = next((file for file in spec.source if output.resolve() in Path(file).resolve().parents), None)
    if inside is not None:
        message = f"output directory {spec.output!r} would be replaced, and input file {inside!r} lies in it"
        raise ConfigurationError(message, hint=_ELSEWHERE)


def begins_anew(job: Job, asked: Request, *, ours: bool = False) -> bool:
    """Whether nothing of an earlier run is of use; ConflictError when something would be lost without ``overwrite``.

    ``ours`` says that the job's lease is held by whoever asks.
    """
    known = job.exists()
    if known and content(job.request().spec) != content(asked.spec):
        return _replaces(job, asked, ours=ours)
    publish.check_free(job, asked)
    if not known:
        return True
    output = Path(asked.spec.output)
    if publish.finished(job) and not (output.exists() and publish.is_ours(job, output)):
        return True
    try:
        job.check_inputs()
    except ConflictError:
        if not asked.overwrite:
            raise
        return True
    return False


def _replaces(job: Job, asked: Request, *, ours: bool) -> bool:
    if asked.overwrite and (ours or not job.at_work()):
        return True
    message = f"batch job {job.name!r} exists with other content"
    raise ConflictError(message, hint="choose another name=, or replace it with overwrite=True once it has ended")


def describe(progress: Progress) -> str:
    """Say how far a job is: rows, bad rows, rows per second and time left."""
    total = f" of {progress.rows_total:,}" if progress.rows_total is not None else ""
    parts = [f"{progress.rows_done:,}{total} rows"]
    if progress.bad_rows:
        parts.append(f"{progress.bad_rows:,} bad")
    if progress.rows_per_second:
        parts.append(f"{progress.rows_per_second:,.0f} rows/s")
    if progress.seconds_left and not progress.phase.ended:
        parts.append(f"{progress.seconds_left:,.0f} s left")
    return ", ".join(parts) if progress.rows_done else progress.note
