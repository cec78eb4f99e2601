"""MLServer: ``mlserver_server.py PORT FOLDER [batch]`` writes its settings and becomes ``mlserver start``.

Two parallel workers; with ``batch`` one worker that waits up to 2 ms for 64 requests.
"""

import json
import os
import socket
import sys
from pathlib import Path

from loading import load
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Runtime(MLModel):
    async def load(self):
        self.ask = load()
        return True

    async def predict(self, payload):
        answers = self.ask(NumpyCodec.decode_input(payload.inputs[0]))
        output = NumpyCodec.encode_output("prediction", answers[:, None])
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=[output])


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


if __name__ == "__main__":
    port, folder, batching = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] == ["batch"]
    settings = {
        "debug": False, "host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "metrics_endpoint": None,
        "parallel_workers": 1 if batching else 2,
    }  # fmt: skip
    model = {"name": "bench", "implementation": "mlserver_server.Runtime"}
    if batching:
        model |= {"max_batch_size": 64, "max_batch_time": 0.002}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    program = str(Path(sys.executable).with_name("mlserver"))
    os.execv(program, [program, "start", str(folder)])
