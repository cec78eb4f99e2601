"""Run by test_kill.py in a process without threads, so that it may fork: for each durable step, a job killed there and then resumed.

The steps are the calls that make something durable: whatever the job flushes, renames or removes. It is killed before each and after it.
"""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import sys
from pathlib import Path

STEPS = ((os, "fsync"), (os, "replace"), (os, "rename"), (shutil, "rmtree"))


def kill_at(moment: int) -> None:
    """Let this process kill itself at one moment, counted from 1: each step has one before it and one after."""
    passed = 0

    def tick() -> None:
        nonlocal passed
        passed += 1
        if passed == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(act):
        def acting(*args, **options):
            tick()
            result = act(*args, **options)
            tick()
            return result

        return acting

    for module, name in STEPS:
        setattr(module, name, around(getattr(module, name)))


def in_child(work) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def main(folder: Path, output: str) -> None:
    names = runpy.run_path(str(Path(__file__).with_name("conftest.py")))

    def run(job, moment: int | None) -> int:
        if moment is not None:
            kill_at(moment)
        return 0 if lab.run(job) == "succeeded" else 3

    for step in range(1, 1000):
        place = folder / str(step)
        place.mkdir()
        lab = names["Lab"](place)
        job = lab.job(lab.write(lab.table(60, special={7: 666.0})), output=output, max_bad_rows=1, chunk_rows=5)
        ended = in_child(lambda job=job, step=step: run(job, step))
        if ended == 0:
            return
        if not os.WIFSIGNALED(ended) or in_child(lambda job=job: run(job, None)) != 0:
            raise SystemExit(f"killed at step {step}: {ended}, then {job.progress()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
