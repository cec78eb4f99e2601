"""pandas: the whole table in memory. ``pandas_batch.py MODEL SOURCE TARGET``."""

import sys

import pandas as pd
from loading import load

if __name__ == "__main__":
    model, source, target = sys.argv[1:]
    table = pd.read_parquet(source)
    predictions = load(model)(table.drop(columns="id").to_numpy())
    pd.DataFrame({"id": table["id"], "prediction": predictions}).to_parquet(target)
