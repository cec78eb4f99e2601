"""From a model file to answers, twice: ``modeldeploy_fresh.py MODEL`` says ``first`` and ``second``."""

import sys
from pathlib import Path

import joblib
import numpy as np

from modeldeploy import Endpoint, Model

if __name__ == "__main__":
    path = Path(sys.argv[1])
    onnx = path.suffix == ".onnx"
    estimator = path.read_bytes() if onnx else joblib.load(path)
    rows = np.ones((5, 30), np.float32 if onnx else np.float64)
    for name in ("first", "second"):
        model = Model(estimator, name=f"bench-{name}", version="1.0.0", example=rows)
        Endpoint.deploy(model, name=f"bench-{name}").predict(rows)
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()
