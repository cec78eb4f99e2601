from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import modeldeploy

PUBLIC = (
    "Analysis", "BatchJob", "EdgeTarget", "Endpoint", "Gate", "Hardware", "Model", "Operation", "Rollout", "RolloutPolicy", "Scale", "Session",
    "Tolerance", "Traffic",
    "errors", "log_to_console", "register",
)  # fmt: skip
HEAVY = (
    "numpy", "pandas", "polars", "pyarrow", "sklearn", "torch", "onnxruntime", "xgboost", "lightgbm",
    "asyncio", "structlog", "tenacity", "urllib3", "httptools", "uvloop", "orjson", "prometheus_client", "rich", "tqdm", "IPython",
    "boto3", "botocore", "sagemaker", "azure", "google", "ray",
)  # fmt: skip
# Modules beyond a bare interpreter's: counts do not flake, milliseconds do.
MOST_FOR_THE_PACKAGE = 30
MOST_FOR_THE_NAMES = 200
MOST_TO_DEPLOY = 40


def loaded(code: str) -> set[str]:
    """Name the modules that a fresh interpreter holds after this code."""
    program = f"import sys\n{code}\nprint(chr(10).join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, env={**os.environ}
    )
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def bare() -> set[str]:
    return loaded("")


@pytest.mark.parametrize(
    ("code", "most"),
    [
        ("import modeldeploy", MOST_FOR_THE_PACKAGE),
        (
            "import modeldeploy; from modeldeploy import Model, Endpoint, EdgeTarget, BatchJob, RolloutPolicy",
            MOST_FOR_THE_NAMES,
        ),
        ("from modeldeploy import Endpoint, Model", MOST_TO_DEPLOY),
    ],
    ids=["the package", "the names", "what deploys"],
)
def test_importing_loads_nothing_heavy_and_little_at_all(code, most, bare):
    new = loaded(code) - bare
    assert sorted({name.partition(".")[0] for name in new}.intersection(HEAVY)) == []
    assert len(new) <= most, sorted(new)


def test_every_public_name_is_there_and_only_these():
    assert sorted(modeldeploy.__all__) == sorted(PUBLIC)


@pytest.mark.parametrize("name", [*PUBLIC, "__version__"])
def test_a_public_name_resolves_in_a_fresh_process(name):
    loaded(f"from modeldeploy import {name}; assert {name} is not None")


def test_dir_shows_the_public_names_before_they_are_used():
    code = "import json, modeldeploy; print(json.dumps(dir(modeldeploy)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert {*PUBLIC, "__version__"} <= set(json.loads(done.stdout))


def test_a_star_import_gives_the_public_names():
    names: dict[str, object] = {}
    exec("from modeldeploy import *", names)
    assert set(PUBLIC) <= set(names)


def test_a_name_that_does_not_exist_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match="NoSuchName"):
        modeldeploy.NoSuchName  # noqa: B018


def test_importing_writes_nothing_to_the_screen():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "from modeldeploy import *"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_importing_touches_neither_logging_nor_the_home_directory(modeldeploy_home):
    code = "import logging; before = logging.getLogger().handlers[:]; from modeldeploy import *; assert logging.getLogger().handlers == before"
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
    assert list(modeldeploy_home.iterdir()) == []


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_says_what_it_is(name):
    assert (getattr(modeldeploy, name).__doc__ or "").strip()


PARTS = 8


@pytest.mark.parametrize("part", range(PARTS))
def test_every_module_imports_on_its_own(part):
    """No module may count on another one having been imported first, nor do anything when it is."""
    import pkgutil

    names = [each.name for each in pkgutil.walk_packages(modeldeploy.__path__, "modeldeploy.")]
    runnable = [name for name in names if not name.endswith("__main__")][part::PARTS]
    code = (
        # Other people's packages once for all; of ours each child begins with none.
        "import importlib, os, sys, json, asyncio, attrs, numpy, orjson\n"
        "names = json.loads(sys.argv[1]); failed = {}\n"
        "for name in names:\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        try: importlib.import_module(name)\n"
        "        except BaseException as error: sys.stderr.write(f'{name}: {error!r}\\n'); os._exit(1)\n"
        "        os._exit(0)\n"
        "    if os.waitpid(pid, 0)[1]: failed[name] = True\n"
        "sys.exit(len(failed) > 0)\n"
    )
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(runnable)], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_package_imports_where_the_posix_modules_are_missing():
    code = """
import importlib, os, pkgutil, platformdirs, signal, socket, sys
sys.modules.update(dict.fromkeys(("fcntl", "resource", "pwd", "grp", "termios")))
for module, names in ((signal, ("SIGKILL", "SIGHUP", "SIGCHLD")), (os, ("fork", "getuid", "geteuid")), (socket, ("AF_UNIX", "send_fds", "recv_fds"))):
    for name in names:
        delattr(module, name) if hasattr(module, name) else None
import modeldeploy
programs = ("__main__", "supervisor", "forkserver")
for found in pkgutil.walk_packages(modeldeploy.__path__, "modeldeploy."):
    if not found.name.endswith(programs):
        importlib.import_module(found.name)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
