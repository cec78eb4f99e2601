"""The one display of a running operation, fit for where it runs: a notebook cell, a terminal, a log, or nothing.

========================  ====================================================================
where                     what is shown
========================  ====================================================================
a notebook                one output, updated in place
a terminal (stderr)       a bar of rich, else of tqdm, gone when the work ends
anything else             a log line each minute, at INFO: nothing unless logging is asked for
another thread, embedded  nothing
========================  ====================================================================

``MODELDEPLOY_PROGRESS`` decides otherwise: ``notebook``, ``rich``, ``tqdm``, ``log`` or ``off``.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from modeldeploy.errors import ConfigurationError
from modeldeploy.observe.status import Status
from modeldeploy.values.events import Event, Level

VARIABLE = "MODELDEPLOY_PROGRESS"
LOG_EVERY_S = 60.0
_DRAW_EVERY_S = 0.1


class Display(Protocol):
    """Draws a status somewhere."""

    def show(self, status: Status) -> None:
        """Draw it, in place of the one before."""
        ...

    def close(self) -> None:
        """Leave the screen as it should stay."""
        ...


class Progress:
    """The display of one operation: a sink of its events, and a context manager that clears up.

    A display that fails is given up; the work it shows goes on.
    """

    def __init__(self, display: Display | None, title: str) -> None:
        self._display = display
        self._status = Status.of(title, time.time())
        self._drawn = 0.0
        self._lock = threading.Lock()

    def update(self, event: Event) -> None:
        """Take in one event and draw, at most ten times a second unless it is the end."""
        with self._lock:
            self._status = self._status.after(event)
            moment = time.monotonic()
            if self._status.ended or moment - self._drawn >= _DRAW_EVERY_S:
                self._drawn = moment
                self._try(lambda display: display.show(self._status))

    __call__ = update

    def close(self) -> None:
        """Draw what came last and let go; a second call does nothing."""
        with self._lock:
            self._try(lambda display: display.show(self._status))
            self._try(lambda display: display.close())
            self._display = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _try(self, act: Callable[[Display], None]) -> None:
        if self._display is None:
            return
        try:
            act(self._display)
        except Exception as error:  # noqa: BLE001 - drawing must not stop the work
            from modeldeploy.observe import log

            self._display = None
            log.write("progress.dropped", Level.DEBUG, {"error": f"{type(error).__name__}: {error}"})


def progress(title: str, *, environ: Mapping[str, str] | None = None) -> Progress:
    """Make the progress of one operation, with the display that suits this place; ConfigurationError for a wrong setting."""
    return Progress(_DISPLAYS[choose(environ)](title), title)


def choose(environ: Mapping[str, str] | None = None) -> str:
    """Say which display suits this process and thread: ``notebook``, ``rich``, ``tqdm``, ``log`` or ``off``."""
    environ = os.environ if environ is None else environ
    asked = environ.get(VARIABLE, "").strip().lower() or "auto"
    if asked != "auto":
        return _asked(asked)
    if _in_notebook():
        return "notebook"
    if threading.current_thread() is not threading.main_thread():
        return "off"  # a service runs us: its terminal is not ours to draw on
    if not _on_terminal(environ):
        return "log"
    return next((name for name in ("rich", "tqdm") if importlib.util.find_spec(name)), "log")


def _asked(name: str) -> str:
    if name not in _DISPLAYS:
        message = f"{VARIABLE} is {name!r}"
        raise ConfigurationError(message, hint=f"use one of {['auto', *_DISPLAYS]}")
    return name


def _in_notebook() -> bool:
    # Looked up, not imported: without IPython in the process there is no notebook.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return getattr(shell, "kernel", None) is not None


def _on_terminal(environ: Mapping[str, str]) -> bool:
    try:
        return sys.stderr is not None and sys.stderr.isatty() and environ.get("TERM") != "dumb"
    except ValueError:  # a closed stream
        return False


class _Notebook:
    def __init__(self, _title: str) -> None:
        from IPython.display import HTML, display

        self._html: Callable[[str], Any] = HTML
        self._handle: Any = display(HTML(""), display_id=True)

    def show(self, status: Status) -> None:
        from modeldeploy.observe import notebook

        tone: notebook.Tone = "bad" if status.failed else "good" if status.ended else "plain"
        drawn = [] if status.fraction is None else [notebook.bar(status.fraction * 100, text=f"{status.fraction:.0%}")]
        cells = (status.title, *drawn, notebook.badge(status.note, tone), status.elapsed)
        self._handle.update(self._html(notebook.line(*cells)))

    def close(self) -> None:
        """Leave the last line in the cell."""


class _Rich:
    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = TextColumn("{task.description}"), BarColumn(24), TaskProgressColumn()
        rest = TimeElapsedColumn(), TextColumn("{task.fields[note]}", markup=False)
        self._bar = Bar(
            *columns,
            *rest,
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,  # what the program prints is its own
            redirect_stderr=False,
        )
        self._task = self._bar.add_task(escape(title), total=None, note="")
        self._bar.start()

    def show(self, status: Status) -> None:
        total, done = (None, 0.0) if status.fraction is None else (1.0, status.fraction)
        self._bar.update(self._task, total=total, completed=done, note=status.note)

    def close(self) -> None:
        self._bar.stop()


class _Tqdm:
    def __init__(self, title: str) -> None:
        from tqdm import tqdm

        layout = "{desc}: {percentage:3.0f}%|{bar:24}| {elapsed}{postfix}"
        self._bar = tqdm(total=1.0, desc=title, bar_format=layout, leave=False, file=sys.stderr)

    def show(self, status: Status) -> None:
        self._bar.n = status.fraction or 0.0
        self._bar.set_postfix_str(status.note)

    def close(self) -> None:
        self._bar.close()


class _Log:
    def __init__(self, _title: str) -> None:
        self._next = time.monotonic() + LOG_EVERY_S

    def show(self, status: Status) -> None:
        if time.monotonic() >= self._next:
            from modeldeploy.observe import log

            self._next = time.monotonic() + LOG_EVERY_S
            log.write("progress", Level.INFO, {"status": str(status)})

    def close(self) -> None:
        """Say nothing: the end is an event that is logged by itself."""


def _off(_title: str) -> None:
    return None


_DISPLAYS: dict[str, Callable[[str], Display | None]] = {
    "notebook": _Notebook,
    "rich": _Rich,
    "tqdm": _Tqdm,
    "log": _Log,
    "off": _off,
}
