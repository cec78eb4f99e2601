"""The small command: ``modeldeploy list | drive | history | serve | stop | doctor``; thin, over the handles."""

from __future__ import annotations

import argparse
import importlib.util
import math
import platform
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version

from modeldeploy import config, registry
from modeldeploy.engine.record import Record
from modeldeploy.errors import ConfigurationError, ModelDeployError, NotFoundError
from modeldeploy.handles.endpoint import Endpoint
from modeldeploy.handles.operation import Operation
from modeldeploy.handles.session import Session

_PACKAGES = ("modeldeploy", "numpy", "pandas", "pyarrow", "scikit-learn", "xgboost", "lightgbm", "onnxruntime", "torch")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it succeeded, 1 when it failed, 2 when it was called wrongly."""
    asked = list(sys.argv[1:] if arguments is None else arguments)
    if asked[:1] == ["serve"]:
        from modeldeploy.serving.__main__ import main as serve

        return serve(asked[1:])
    options = _parser().parse_args(asked)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except ModelDeployError as error:
        _say(f"{type(error).__name__}: {error}", error=True)
        return 1
    except KeyboardInterrupt:
        _say("interrupted; what was begun is in the journal: modeldeploy drive takes it up", error=True)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("modeldeploy", description="Deploy, roll out, roll back and batch-score models.")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--backend", help="a backend's name; default: as configured")
    common.add_argument("--home", help="the state directory; default: as configured")
    listing = verbs.add_parser("list", parents=[common], help="show endpoints and unfinished operations")
    listing.set_defaults(run=_list)
    drive = verbs.add_parser(
        "drive", parents=[common], help="take up unfinished operations and drive them to their end"
    )
    drive.add_argument("operation", nargs="?", help="only this one")
    when = drive.add_mutually_exclusive_group()
    when.add_argument(
        "--once", action="store_const", const=None, dest="every", help="end when these have ended; the default"
    )
    when.add_argument("--every", type=_seconds, metavar="SECONDS", help="go on, and look for more this often")
    drive.set_defaults(run=_drive)
    history = verbs.add_parser("history", parents=[common], help="show what changed on an endpoint")
    history.add_argument("endpoint")
    history.add_argument("--verify", action="store_true", help="check that no line was changed or is missing")
    history.set_defaults(run=_history)
    stop = verbs.add_parser(
        "stop", parents=[common], help="end the processes of this machine; endpoints come back on the next call"
    )
    stop.set_defaults(run=_stop)
    doctor = verbs.add_parser("doctor", parents=[common], help="say what is installed, importable and reachable")
    doctor.set_defaults(run=_doctor)
    verbs.add_parser("serve", help="serve a bundle as a container does; see modeldeploy serve --help")
    return parser


def _list(options: argparse.Namespace) -> int:
    session = _session(options)
    for endpoint in Endpoint.list(backend=session):
        _say(repr(endpoint))
    for operation in Operation.unfinished(backend=session):
        _say(repr(operation))
    return 0


def _drive(options: argparse.Namespace) -> int:
    """Drive all at once, each in its own thread; fails when one of them failed or could not be driven."""
    from modeldeploy.handles.drive import Sweep

    session = _session(options)
    sweep = Sweep(session, _say, home=options.home)

    def found() -> Sequence[Record]:
        if options.operation:
            return (session.journal.read(options.operation),)
        return session.journal.unfinished(backend=session.backend.name if options.backend else None)

    if options.every is None:
        sweep.once(found())
    else:
        sweep.watch(found, options.every)
    return int(sweep.failed)


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        message = f"{text!r} is not a number of seconds above 0"
        raise argparse.ArgumentTypeError(message)
    return number


def _history(options: argparse.Namespace) -> int:
    session = _session(options)
    from modeldeploy.handles.views import History

    history = History(session.journal, session.backend.name, options.endpoint)
    if len(history):
        _say(repr(history))
    count = history.verify() if options.verify else len(history)
    if not count:
        message = f"there is no history of endpoint {options.endpoint!r} on {session.backend.name!r}"
        raise NotFoundError(message, hint="`modeldeploy list` names the endpoints that there are")
    if options.verify:
        # Kept elsewhere, the last line's hash also shows a journal that was made anew as a whole.
        _say(f"{count} lines verified; the last one is {history[-1].chain}")
    return 0


def _stop(options: argparse.Namespace) -> int:
    shutdown = getattr(_session(options).backend, "shutdown", None)
    if shutdown is None:
        message = "this backend runs nothing on this machine"
        raise ConfigurationError(message, hint="delete endpoints with Endpoint.get(name).delete()")
    shutdown()
    return 0


def _doctor(options: argparse.Namespace) -> int:
    """Report in lines of "what: how it is"; fails when the chosen backend cannot be used."""
    settings = config.load()
    _say(f"python: {platform.python_version()} on {platform.platform()}")
    for package in _PACKAGES:
        _say(f"{package}: {_installed(package)}")
    _say(f"home: {options.home or settings.home}")
    _say(f"backends: {', '.join(registry.known())}")
    _say(f"progress display: {'rich' if importlib.util.find_spec('rich') else 'plain'}")
    identity = _session(options).backend.check()
    _say(f"{identity.backend}: {identity.account} at {identity.place}")
    return 0


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _session(options: argparse.Namespace) -> Session:
    return Session.of(options.backend, home=options.home)


def _say(text: str, *, error: bool = False) -> None:
    (sys.stderr if error else sys.stdout).write(f"{text}\n")


if __name__ == "__main__":
    raise SystemExit(main())
