"""Save a model as MLflow does: ``mlflow_prepare.py MODEL FOLDER``."""

import sys

import joblib
import mlflow

if __name__ == "__main__":
    path, folder = sys.argv[1:]
    if path.endswith(".onnx"):
        import onnx

        options = {"intra_op_num_threads": 1, "inter_op_num_threads": 1}
        mlflow.onnx.save_model(onnx.load(path), folder, onnx_session_options=options)
    else:
        mlflow.sklearn.save_model(joblib.load(path), folder, serialization_format="cloudpickle")
