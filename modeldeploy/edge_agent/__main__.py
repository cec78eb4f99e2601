"""The agent of a device: ``python -m modeldeploy.edge_agent --device ID --fleet NAME --store WHERE --home DIR --key PUBLIC.pem``.

When it serves what it has, it prints one line of JSON with its port. SIGTERM ends it, SIGHUP lets it ask the store at once.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from modeldeploy.edge.keys import VerifyKey
from modeldeploy.edge.stores import open_store
from modeldeploy.edge_agent.agent import Agent
from modeldeploy.edge_agent.child import preload
from modeldeploy.edge_agent.config import Config
from modeldeploy.edge_agent.home import alone, listen
from modeldeploy.errors import ConfigurationError, ModelDeployError

_log = logging.getLogger("modeldeploy.edge_agent")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM; 0 after a clean end, 1 with the reason on standard error when it cannot begin."""
    asked = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        return _run(asked)
    except ModelDeployError as error:
        _log.error("%s", error)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m modeldeploy.edge_agent", description=__doc__)
    parser.add_argument("--device", required=True, help="this device's name in its fleet")
    parser.add_argument("--fleet", required=True)
    parser.add_argument("--store", required=True, help="a directory, http(s)://host/path or s3://bucket/prefix")
    parser.add_argument("--home", type=Path, required=True, help="where this device keeps what it has")
    parser.add_argument(
        "--key",
        type=Path,
        action="append",
        required=True,
        help="the fleet's public key; several while one replaces another",
    )
    parser.add_argument("--token-file", type=Path, help="holds the token that an HTTP store asks for")
    parser.add_argument("--port", type=int, default=0, help="on loopback; 0 for the one it had before, else any")
    parser.add_argument("--poll", type=float, default=30.0, help="seconds between two looks at the store")
    parser.add_argument("--heartbeat", type=float, default=300.0, help="seconds between two reports without news")
    parser.add_argument("--settle", type=float, default=30.0, help="seconds that a new version must stay up")
    parser.add_argument("--selftest", type=float, default=60.0, help="seconds that a self-test may take")
    parser.add_argument(
        "--patience", type=float, default=20.0, help="seconds until a server that does not answer is replaced"
    )
    parser.add_argument("--grace", type=float, default=5.0, help="seconds for requests in flight when a version goes")
    parser.add_argument("--once", action="store_true", help="do what is wanted now, report, and end")
    return parser


def _run(asked: argparse.Namespace) -> int:
    config = Config(
        device=asked.device,
        fleet=asked.fleet,
        home=asked.home.absolute(),
        keys=tuple(VerifyKey.load(path) for path in asked.key),
        port=asked.port,
        poll=asked.poll,
        heartbeat=asked.heartbeat,
        settle=asked.settle,
        selftest=asked.selftest,
        patience=asked.patience,
        grace=asked.grace,
    )
    store = open_store(asked.store, headers=_headers(asked.token_file))
    config.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    preload()
    with alone(config.home), listen(config) as listener:
        announce = functools.partial(_announce, config.device, listener.getsockname())
        return Agent(config, store, listener).run(announce, once=asked.once)


def _headers(token_file: Path | None) -> Mapping[str, str]:
    if token_file is None:
        return {}
    try:
        token = token_file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        message = f"the token in {str(token_file)!r} cannot be read: {error}"
        raise ConfigurationError(message, hint="put the token into the file, alone") from error
    return {"Authorization": f"Bearer {token}"}


def _announce(device: str, address: tuple[str, int]) -> None:
    line = {"ready": True, "device": device, "host": address[0], "port": address[1], "pid": os.getpid()}
    sys.stdout.buffer.write(orjson.dumps(line) + b"\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
