"""Polars, streaming. ``polars_batch.py MODEL SOURCE TARGET``."""

import sys

import polars as pl
from loading import load

if __name__ == "__main__":
    model, source, target = sys.argv[1:]
    predict = load(model)

    def score(rows):
        return pl.Series(predict(rows.struct.unnest().to_numpy()))

    scored = pl.struct(pl.exclude("id")).map_batches(score, return_dtype=pl.Int64, is_elementwise=True)
    pl.scan_parquet(source).select("id", scored.alias("prediction")).sink_parquet(target, engine="streaming")
