"""A job on this machine: its directory, what was asked for, and where it stands.

The job's directory is small and private; the parts lie beside the output, on its file system, so that the last rename can be atomic::

    HOME/batch/NAME/   request.json  plan.json  ledger.jsonl  progress.json  lease  stop  runner.log
    OUTPUT's parent/   .OUTPUT.NAME/   part-00000.parquet  part-00000.bad.jsonl ...
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any, Self

import attrs
import orjson

from modeldeploy.scoring import durable
from modeldeploy.scoring.plan import Plan
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.codec import from_document, from_json, to_document, to_json
from modeldeploy.values.ticket import Phase

RESULT = "result"
LEDGER = "ledger.jsonl"
_RESERVE = 16_384
_TRANSIENT = ("overwrite",)


@attrs.frozen
class Request:
    """What was asked for."""

    spec: BatchSpec
    trust: tuple[str, ...] = ()
    """Digests of models with pickled content that may be loaded."""
    overwrite: bool = False

    def charge(self) -> str:
        """Say to a process that scores which model it is to load."""
        model = self.spec.model
        return orjson.dumps({"uri": model.uri, "digest": model.digest, "trust": self.trust}).decode()

    def document(self) -> bytes:
        """Write it as one line of JSON."""
        return orjson.dumps(to_document(self))

    @classmethod
    def read(cls, document: bytes) -> Self:
        """Read what ``document`` gave."""
        return from_document(cls, orjson.loads(document))


@attrs.frozen
class Progress:
    """Where a job stands, for readers in other processes."""

    phase: Phase = Phase.RUNNING
    rows_done: int = 0
    rows_total: int | None = None
    bad_rows: int = 0
    fraction: float = 0.0
    rows_per_second: float | None = None
    seconds_left: float | None = None
    quarantine: str | None = None
    note: str = ""


def content(spec: BatchSpec) -> str:
    """Give a digest of what a job computes; limits and the number of processes do not belong to it."""
    parts = {
        "model": spec.model.digest,
        "source": list(spec.source),
        "output": spec.output,
        "key": spec.key,
        "columns": to_json(spec.columns),
        "keep": None if spec.keep is None else list(spec.keep),
        "options": {name: value for name, value in spec.options.items() if name not in _TRANSIENT},
    }
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()


def data_name(plan: Plan, part: int) -> str:
    """Name the file of a part's result, which is a whole file of the output's format, but for the header of CSV."""
    return f"part-{part:05}{plan.target.suffix}"


def temporary(folder: Path, name: str, run: str) -> Path:
    """Give the path that a file of a part has until it is checked in.

    ``run`` keeps a worker that outlives its killed runner by a moment away from the files of the next run.
    """
    return folder / f".{name}.{run}.tmp"


def bad_name(part: int) -> str:
    """Name the file of a part's bad rows."""
    return f"part-{part:05}.bad.jsonl"


class Job:
    """The files of one job; nothing is cached."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.lease = home / "lease"
        self.log = home / "runner.log"
        self._stop = home / "stop"
        self._progress = home / "progress.json"
        self._reserve = home / "reserve"
        self._interrupted = False

    @property
    def name(self) -> str:
        """The job's name."""
        return self.home.name

    def exists(self) -> bool:
        """Whether the job was ever asked for."""
        return (self.home / "request.json").exists()

    def put(self, request: Request) -> None:
        """Write down what is asked for."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        durable.write(self.home / "request.json", request.document())

    def request(self) -> Request:
        """Read what was asked for."""
        return Request.read((self.home / "request.json").read_bytes())

    def put_plan(self, plan: Plan) -> None:
        """Write down the plan."""
        durable.write(self.home / "plan.json", orjson.dumps(to_document(plan)))

    def plan(self) -> Plan:
        """Read the plan."""
        return from_document(Plan, orjson.loads((self.home / "plan.json").read_bytes()))

    def ledger(self) -> durable.Ledger:
        """Open the list of what is done; only the runner may."""
        return durable.Ledger(self.home / LEDGER)

    def entries(self) -> list[dict[str, Any]]:
        """Read the list of what is done; anybody may, at any time."""
        return durable.Ledger.read(self.home / LEDGER)

    def check_inputs(self) -> None:
        """Raise ConflictError when a file changed since the job was planned."""
        try:
            plan = self.plan()
        except FileNotFoundError:
            return
        plan.check_inputs()

    def forget(self) -> None:
        """Take away all that was planned and done, so that the job begins anew."""
        (self.home / LEDGER).unlink(missing_ok=True)
        (self.home / "plan.json").unlink(missing_ok=True)
        self.clean()

    def clean(self) -> None:
        """Take the parts away."""
        shutil.rmtree(self.parts, ignore_errors=True)

    @property
    def output(self) -> Path:
        """Where the result goes."""
        return Path(self.request().spec.output)

    @property
    def parts(self) -> Path:
        """Where the parts lie: beside the output, on its file system."""
        output = self.output
        return output.parent / f".{output.name}.{self.name}"

    def data(self, plan: Plan, part: int) -> Path:
        """Name a part's result once it is checked in; those of a directory lie in one that becomes the output as a whole."""
        folder = self.parts / RESULT if plan.directory else self.parts
        return folder / data_name(plan, part)

    @property
    def quarantine(self) -> Path:
        """Where the bad rows go."""
        output = self.output
        return output.with_name(f"{output.name}.quarantine.jsonl")

    def show(self, progress: Progress) -> None:
        """Tell where the job stands; the space for the last word is held back from the start, for the case of a full disk."""
        data = orjson.dumps(to_json(progress))
        try:
            durable.show(self._progress, data)
        except OSError:
            self._reserve.unlink(missing_ok=True)
            durable.show(self._progress, data)

    def reserve(self) -> None:
        """Hold some space back."""
        if not self._reserve.exists():
            self._reserve.write_bytes(b"\0" * _RESERVE)

    def at_work(self) -> bool:
        """Whether a runner has the job, and not only to go away after it said how the job ended."""
        return durable.Lease.held(self.lease) and not self.progress().phase.ended

    def progress(self) -> Progress:
        """Read where the job stands."""
        try:
            return from_json(Progress, orjson.loads(self._progress.read_bytes()))
        except FileNotFoundError:
            return Progress()

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked for the job to be cancelled."""
        return self._stop.exists()

    @property
    def stopping(self) -> bool:
        """Whether no new part may be begun."""
        return self._interrupted or self.cancelled

    def interrupt(self) -> None:
        """Let this process begin no new part; the job is taken up again later."""
        self._interrupted = True

    def ask_to_stop(self) -> None:
        """Ask for the job to be cancelled, in whatever process it runs."""
        self._stop.touch()

    def allow(self) -> None:
        """Take back a request to cancel."""
        self._stop.unlink(missing_ok=True)
