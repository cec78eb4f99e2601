from __future__ import annotations

import subprocess
import sys

import pytest

from modeldeploy.backends.local.environment import API_KEY, of_process

GIVEN_BACK = """
import ctypes, resource
blocks = ctypes.CDLL(None).malloc
blocks.restype, blocks.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
free = ctypes.CDLL(None).free
free.argtypes = [ctypes.c_void_p]
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def frame():
    taken = [blocks(3 << 20) for _ in range(4)]
    for block in taken:
        ctypes.memset(block, 1, 3 << 20)
    for block in taken:
        free(block)
frame()
before = faults()
for _ in range(50):
    frame()
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux")
def test_what_a_frame_took_is_not_given_back_to_the_system_each_time():
    said = subprocess.check_output([sys.executable, "-c", GIVEN_BACK], env=of_process(1), text=True)
    assert int(said) < 1_000  # else up to three thousand pages each of 50 times


def test_the_users_own_settings_win_and_the_callers_key_stays_here(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    monkeypatch.setenv(API_KEY, "md_secret")
    environ = of_process(3)
    assert environ["MALLOC_TRIM_THRESHOLD_"] == "1"
    assert environ["OMP_NUM_THREADS"] == "3"
    assert API_KEY not in environ
