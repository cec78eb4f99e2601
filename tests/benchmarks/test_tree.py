"""CPU and memory of a tree of processes: counted whole, however often it forks and detaches.

Each test runs in a process of its own, since the one that measures adopts orphans and ends whatever is below it.
"""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PRELUDE = """
import os, subprocess, sys, time
import tree

tree.adopt_orphans()

def python(code, **more):
    return subprocess.Popen([sys.executable, "-S", "-c", code], **more)

BURN = "import time\\nwhile time.process_time() < 0.3: pass\\n"
# A process that detaches: its parent ends at once and it has a session of its own.
DETACH = "import os, sys\\nif os.fork(): sys.exit()\\nos.setsid()\\n"
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def run(code: str) -> None:
    script = PRELUDE + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=BENCHMARKS,
        env={"PYTHONPATH": str(BENCHMARKS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_cpu_of_a_process_that_detached_and_ended_is_counted():
    run("""
        before = tree.Reading.take()
        python(DETACH + BURN).wait()
        assert tree.wait_for_none(30)
        took = tree.Reading.take().tree - before.tree
        assert 0.29 < took < 0.6, took
    """)


def test_cpu_of_a_process_that_still_runs_is_counted():
    run("""
        before = tree.Reading.take()
        process = python(DETACH + BURN + "print(flush=True)\\nimport sys\\nsys.stdin.read()", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process.stdout.readline()
        took = tree.Reading.take().tree - before.tree
        assert 0.29 < took < 0.6, took
        process.stdin.close()
        process.wait()
    """)


def test_what_other_programs_take_is_not_the_trees():
    """The child measures; its parent, which burns and whose own child ends after having burnt for long, is foreign to it."""
    run("""
        long = python(BURN + "import sys\\nprint(flush=True)\\nsys.stdin.read()", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        long.stdout.readline()
        started, begin = os.pipe()
        burnt, end = os.pipe()
        child = os.fork()
        if not child:
            before = tree.Reading.take()
            os.write(begin, b"x")
            os.read(burnt, 1)
            after = tree.Reading.take()
            assert after.tree == before.tree
            took = after.foreign_since(before) * (after.at - before.at)
            own = after.others[os.getppid()][0] - before.others[os.getppid()][0]
            ended = after.others[os.getppid()][1] - before.others[os.getppid()][1]
            assert own >= 0.2 and ended >= 0.29
            elsewhere = sum(max(0.0, now[0] - before.others.get(pid, (0, 0))[0]) for pid, now in after.others.items())
            assert took < elsewhere + 0.2 + (after.stolen - before.stolen), (took, elsewhere)
            os._exit(0)
        os.read(started, 1)
        long.kill()  # the child holds its input too
        long.wait()
        burns = time.process_time() + 0.2
        while time.process_time() < burns: pass
        os.write(end, b"x")
        assert os.waitpid(child, 0)[1] == 0
    """)


def test_memory_is_that_of_all_processes_and_its_peak_is_kept():
    run("""
        hold = "import sys\\nheld = bytearray(b'x') * 50_000_000\\nprint(flush=True)\\nsys.stdin.read()"
        peak = tree.Peak()
        with peak.watch(every=0.01):
            processes = [python(DETACH + hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
            for process in processes:
                process.stdout.readline()
            assert 100e6 < tree.pss() < 160e6, tree.pss()
            while peak.bytes < 100e6:
                time.sleep(0.01)
            for process in processes:
                process.stdin.close()
                process.wait()
            assert tree.wait_for_none(30)
        assert tree.pss() == 0
        assert 100e6 < peak.bytes < 160e6, peak.bytes
    """)


def test_all_are_ended_also_those_that_do_not_heed():
    run("""
        deaf = "import signal, sys\\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\\nprint(flush=True)\\nsignal.pause()"
        process = python(DETACH + deaf, stdout=subprocess.PIPE)
        process.stdout.readline()
        assert len(tree.end_all(grace=0.2)) == 1
        assert tree.below() == []
    """)
