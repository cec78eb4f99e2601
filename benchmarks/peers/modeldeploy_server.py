"""Ours: ``modeldeploy_server.py PORT WORKERS`` deploys the packaged model ``bench`` 1.0.0 and ends; the endpoint stays."""

import sys

from modeldeploy import Endpoint, Model

if __name__ == "__main__":
    port, workers = int(sys.argv[1]), int(sys.argv[2])
    Endpoint.deploy(Model.get("bench", "1.0.0"), name="bench", workers=workers, endpoint_options={"port": port})
