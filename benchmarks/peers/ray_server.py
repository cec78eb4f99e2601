"""Ray Serve: ``ray_server.py PORT FOLDER``; two replicas, no dashboard, no access log."""

import signal
import sys

import ray
from loading import load
from ray import serve
from ray.serve.schema import LoggingConfig


@serve.deployment(num_replicas=2, max_ongoing_requests=64)
class Served:
    def __init__(self, path):
        self.ask = load(path)

    async def __call__(self, request):
        rows = (await request.json())["instances"]
        return {"predictions": self.ask(rows).tolist()}


if __name__ == "__main__":
    import os

    port, folder = int(sys.argv[1]), sys.argv[2]
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=folder, _node_ip_address="127.0.0.1")
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config=LoggingConfig(enable_access_log=False))
    serve.run(
        Served.bind(os.environ["BENCH_MODEL"]), route_prefix="/", logging_config=LoggingConfig(enable_access_log=False)
    )
    signal.pause()
