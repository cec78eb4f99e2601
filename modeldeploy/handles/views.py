"""What an endpoint shows of itself: history, metrics, log lines; each a plain sequence that also displays well."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import overload

from modeldeploy.engine.journal import Journal
from modeldeploy.engine.record import HistoryLine
from modeldeploy.values.metrics import Window
from modeldeploy.values.serving import LogLine


def moment(at: float) -> str:
    """Write an instant as readers and sorters like it, in UTC."""
    return dt.datetime.fromtimestamp(at, tz=dt.UTC).strftime("%Y-%m-%d %H:%M:%S")


class History(Sequence[HistoryLine]):
    """The changes of one endpoint, oldest first."""

    def __init__(self, journal: Journal, backend: str, endpoint: str) -> None:
        self.lines = journal.history(backend=backend, target=endpoint)
        self._journal = journal
        self._where = (backend, endpoint)

    def verify(self) -> int:
        """Check the hash chain and count the lines; ConflictError names the first one that was changed."""
        backend, endpoint = self._where
        return self._journal.verify_history(backend=backend, target=endpoint)

    @overload
    def __getitem__(self, index: int) -> HistoryLine: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[HistoryLine, ...]: ...
    def __getitem__(self, index: int | slice) -> HistoryLine | tuple[HistoryLine, ...]:
        return self.lines[index]

    def __len__(self) -> int:
        return len(self.lines)

    def __repr__(self) -> str:
        return "\n".join(
            f"{moment(line.at)}  {line.entry.what:<11}  {line.entry.revision}  {line.who}  {line.entry.why}".rstrip()
            for line in self.lines
        )

    def _repr_html_(self) -> str:
        from modeldeploy.observe import notebook

        rows = [
            (moment(line.at), line.entry.what, notebook.code(line.entry.revision), line.who, line.entry.why)
            for line in self.lines
        ]
        return notebook.table(f"history of {self._where[1]}", rows, ("when (UTC)", "what", "revision", "who", "why"))


class Metrics(Sequence[Window]):
    """What each revision answered in a window of time."""

    def __init__(self, windows: Iterable[Window], traffic: Mapping[str, int]) -> None:
        self.windows = tuple(windows)
        self._traffic = dict(traffic)

    @overload
    def __getitem__(self, index: int) -> Window: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Window, ...]: ...
    def __getitem__(self, index: int | slice) -> Window | tuple[Window, ...]:
        return self.windows[index]

    def __len__(self) -> int:
        return len(self.windows)

    def of(self, revision: str) -> Window:
        """Find the window of one revision; KeyError otherwise."""
        found = {window.revision: window for window in self.windows}
        return found[revision]

    def _rows(self) -> Iterator[tuple[str, int, int, int, str, str, str]]:
        for window in self.windows:
            p50, p95, p99 = (_ms(window.quantile(q)) for q in (0.5, 0.95, 0.99))
            yield window.revision, self._traffic.get(window.revision, 0), window.requests, window.errors, p50, p95, p99

    def __repr__(self) -> str:
        return "\n".join(
            f"{name}: traffic {share} %, {requests} requests, {errors} errors, p50 {p50}, p95 {p95}, p99 {p99}"
            for name, share, requests, errors, p50, p95, p99 in self._rows()
        )

    def _repr_html_(self) -> str:
        from modeldeploy.observe import notebook

        rows = [(notebook.code(name), notebook.bar(share), *rest) for name, share, *rest in self._rows()]
        return notebook.table("metrics", rows, ("revision", "traffic", "requests", "errors", "p50", "p95", "p99"))


class LogLines(Sequence[LogLine]):
    """Lines that a revision wrote, oldest first."""

    def __init__(self, lines: Iterable[LogLine]) -> None:
        self.lines = tuple(lines)

    @overload
    def __getitem__(self, index: int) -> LogLine: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[LogLine, ...]: ...
    def __getitem__(self, index: int | slice) -> LogLine | tuple[LogLine, ...]:
        return self.lines[index]

    def __len__(self) -> int:
        return len(self.lines)

    def __str__(self) -> str:
        return "\n".join(line.text for line in self.lines)

    __repr__ = __str__


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.3g} ms"
