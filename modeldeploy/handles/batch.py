"""The handle of a batch job: a table scored with a model, every row exactly once."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from modeldeploy.errors import ConfigurationError, ModelDeployError, NotFoundError, OperationFailed

if TYPE_CHECKING:
    import pyarrow as pa

    from modeldeploy.engine.record import Record
    from modeldeploy.handles.operation import Operation
    from modeldeploy.handles.session import Session
    from modeldeploy.spi import Backend
    from modeldeploy.values.batch import BatchSpec, BatchState
    from modeldeploy.values.model import ModelVersion
    from modeldeploy.values.ticket import Ticket

# What the verbs rest on is imported by each, as in ``handles.endpoint``: the process that runs a job starts while the rest is loaded.

Source = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
_TONES = {"running": "warn", "succeeded": "good", "failed": "bad", "cancelled": "plain"}


class BatchJob:
    """A table being scored, or scored; made by ``BatchJob.run`` and found again by ``BatchJob.get``."""

    def __init__(self, session: Session, name: str) -> None:
        self.name = name
        self._session = session

    @classmethod
    def run(  # noqa: PLR0913 - each is the user's own choice
        cls,
        model: object,
        source: Source,
        output: str | os.PathLike[str],
        *,
        key: str | None = None,
        name: str | None = None,
        columns: Mapping[str, str | Sequence[str]] | None = None,
        keep: Sequence[str] | None = None,
        max_bad_rows: int | None = 0,
        chunk_rows: int = 65_536,
        workers: int = 0,
        format: str | None = None,  # noqa: A002 - the name users expect
        output_format: str | None = None,
        overwrite: bool = False,
        backend: str | Backend | Session | None = None,
        home: Path | str | None = None,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Self:
        """Score every row of ``source`` (a file, a glob, a directory or a list of files) into ``output`` (a file, or a directory with a slash).

        The input columns are kept beside the prediction, or those of ``keep``; ``columns`` maps model inputs to columns of other names.
        Bad rows go to ``OUTPUT.quarantine.jsonl`` with the reason; more than ``max_bad_rows`` of them (None: any number) fail the job.
        The same job again goes on where it stopped, and does nothing when it is done. ``workers`` parts are
        scored at the same time; 0 takes as many as pay, up to one for each core.

        Every mistake in the arguments is raised before anything is written; OperationFailed when the job itself fails.
        """
        from modeldeploy.handles import early

        options = {
            "format": format or "",
            "output_format": output_format or "",
            "overwrite": "true" if overwrite else "",
        }
        with early.job_expected(backend, workers):
            import attrs

            from modeldeploy.handles.session import Session
            from modeldeploy.values.batch import BatchSpec

            session = Session.of(backend, home=home)
            draft = BatchSpec(
                name=name or "batch",
                model=_identity(model, session),
                source=_files(source),
                output=_place(output),
                key=key,
                columns={field: _mapped(each) for field, each in (columns or {}).items()},
                keep=None if keep is None else _names(keep),
                max_bad_rows=max_bad_rows,
                chunk_rows=chunk_rows,
                workers=workers,
                options={option: value for option, value in options.items() if value},
            )
            job = cls(session, name or _name_of(draft))
            job._begin(attrs.evolve(draft, name=job.name))
        return job.wait(timeout) if wait else job

    @classmethod
    def get(cls, name: str, *, backend: str | Backend | Session | None = None, home: Path | str | None = None) -> Self:
        """Find a job by its name, from any process; NotFoundError lists the known ones."""
        from modeldeploy.handles.session import Session

        job = cls(Session.of(backend, home=home), name)
        job._state()
        return job

    def _begin(self, spec: BatchSpec) -> None:
        from modeldeploy.engine.record import Kind
        from modeldeploy.engine.single import SingleCursor
        from modeldeploy.values.codec import to_json

        ticket = self._session.batch.put_job(spec)
        unfinished = self._unfinished()
        if unfinished is None or _spec_of(unfinished) != spec:
            supersede = unfinished.id if unfinished else None
            self._session.begin(Kind.BATCH, self.name, to_json(SingleCursor(ticket)), supersede=supersede)
        self.operation.start()

    def _unfinished(self) -> Record | None:
        from modeldeploy.engine.record import Kind

        found = self._session.journal.unfinished(backend=self._session.backend.name, target=self.name)
        return next((record for record in found if record.kind is Kind.BATCH), None)

    @property
    def operation(self) -> Operation:
        """The operation that carries it: status, events, ``watch()``; NotFoundError when the job was begun from another journal."""
        from modeldeploy.handles.operation import Operation

        record = self._latest()
        if record is None:
            message = f"the journal knows no operation of batch job {self.name!r}"
            raise NotFoundError(message, hint="run the same job again: it goes on where it stopped")
        return Operation(self._session, record.id)

    def _latest(self) -> Record | None:
        from modeldeploy.engine.record import Kind

        return self._session.journal.latest(backend=self._session.backend.name, target=self.name, kind=Kind.BATCH)

    @property
    def status(self) -> str:
        """``"running"``, ``"succeeded"``, ``"failed"`` or ``"cancelled"``, as observed now."""
        return self._phase(self._session.batch.observe_job(self.name))

    def _phase(self, state: BatchState | None) -> str:
        from modeldeploy.values.ticket import Phase

        # Until its driver looked for the first time, what the backend shows is an earlier run, or nothing.
        pending = self._unfinished()
        fresh = pending is not None and _ticket_of(pending).step == "start"
        return Phase.RUNNING.value if state is None or fresh else state.phase.value

    @property
    def progress(self) -> BatchState:
        """Rows done, bad rows, rows per second and seconds left, as observed now."""
        return self._state()

    def _state(self) -> BatchState:
        state = self._session.batch.observe_job(self.name)
        if state is not None:
            return state
        pending = self._unfinished()
        if pending is None:
            known = list(self._session.batch.jobs())
            message = f"there is no batch job {self.name!r}"
            raise NotFoundError(message, hint=f"jobs are {known}")
        from modeldeploy.values.batch import BatchState
        from modeldeploy.values.ticket import Phase

        return BatchState(self.name, Phase.RUNNING, _spec_of(pending).output, note="about to begin")

    @property
    def output(self) -> Path:
        """Where the result is, once the job succeeded."""
        return Path(self._state().output)

    @property
    def quarantine(self) -> Path | None:
        """The file of bad rows with file, row number, key, reason and values; None when there are none."""
        found = self._state().quarantine
        return Path(found) if found else None

    def result(self) -> pa.Table:
        """Read the result into memory as an Arrow table (``.to_pandas()``); OperationFailed when the job has not succeeded."""
        state = self._state()
        if self.status != "succeeded":
            message = f"batch job {self.name!r} has no result: it is {self.status}"
            raise OperationFailed(message, hint="job.wait() waits for it and says what failed")
        from modeldeploy.scoring.results import read

        record = self._latest()
        return read(Path(state.output), (_spec_of(record).options.get("output_format") or None) if record else None)

    def wait(self, timeout: float | None = None) -> Self:
        """Wait until it ended, driving it if nobody does; OperationFailed says why it failed, OperationTimeout leaves it at work."""
        self.operation.wait(timeout)
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        yield from self.operation.__await__()
        return self

    def cancel(self, reason: str = "") -> Self:
        """Ask it to stop after the parts in hand; what is done is kept, and the same job run again goes on from there."""
        self.operation.cancel(reason)
        self.operation.start()
        return self

    def __repr__(self) -> str:
        try:
            state = self._state()
        except ModelDeployError:
            return f"BatchJob({self.name!r}, unknown)"
        bad = f", {state.bad_rows:,} bad" if state.bad_rows else ""
        return f"BatchJob({self.name!r}, {self._phase(state)}, {_rows(state)}{bad}, {state.output!r})"

    def _repr_html_(self) -> str:
        from modeldeploy.observe import notebook

        state = self._state()
        status = self._phase(state)
        percent = _percent(state)
        pairs: list[tuple[str, object]] = [
            ("status", notebook.badge(status, _TONES.get(status, "plain"))),  # type: ignore[arg-type]
            ("rows", notebook.bar(percent, text=_rows(state))),
            ("bad rows", state.bad_rows),
            ("rows per second", round(state.rows_per_second) if state.rows_per_second else None),
            ("seconds left", round(state.seconds_left) if state.seconds_left is not None else None),
            ("output", notebook.code(state.output)),
        ]
        if state.quarantine:
            pairs.append(("quarantine", notebook.code(state.quarantine)))
        return notebook.definition(f"Batch job {self.name}", pairs, note=state.note)


def _identity(model: object, session: Session) -> ModelVersion:
    from modeldeploy.handles.coerce import as_model
    from modeldeploy.values.model import ModelVersion
    from modeldeploy.values.serving import Revision

    if isinstance(model, ModelVersion):
        return model
    if isinstance(model, Revision):
        return model.model
    return as_model(model, name=None, version="1.0.0", example=None, home=session.home).identity


def _files(source: Source) -> tuple[str, ...]:
    from modeldeploy.scoring.sources import resolve

    return resolve(source)


def _place(output: str | os.PathLike[str]) -> str:
    """Make the output absolute; a slash at its end says that it is a directory."""
    text = os.fspath(output)
    place = str(Path(text).expanduser().absolute())
    return f"{place}/" if text.endswith(("/", os.sep)) or Path(place).is_dir() else place


def _mapped(columns: str | Sequence[str]) -> str:
    return columns if isinstance(columns, str) else json.dumps(list(columns))


def _names(keep: Sequence[str]) -> tuple[str, ...]:
    if isinstance(keep, str):
        message = f"keep= is {keep!r}"
        raise ConfigurationError(message, hint=f"give a list of columns: keep=[{keep!r}]")
    return tuple(keep)


def _name_of(spec: BatchSpec) -> str:
    """Name a job by what it computes, so that the same call is the same job."""
    from modeldeploy.scoring.job import content

    return f"batch-{content(spec)[:12]}"


def _spec_of(record: Record) -> BatchSpec:
    from modeldeploy.values.batch import BatchSpec
    from modeldeploy.values.codec import from_json

    return from_json(BatchSpec, _ticket_of(record).wanted["job"])


def _ticket_of(record: Record) -> Ticket:
    from modeldeploy.engine.single import SingleCursor
    from modeldeploy.values.codec import from_json

    return from_json(SingleCursor, record.cursor).ticket


def _rows(state: BatchState) -> str:
    total = f" of {state.rows_total:,}" if state.rows_total is not None else ""
    return f"{state.rows_done:,}{total} rows"


def _percent(state: BatchState) -> float | None:
    if state.phase.value == "succeeded":
        return 100.0
    return 100 * state.rows_done / state.rows_total if state.rows_total else None
