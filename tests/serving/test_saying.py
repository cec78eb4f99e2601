"""Loggers that are imported when there is something to say."""

from __future__ import annotations

import logging
import subprocess
import sys

from modeldeploy.serving.saying import Log


def test_a_line_is_that_of_the_module_that_says_it(caplog):
    with caplog.at_level(logging.INFO):
        Log("modeldeploy.somewhere").info("said %d times", 2)
    (record,) = caplog.records
    assert (record.name, record.getMessage(), record.filename) == (
        "modeldeploy.somewhere",
        "said 2 times",
        "test_saying.py",
    )


def test_a_worker_that_has_nothing_to_say_imports_no_logging():
    program = "import sys, modeldeploy.serving.worker, modeldeploy.serving.boot; print('logging' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
