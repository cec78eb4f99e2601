"""A container by the contract, with as few imports as it takes: it answers who it is, and does as its kind says.

The simulator runs it as a program, with the interpreter's flags ``-I -S``: ready in a few hundredths of a second, where a model server takes
one.
"""

import os
import socket
import sys
import time
from _thread import start_new_thread

COUNTS = []
KIND = sys.argv[1] if len(sys.argv) > 1 else ""


def main():
    if KIND == "dies":
        say("libgpu: no device found")
        sys.exit(7)
    with socket.create_server(("127.0.0.1", 0)) as server:
        say(f'{{"port": {server.getsockname()[1]}}}')
        say("the container is up")
        while True:
            start_new_thread(serve, (server.accept()[0],))


def serve(connection):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, connection.makefile("rb") as stream:
        while line := stream.readline():
            headers = dict(read_headers(stream))
            body = stream.read(int(headers.get("content-length", 0)))
            status, answer = ping() if line.startswith(b"GET") else predict(headers, body)
            head = f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {len(answer)}\r\n\r\n"
            connection.sendall(head.encode() + answer.encode())


def read_headers(stream):
    while line := stream.readline().strip():
        name, _, value = line.decode().partition(":")
        yield name.lower(), value.strip()


def ping():
    return (500 if KIND == "sick" else 200), ""


def predict(headers, body):
    if KIND == "broken" or b"fail" in body:
        say("Traceback: the model broke")
        return 500, '{"error": "the model broke"}'
    if b"wrong" in body:
        return 422, '{"error": "column x is missing", "field": "x"}'
    if b"slow" in body:
        time.sleep(1.5)
    COUNTS.append(len(COUNTS))
    said = {
        "revision": os.environ.get("MODELDEPLOY_REVISION"),
        "type": headers.get("content-type"),
        "asked": len(COUNTS),
    }
    return 200, str(said).replace("'", '"').replace("None", "null")


def say(text):
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
