"""Forking a process that becomes something else: it costs neither a new interpreter nor the imports that both need."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Collection

from modeldeploy.serving.lifeline import die_with_parent


def fork(run: Callable[[], int], *, keep: Collection[int]) -> int:
    """Fork a process that runs ``run`` and ends with its result or with us, whichever is first; give its pid.

    It has the standard descriptors and those in ``keep``, and collects garbage even where we do not while we load. Nothing may run in another
    thread here.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(run, parent, keep)
    return pid


def _become(run: Callable[[], int], parent: int, keep: Collection[int]) -> None:
    code = 1
    try:
        die_with_parent(parent)
        _let_go({0, 1, 2, *keep})
        # What came with the fork stays; to look through it would copy every page of it.
        gc.freeze()
        gc.enable()
        code = run()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - the stack of whoever forked lies below this one; nothing may get there
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _let_go(keep: Collection[int]) -> None:
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names only, and the listing's own descriptor is among them
        if int(name) not in keep:
            with contextlib.suppress(OSError):
                os.close(int(name))
