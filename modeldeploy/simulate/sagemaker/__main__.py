"""``python -m modeldeploy.simulate.sagemaker``: the simulator as a process of its own; it prints its address and serves until it is told to end."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence

import orjson

from modeldeploy.errors import ModelDeployError
from modeldeploy.serving.lifeline import die_with_parent
from modeldeploy.simulate.sagemaker.simulator import Simulator


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the first line of output is the address in JSON."""
    parser = argparse.ArgumentParser(prog="python -m modeldeploy.simulate.sagemaker", description=__doc__)
    parser.add_argument("--speed", type=float, default=100.0, help="how many times as fast the service's time passes")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--with-parent", action="store_true", help="end when the process that started it ends (Linux)")
    asked = parser.parse_args(arguments)
    if asked.with_parent:
        die_with_parent(os.getppid())
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: ended.set())
    try:
        with Simulator(speed=asked.speed, region=asked.region) as simulator:
            _announce(simulator)
            ended.wait()
    except ModelDeployError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _announce(simulator: Simulator) -> None:
    key = simulator.credentials
    values = {
        "url": simulator.url,
        "region": simulator.region,
        "account": simulator.account,
        "role": simulator.role,
        "bucket": simulator.bucket,
        "access_key": key.access_key,
        "secret_key": key.secret_key,
    }
    sys.stdout.buffer.write(orjson.dumps(values) + b"\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
