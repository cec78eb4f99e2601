"""Ray Data with one actor for each core. ``ray_batch.py MODEL SOURCE TARGET FOLDER``."""

import os
import sys

import numpy as np
import ray
from loading import load


class Scorer:
    def __init__(self, model):
        self.ask = load(model)

    def __call__(self, batch):
        ids = batch.pop("id")
        return {"id": ids, "prediction": self.ask(np.column_stack(list(batch.values())))}


if __name__ == "__main__":
    model, source, target, folder = sys.argv[1:]
    ray.init(include_dashboard=False, log_to_driver=False, _temp_dir=folder, _node_ip_address="127.0.0.1")
    ray.data.DataContext.get_current().enable_progress_bars = False
    cores = os.cpu_count()
    scored = ray.data.read_parquet(source).map_batches(
        Scorer, fn_constructor_args=(model,), batch_size=65_536, concurrency=cores, num_cpus=0.5
    )
    scored.write_parquet(target)
