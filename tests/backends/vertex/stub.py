"""The small container of the other clouds' tests, listening where Vertex AI tells its containers to."""

import os
import runpy
import socket
from pathlib import Path

real = socket.create_server
socket.create_server = lambda address: real((address[0], int(os.environ["AIP_HTTP_PORT"])))

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parent.with_name("sagemaker") / "stub.py"), run_name="__main__")
