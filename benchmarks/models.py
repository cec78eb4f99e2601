"""The models and the data that every tool is given: breast-cancer data, as files that any environment can load."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import joblib
import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

NAMES = ("lr-onnx", "lr", "rf", "rf-onnx")
TITLES = {
    "lr": "scikit-learn: StandardScaler + LogisticRegression",
    "rf": "scikit-learn: RandomForest({trees})",
    "lr-onnx": "ONNX: StandardScaler + LogisticRegression",
    "rf-onnx": "ONNX: RandomForest({trees})",
}
SERVED_COLUMNS, SCORED_COLUMNS = 30, 10
SERVED_TREES, SCORED_TREES = 100, 30
GROUP_ROWS = 131_072
CHUNK_ROWS = 65_536


@functools.cache
def data() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return load_breast_cancer(return_X_y=True)


@attrs.frozen
class Shape:
    """What is fitted: for serving all columns and 100 trees, for scoring ten columns and 30 trees of depth 8."""

    columns: int
    trees: int
    depth: int | None = None

    def fit(self, name: str, *, strength: float = 1.0) -> object:
        X, y = data()
        if name.startswith("lr"):
            estimator = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
        else:
            estimator = RandomForestClassifier(self.trees, max_depth=self.depth, n_jobs=1, random_state=0)
        return estimator.fit(X[:, : self.columns], y)


SERVED = Shape(SERVED_COLUMNS, SERVED_TREES)
SCORED = Shape(SCORED_COLUMNS, SCORED_TREES, depth=8)


@attrs.frozen
class Made:
    """A model as a file, and as the function from rows to labels that it is."""

    name: str
    path: Path
    predict: Callable[[NDArray[np.generic]], NDArray[np.int64]]

    @property
    def dtype(self) -> type[np.generic]:
        """What it takes."""
        return np.float32 if self.path.suffix == ".onnx" else np.float64


def make(shape: Shape, name: str, folder: Path, *, strength: float = 1.0) -> Made:
    """Fit it, write it, and load what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    estimator = shape.fit(name, strength=strength)
    if not name.endswith("-onnx"):
        path = folder / f"{name}.joblib"
        joblib.dump(estimator, path)
        return Made(name, path, joblib.load(path).predict)
    path = folder / f"{name}.onnx"
    path.write_bytes(_labels_only(estimator, shape.columns))
    session = session_of(path)
    return Made(name, path, lambda X: session.run(None, {"input": X.astype(np.float32, copy=False)})[0])


def _labels_only(estimator: object, columns: int) -> bytes:
    """Convert; every tool then gives the label and nothing else, as ``predict`` of scikit-learn does."""
    inputs = [("input", FloatTensorType([None, columns]))]
    converted = to_onnx(estimator, initial_types=inputs, options={"zipmap": False})
    del converted.graph.output[1:]
    last = next(node for node in converted.graph.node if converted.graph.output[0].name in node.output)
    last.output[list(last.output).index(converted.graph.output[0].name)] = "prediction"
    converted.graph.output[0].name = "prediction"
    return converted.SerializeToString(deterministic=True)


def session_of(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def rows(count: int) -> NDArray[np.float64]:
    """Give the rows that are asked for: real ones, of both classes, as they lie in the data."""
    X, _y = data()
    return X[:count]


# ---------------------------------------------------------------- the table that is scored


def table(count: int, folder: Path) -> Path:
    """Write rows like the real ones, once: an id and ten columns, in row groups of 131,072, compressed with snappy."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"rows-{count}.parquet"
    if path.exists():
        return path
    part = path.with_suffix(".part")
    names = [f"f{place}" for place in range(SCORED_COLUMNS)]
    schema = pa.schema([("id", pa.int64()), *((name, pa.float64()) for name in names)])
    with pq.ParquetWriter(part, schema, compression="snappy") as writer:
        for ids, X in _draws(count):
            writer.write_table(pa.table([ids, *X.T.copy()], schema=schema), row_group_size=GROUP_ROWS)
    part.rename(path)
    return path


def _draws(count: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    X = data()[0][:, :SCORED_COLUMNS]
    rng = np.random.default_rng(0)
    for start in range(0, count, GROUP_ROWS):
        size = min(GROUP_ROWS, count - start)
        yield np.arange(start, start + size), rng.normal(X.mean(axis=0), X.std(axis=0), (size, SCORED_COLUMNS))


@attrs.frozen
class Sums:
    """What tells whether a table of predictions is the right one, whatever its order."""

    rows: int
    ids: int
    predictions: int
    products: int

    @classmethod
    def of(cls, chunks: Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> Sums:
        found = np.zeros(4, np.int64)
        for ids, predictions in chunks:
            found += [len(ids), ids.sum(), predictions.sum(), (ids * predictions).sum()]
        return cls(*map(int, found))


def expected(made: Made, source: Path) -> Sums:
    """Predict every row, chunk by chunk."""

    def chunks() -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        for chunk in pq.ParquetFile(source).iter_batches(CHUNK_ROWS):
            X = np.column_stack([column.to_numpy() for column in chunk.columns[1:]])
            yield chunk.column(0).to_numpy(), made.predict(X).astype(np.int64)

    return Sums.of(chunks())


def found(target: Path) -> Sums:
    """Read what a tool wrote: a file, or a directory of files."""
    files = sorted(target.rglob("*.parquet")) if target.is_dir() else [target]

    def chunks() -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        for file in files:
            for chunk in pq.ParquetFile(file).iter_batches(columns=["id", "prediction"]):
                ids, predictions = (chunk.column(name).to_numpy() for name in ("id", "prediction"))
                yield ids, predictions.astype(np.int64)

    return Sums.of(chunks())
