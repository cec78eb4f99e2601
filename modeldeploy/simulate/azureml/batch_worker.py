"""What runs the script of a batch deployment: ``init`` once, then ``run`` for each mini-batch that it is handed.

Run by its path, not as a module: in an image there is no modeldeploy but the one that was uploaded.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_OK, _FAILED = 200, 500


class Handler(BaseHTTPRequestHandler):
    """One connection; whoever hands mini-batches over waits for each."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    run: Callable[[list[str]], Any]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Keep silent about requests."""

    def do_GET(self) -> None:
        """Tell that the script is loaded."""
        self._answer(_OK, {})

    def do_POST(self) -> None:
        """Do a mini-batch."""
        batch = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            rows, count = written(type(self).run(batch))
        except Exception:  # noqa: BLE001 - whatever the script raises fails the mini-batch
            traceback.print_exc(file=sys.stdout)
            self._answer(_FAILED, {})
            return
        self._answer(_OK, {"rows": rows, "count": count})

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def written(result: Any) -> tuple[list[str], int]:
    """Write what ``run`` gave back as rows of the output file, and say for how many inputs it stands.

    A table becomes lines with blanks between the values and no header; of a list each element becomes a line.
    """
    if hasattr(result, "to_csv"):
        return result.to_csv(sep=" ", header=False, index=False).splitlines(), len(result)
    rows = [str(each) for each in result]
    return rows, len(rows)


def _load() -> Callable[[list[str]], Any]:
    path = Path(os.environ["AML_APP_ROOT"], os.environ["AZUREML_ENTRY_SCRIPT"])
    sys.path[:0] = [str(path.parent), os.environ["AML_APP_ROOT"]]
    spec = importlib.util.spec_from_file_location("entry_module", path)
    if spec is None or spec.loader is None:
        message = f"there is no entry script at {path}"
        raise FileNotFoundError(message)
    module = importlib.util.module_from_spec(spec)
    sys.modules["entry_module"] = module
    spec.loader.exec_module(module)
    getattr(module, "init", _nothing)()
    run: Callable[[list[str]], Any] = module.run
    return run


def _nothing() -> None:
    """Stand for an ``init`` that there is not."""


def main() -> int:
    """Load the script and serve."""
    try:
        Handler.run = staticmethod(_load())
    except Exception:  # noqa: BLE001 - whatever the script raises ends the worker
        traceback.print_exc(file=sys.stdout)
        return 3
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
