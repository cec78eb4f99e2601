"""The small command: ``modeldeploy list | drive | history | keys | audit | serve | stop | doctor``; thin, over the handles."""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.util
import math
import platform
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from modeldeploy import config, registry
from modeldeploy.backends.local.paths import Paths
from modeldeploy.engine.record import Record
from modeldeploy.errors import ConfigurationError, ModelDeployError, NotFoundError
from modeldeploy.handles import clouds
from modeldeploy.handles.edge import EdgeTarget
from modeldeploy.handles.endpoint import Endpoint
from modeldeploy.handles.operation import Operation
from modeldeploy.handles.session import Session

if TYPE_CHECKING:
    from modeldeploy.serving.keyring import Key, Keyring

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
    doctor = verbs.add_parser(
        "doctor", parents=[common], help="say what is installed, configured and authorised, and what is missing"
    )
    doctor.set_defaults(run=_doctor)
    _add_keys(verbs.add_parser("keys", help="make, list and revoke the API keys of this machine's endpoints"))
    audit = verbs.add_parser("audit", help="show who asked what, of the endpoints of this machine that note it")
    audit.add_argument("--verify", action="store_true", help="check that no line was changed or is missing")
    audit.add_argument("--anchor", default="", metavar="CHAIN", help="the chain of a line that must still be there")
    _add_place(audit, "the log of a server that runs by itself")
    audit.set_defaults(run=_audit)
    verbs.add_parser("serve", help="serve a bundle as a container does; see modeldeploy serve --help")
    return parser


def _add_keys(keys: argparse.ArgumentParser) -> None:
    actions = keys.add_subparsers(required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a key and show it, this once")
    create.add_argument("name", help="who has it, or what it is for")
    create.add_argument(
        "--scope", action="append", choices=["predict", "admin"], help="default: predict; may be repeated"
    )
    create.add_argument("--days", type=float, help="until it expires; default: never")
    create.add_argument("--rate", type=float, help="requests per second; default: the endpoint's limit")
    create.add_argument("--burst", type=int, help="how many of them may come at once")
    create.set_defaults(run=_create_key)
    listing = actions.add_parser("list", help="show every key but its secret")
    listing.set_defaults(run=_list_keys)
    revoke = actions.add_parser("revoke", help="take a key away; it is refused a second later")
    revoke.add_argument("id")
    revoke.set_defaults(run=_revoke_key)
    for action in (create, listing, revoke):
        _add_place(action, "the key file of a server that runs by itself")


def _add_place(parser: argparse.ArgumentParser, file: str) -> None:
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--home", help="the state directory; default: as configured")
    place.add_argument("--file", type=Path, help=file)


def _list(options: argparse.Namespace) -> int:
    session = _session(options)
    kind: type[EdgeTarget | Endpoint] = EdgeTarget if session.backend.capabilities.edge else Endpoint
    for found in kind.list(backend=session):
        _say(repr(found))
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


def _create_key(options: argparse.Namespace) -> int:
    """Write the key to standard output and what is said about it to standard error, so that a script can take the one alone."""
    scopes = options.scope or ["predict"]
    key, token = _keyring(options).create(
        options.name, scopes=scopes, days=options.days, rate=options.rate, burst=options.burst
    )
    _say(f"{_key_line(key)}\nkeep it now, it is nowhere stored; send it as: Authorization: Bearer KEY", error=True)
    _say(token)
    return 0


def _list_keys(options: argparse.Namespace) -> int:
    for key in _keyring(options).list():
        _say(_key_line(key))
    return 0


def _revoke_key(options: argparse.Namespace) -> int:
    _say(f"revoked {_key_line(_keyring(options).revoke(options.id))}")
    return 0


def _keyring(options: argparse.Namespace) -> Keyring:
    from modeldeploy.serving.keyring import Keyring

    return Keyring(options.file or _local(options).keys)


def _key_line(key: Key) -> str:
    ends = "never expires" if key.expires is None else f"expires {_minute(key.expires)}"
    limit = "" if key.rate is None else f"  {key.rate:g}/s"
    scopes = ",".join(scope.value for scope in key.scopes)
    return f"{key.id}  {scopes:<13}  made {_minute(key.created)}  {ends}{limit}  {key.name}"


def _minute(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%MZ")


def _audit(options: argparse.Namespace) -> int:
    from modeldeploy.serving import audit_file

    path = options.file or _local(options).audit
    if not (options.verify or options.anchor):
        for line in audit_file.lines(path):
            _say(line)
        return 0
    found = audit_file.verify(path, anchor=options.anchor)
    lost = f", {found.dropped} could not be written" if found.dropped else ""
    # Kept elsewhere, the last line's chain also shows a log that was cut off at its end or made anew as a whole.
    _say(f"{found.lines} lines verified{lost}; the last one is {found.chain}")
    return 0


def _local(options: argparse.Namespace) -> Paths:
    return Paths(Path(options.home or config.load().home).absolute())


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
    for finding in clouds.examine(settings):
        _say(str(finding))
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
