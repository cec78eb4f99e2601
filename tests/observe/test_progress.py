from __future__ import annotations

import os
import subprocess
import sys
import threading

import nbclient
import nbformat
import pytest

from modeldeploy.errors import ConfigurationError
from modeldeploy.observe import progress
from modeldeploy.values.events import Name

WORK = """
from modeldeploy.observe.progress import progress
from modeldeploy.values.events import Event, Level, Name
with progress("deploy iris") as bar:
    for step in range(1, 5):
        bar.update(Event(Name.OPERATION_PROGRESS, 0.0, "op", Level.INFO, {"fraction": step / 4, "note": f"step {step}"}))
    bar.update(Event(Name.OPERATION_SUCCEEDED, 0.0, "op"))
"""


class Recorder:
    def __init__(self):
        self.shown, self.closed = [], 0

    def show(self, status):
        self.shown.append(str(status))

    def close(self):
        self.closed += 1


@pytest.fixture
def on_terminal():
    """Give ``on_terminal(code, environ)``: run it with stderr on a real pseudo-terminal; give stdout and what the terminal got."""
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")

    def run(code, **environ):
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 100))
        env = {**os.environ, "TERM": "xterm", **environ}
        got = b""
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=theirs, env=env) as child:
            os.close(theirs)
            while True:
                try:
                    part = os.read(ours, 65_536)
                except OSError:  # Linux says so when the other end is closed
                    break
                if not part:
                    break
                got += part
            out = child.stdout.read()
        os.close(ours)
        assert child.returncode == 0, got.decode()
        return out.decode(), got.decode()

    return run


def test_a_terminal_gets_a_bar_on_stderr_and_nothing_on_stdout(on_terminal):
    out, screen = on_terminal(WORK)
    assert out == ""
    assert "deploy iris" in screen
    assert "100%" in screen


def test_the_bar_of_a_terminal_is_gone_at_the_end(on_terminal):
    _, screen = on_terminal(WORK)
    assert screen.rstrip().endswith(("\x1b[2K", "\x1b[?25h"))  # the line erased, the cursor back


def test_tqdm_draws_where_rich_is_not_installed(on_terminal):
    code = "import sys; sys.modules['rich'] = None\nimport importlib.util as util\nreal = util.find_spec\n"
    hide = "util.find_spec = lambda name: None if name == 'rich' else real(name)\n"
    _, screen = on_terminal(code + hide + WORK)
    assert "deploy iris: " in screen
    assert "100%|" in screen
    assert not screen.split("\r")[-1].strip()


def test_a_terminal_that_cannot_move_the_cursor_gets_nothing(on_terminal):
    assert on_terminal(WORK, TERM="dumb") == ("", "")


def test_off_shows_nothing_on_a_terminal(on_terminal):
    assert on_terminal(WORK, MODELDEPLOY_PROGRESS="off") == ("", "")


def test_without_a_terminal_nothing_is_written(program):
    assert program(WORK) == ("", "")


def test_without_a_terminal_a_line_each_minute_goes_to_the_log(program):
    code = "import time\nclock = [0.0]\ntime.monotonic = lambda: clock[0]\nlog.log_to_console()\n"
    work = (
        "bar = progress.progress('score')\nfor minute in range(1, 601):\n"
        "    clock[0] += 0.5\n    bar.update(event(Name.OPERATION_PROGRESS, note=f'tick {minute}'))\nbar.close()\n"
    )
    _, err = program(code + work)
    assert [line.rsplit("tick ", 1)[1].split(" ", 1)[0] for line in err.splitlines()] == [
        "120",
        "240",
        "360",
        "480",
        "600",
    ]


def test_another_thread_draws_nothing_for_the_terminal_belongs_to_the_service(monkeypatch):
    monkeypatch.setattr(sys, "stderr", type("Terminal", (), {"isatty": lambda _self: True})())
    seen = [progress.choose({})]
    thread = threading.Thread(target=lambda: seen.append(progress.choose({})))
    thread.start()
    thread.join()
    assert seen == ["rich", "off"]


def test_a_program_without_stderr_gets_the_log(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert progress.choose({}) == "log"


def test_an_unknown_setting_is_refused_by_name():
    with pytest.raises(ConfigurationError, match="'loud'"):
        progress.choose({"MODELDEPLOY_PROGRESS": "loud"})


@pytest.mark.parametrize("setting", ["off", "LOG", " tqdm "])
def test_the_setting_decides_over_the_place(setting):
    assert progress.choose({"MODELDEPLOY_PROGRESS": setting}) == setting.strip().lower()


def test_drawing_is_rare_but_the_end_is_always_drawn(event, monkeypatch):
    monkeypatch.setattr(progress.time, "monotonic", lambda: 100.0)
    recorder = Recorder()
    bar = progress.Progress(recorder, "x")
    for step in range(100):
        bar.update(event(Name.OPERATION_PROGRESS, note=f"{step}"))
    assert len(recorder.shown) == 1
    bar.update(event(Name.OPERATION_SUCCEEDED))
    assert "done" in recorder.shown[-1]


def test_closing_draws_what_came_last_and_closes_once(event, monkeypatch):
    monkeypatch.setattr(progress.time, "monotonic", lambda: 100.0)
    recorder = Recorder()
    with progress.Progress(recorder, "x") as bar:
        bar.update(event(Name.OPERATION_PROGRESS, note="a"))
        bar.update(event(Name.OPERATION_PROGRESS, note="b"))
    bar.close()
    assert " b " in recorder.shown[-1]
    assert recorder.closed == 1


def test_a_display_that_fails_is_given_up_and_the_work_goes_on(event):
    class Broken(Recorder):
        def show(self, status):
            super().show(status)
            message = "the terminal is gone"
            raise OSError(message)

    broken = Broken()
    with progress.Progress(broken, "x") as bar:
        bar.update(event(Name.OPERATION_SUCCEEDED))
        bar.update(event(Name.OPERATION_SUCCEEDED))
    assert (len(broken.shown), broken.closed) == (1, 0)


def test_a_notebook_gets_one_output_that_is_updated_in_place(tmp_path):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(WORK)])
    nbclient.NotebookClient(
        book, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    (output,) = book.cells[0].outputs
    assert output.output_type == "display_data"
    drawn = output.data["text/html"]
    assert "deploy iris" in drawn
    assert "100%" in drawn
    assert "done" in drawn
