"""The limits of scoring: what reading, predicting with all cores and writing allow, apart and together.

``bare_batch.py loop MODEL SOURCE TARGET``: a thread for each core reads, converts and predicts a row group; they are written in order.
``bare_batch.py read|convert|predict|write MODEL SOURCE TARGET``: one of these alone; prints its seconds.
"""

import os
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from loading import load

CORES = os.cpu_count() or 1
SCHEMA = pa.schema([("id", pa.int64()), ("prediction", pa.int64())])


class Reader:
    """Reads row groups, with a file of its own for each thread."""

    def __init__(self, source):
        self.source, self.own = source, threading.local()
        self.groups = pq.ParquetFile(source).num_row_groups

    def read(self, group):
        if not hasattr(self.own, "file"):
            self.own.file = pq.ParquetFile(self.source)
        return self.own.file.read_row_group(group, use_threads=False)


def matrix(table, dtype=np.float64):
    X = np.empty((table.num_rows, table.num_columns - 1), dtype)
    for place, column in enumerate(table.columns[1:]):
        X[:, place] = column.to_numpy()
    return X


def taken(model):
    """What the model takes, so that nothing is converted twice."""
    return np.float32 if model.endswith(".onnx") else np.float64


def in_order(act, items):
    """Yield ``act(item)`` in order, from as many threads as there are cores, with a few in hand."""
    with ThreadPoolExecutor(CORES) as pool:
        waiting = deque()
        for item in items:
            waiting.append(pool.submit(act, item))
            if len(waiting) > 2 * CORES:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def write(target, tables):
    # A dictionary of ids that are all different takes half of the time that writing takes.
    with pq.ParquetWriter(target, SCHEMA, use_dictionary=["prediction"]) as writer:
        for table in tables:
            writer.write_table(table)


def loop(model, source, target):
    predict, reader, dtype = load(model), Reader(source), taken(model)

    def score(group):
        table = reader.read(group)
        return pa.table([table.column(0), pa.array(predict(matrix(table, dtype)))], schema=SCHEMA)

    write(target, in_order(score, range(reader.groups)))


def alone(act, items):
    """Seconds that it takes on all cores."""
    began = time.perf_counter()
    for _done in in_order(act, items):
        pass
    return time.perf_counter() - began


def parts(what, model, source, target):
    reader = Reader(source)
    groups = range(reader.groups)
    if what == "read":
        return alone(lambda group: reader.read(group).num_rows, groups)
    if what == "convert":
        return alone(lambda group: len(matrix(reader.read(group), taken(model))), groups)
    if what == "write":
        rows = pq.ParquetFile(source).metadata.row_group(0).num_rows
        table = pa.table([np.arange(rows), np.zeros(rows, np.int64)], schema=SCHEMA)
        began = time.perf_counter()
        write(target, (table for _group in groups))
        return time.perf_counter() - began
    predict, X = load(model), matrix(reader.read(0), taken(model))
    predict(X[:1])
    return alone(lambda _group: len(predict(X)), groups)


if __name__ == "__main__":
    what, *files = sys.argv[1:]
    if what == "loop":
        loop(*files)
    else:
        sys.stdout.write(f"{parts(what, *files)}\n")
