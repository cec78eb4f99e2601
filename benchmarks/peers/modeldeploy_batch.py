"""Ours: ``modeldeploy_batch.py SOURCE TARGET`` scores a table with the packaged model ``bench`` 1.0.0."""

import sys

from modeldeploy import BatchJob, Model

if __name__ == "__main__":
    source, target = sys.argv[1:]
    BatchJob.run(Model.get("bench", "1.0.0"), source, target, key="id", keep=["id"])
