"""DuckDB reads record batches, pyarrow writes them. ``duckdb_batch.py MODEL SOURCE TARGET``."""

import sys

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from loading import load

CHUNK_ROWS = 65_536
SCHEMA = pa.schema([("id", pa.int64()), ("prediction", pa.int64())])

if __name__ == "__main__":
    model, source, target = sys.argv[1:]
    predict = load(model)
    chunks = duckdb.sql("select * from read_parquet($source)", params={"source": source}).to_arrow_reader(CHUNK_ROWS)
    with pq.ParquetWriter(target, SCHEMA, use_dictionary=["prediction"]) as writer:
        for chunk in chunks:
            X = np.column_stack([column.to_numpy() for column in chunk.columns[1:]])
            writer.write_batch(pa.record_batch([chunk.column(0), pa.array(predict(X))], schema=SCHEMA))
