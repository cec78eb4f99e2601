"""Run by test_kill.py in a process without threads, so that it may fork: for each durable step, a job killed there and then resumed."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path


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

    def run(job, kill_at: int | None) -> int:
        if kill_at is not None:
            os.environ["MODELDEPLOY_SCORING_KILL_AT"] = str(kill_at)
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
