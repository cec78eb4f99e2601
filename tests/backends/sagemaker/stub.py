"""A container by the contract, in the standard library alone: it answers who it is, and does as its environment says.

Run as a program by the simulator; ready in a few tens of milliseconds, where a model server takes a second.
"""

from __future__ import annotations

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KIND = sys.argv[1] if len(sys.argv) > 1 else ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self):
        self.answer(500 if KIND == "sick" else 200, b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if KIND == "broken" or b"fail" in body:
            say("Traceback: the model broke")
            self.answer(500, b'{"error": "the model broke"}')
        elif b"wrong" in body:
            self.answer(422, b'{"error": "column \'x\' is missing", "field": "x"}')
        elif b"slow" in body:
            time.sleep(1.5)
            self.answer(200, b"{}")
        else:
            said = {"revision": os.environ.get("MODELDEPLOY_REVISION"), "type": self.headers.get("content-type")}
            self.answer(200, json.dumps(said).encode())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_):
        pass


def say(text):
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main():
    if KIND == "dies":
        say("libgpu: no device found")
        sys.exit(7)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    say(json.dumps({"port": server.server_port}))
    say("the container is up")
    server.serve_forever()


if __name__ == "__main__":
    main()
