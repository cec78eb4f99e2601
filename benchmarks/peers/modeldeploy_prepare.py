"""Package a model file: ``modeldeploy_prepare.py MODEL EXAMPLE.npy`` puts ``bench`` 1.0.0 into the store of ``MODELDEPLOY_HOME``."""

import sys
from pathlib import Path

import joblib
import numpy as np

from modeldeploy import Model

if __name__ == "__main__":
    path, example = Path(sys.argv[1]), np.load(sys.argv[2])
    estimator = path.read_bytes() if path.suffix == ".onnx" else joblib.load(path)
    Model(estimator, name="bench", version="1.0.0", example=example)
