"""The limit of serving: our own HTTP server, whose every answer is the same. ``bare_http.py PORT``."""

import asyncio
import socket
import sys

from modeldeploy.serving.http import HttpServer, run
from modeldeploy.serving.messages import Response


async def serve(port):
    answer = Response(200, b'{"predictions":[0]}', {"content-type": "application/json"})
    loop = asyncio.get_running_loop()

    def handle(_request):
        future = loop.create_future()
        future.set_result(answer)
        return future

    sock = socket.create_server(("127.0.0.1", port))
    await HttpServer(handle).start(sock)
    await asyncio.Event().wait()
    return 0


if __name__ == "__main__":
    run(serve(int(sys.argv[1])))
