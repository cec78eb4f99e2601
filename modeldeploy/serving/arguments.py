"""The arguments of the container entry that say who may ask it what."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from modeldeploy.errors import ConfigurationError
from modeldeploy.serving.access import HEALTH, KEYS, NONE, PREDICTIONS, Access, Doors, check_exposed

if TYPE_CHECKING:
    from modeldeploy.serving.app import Routes
    from modeldeploy.serving.entrance import Entrance

_FILE = "keys.json"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    who = parser.add_argument_group("who may ask", "a non-loopback --host needs keys, or a word that it does not")
    who.add_argument("--auth", choices=[KEYS, NONE], help="default MODELDEPLOY_AUTH, else keys unless on loopback")
    who.add_argument(
        "--keys", metavar="FILE", help="API keys, made by: modeldeploy keys create; default MODELDEPLOY_KEYS"
    )
    who.add_argument(
        "--allowed-host", action="append", default=[], metavar="HOST", help="a name that requests to loopback may carry"
    )
    who.add_argument("--rate", type=float, default=0.0, help="requests per second of a key, or of an address; 0: any")
    who.add_argument("--burst", type=int, default=0, help="how many of them may come at once; default one second's")
    who.add_argument("--audit", default="", metavar="FILE", help="note every request there, without payloads")


def read(asked: argparse.Namespace, environ: Mapping[str, str]) -> Access:
    """Read them; ConfigurationError when the server would be open to other machines and nobody said that it may be."""
    keys = asked.keys or environ.get("MODELDEPLOY_KEYS", "")
    auth = asked.auth or environ.get("MODELDEPLOY_AUTH", "") or (KEYS if keys else "")
    if keys and auth == NONE:
        message = f"keys {keys!r} are given, and auth is {auth!r}"
        raise ConfigurationError(message, hint="leave one of them out")
    access = Access(
        host=asked.host,
        auth=auth,
        keys=keys,
        allowed_hosts=tuple(asked.allowed_host),
        rate=asked.rate,
        burst=asked.burst,
        audit=asked.audit,
    )
    file = shlex.quote(keys or _FILE)
    remedy = f"modeldeploy keys create NAME --file {file}" + ("" if keys else f", and add --keys {file}")
    check_exposed(access, remedy=remedy, waiver="--auth none")
    return access


def entrance(access: Access, name: str, routes: Routes | None) -> Entrance:
    """Make what stands before the App of this name."""
    from modeldeploy.serving.audit import AuditLog
    from modeldeploy.serving.entrance import Entrance

    health, predict = ({routes.health}, {routes.predict}) if routes is not None else (set(), set())
    log = AuditLog(Path(access.audit)) if access.audit else None
    return Entrance(access, endpoint=name, doors=Doors(HEALTH | health, PREDICTIONS | predict), log=log)
