"""Parts to one file, in order, while they come in; it bears a name of its own until the runner publishes it."""

from __future__ import annotations

import os
import queue
import shutil
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING

from modeldeploy.scoring import durable
from modeldeploy.scoring.job import RESULT, Job
from modeldeploy.scoring.joining import Joining
from modeldeploy.scoring.plan import Plan
from modeldeploy.scoring.writing import Writer

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 1 << 20
_FLUSHED = 16 << 20
"""Bytes that are brought to the disk at once, so that little is left when the last part is there."""


class Assembly:
    """Builds the single output in a thread of its own; parts may be offered in any order."""

    def __init__(self, job: Job, plan: Plan, schema: pa.Schema) -> None:
        self.path = job.parts / f".{RESULT}.tmp"
        self._job = job
        self._plan = plan
        self._schema = schema
        self._offers: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def offer(self, part: int) -> None:
        """Say that a part is there."""
        self._offers.put(part)

    def finish(self) -> Path:
        """Wait for the file, complete and on the disk; raises what went wrong."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self.path

    def abandon(self) -> None:
        """Give up; the parts stay."""
        self._offers.put(None)
        self._thread.join()

    def check(self) -> None:
        """Raise what went wrong so far."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with durable.removing(self.path):
                self._write()
        except _AbandonedError:
            return
        except Exception as error:  # noqa: BLE001 - raised in the runner's own thread
            self._error = error

    def _wait_for(self, part: int, there: set[int]) -> Path:
        while part not in there:
            offered = self._offers.get()
            if offered is None:
                raise _AbandonedError
            there.add(offered)
        return self._job.data(self._plan, part)

    def _write(self) -> None:
        """Put the parts after what a file without rows holds: a header, or the footer's columns."""
        Writer(self.path, self._plan.target, self._schema).finish()
        there: set[int] = set()
        with self.path.open("r+b") as out:
            joining = Joining(out) if self._plan.target.kind == "parquet" else _Appending(out)
            flushed = 0
            for part in self._plan.parts:
                with self._wait_for(part.number, there).open("rb") as source:
                    joining.add(source)
                if out.tell() - flushed >= _FLUSHED:
                    durable.flush(out)
                    flushed = out.tell()
            joining.finish()
            durable.flush(out)


class _Appending:
    """Lines of text, and compressed text, may simply stand one after another."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        out.seek(0, os.SEEK_END)

    def add(self, source: IO[bytes]) -> None:
        shutil.copyfileobj(source, self._out, _BLOCK)

    def finish(self) -> None:
        """Nothing stands after the lines."""


class _AbandonedError(Exception):
    """The runner does not want the file any more."""
