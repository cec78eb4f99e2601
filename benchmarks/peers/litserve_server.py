"""LitServe: ``litserve_server.py PORT [batch]``."""

import sys

import litserve
import numpy as np
from loading import load


class Plain(litserve.LitAPI):
    def setup(self, device):  # noqa: ARG002 - LitServe's signature
        self.ask = load()

    def decode_request(self, request):
        return request["instances"]

    def predict(self, x):
        return self.ask(x)

    def encode_response(self, output):
        return {"predictions": output.tolist()}


class Batching(Plain):
    """Requests of several rows each become one call; each gets its own slice back."""

    def batch(self, inputs):
        return [np.asarray(each) for each in inputs]

    def predict(self, x):
        answers = self.ask(np.concatenate(x))
        return np.split(answers, np.cumsum([len(each) for each in x])[:-1])

    def unbatch(self, output):
        return output


if __name__ == "__main__":
    api = Batching(max_batch_size=64, batch_timeout=0.002) if sys.argv[2:] == ["batch"] else Plain()
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
