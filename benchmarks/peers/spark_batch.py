"""Spark on all cores of this machine, ``mapInPandas``. ``spark_batch.py MODEL SOURCE TARGET FOLDER``."""

import sys

import pandas as pd
from loading import load
from pyspark.sql import SparkSession

if __name__ == "__main__":
    model, source, target, folder = sys.argv[1:]

    def score(frames):
        predict = load(model)
        for frame in frames:
            yield pd.DataFrame({"id": frame["id"], "prediction": predict(frame.drop(columns="id").to_numpy())})

    builder = SparkSession.builder.master("local[*]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
    builder = builder.config("spark.driver.memory", "2g").config("spark.local.dir", folder)
    spark = builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", "65536").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    spark.read.parquet(source).mapInPandas(score, "id long, prediction long").write.parquet(target)
    spark.stop()
