"""The figures that the project holds itself to, measured here and now; ratios in one run, since machines are noisy.

``make bench`` runs it; ``python benchmarks/figures.py batch`` runs one part.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ROUNDS = 5
BATCH_ROWS = 2_000_000


def main() -> None:
    parts = {"import": imports, "deploy": deploy, "serve": serve, "batch": batch}
    os.environ["MODELDEPLOY_PROGRESS"] = "off"
    wanted = sys.argv[1:] or list(parts)
    for name in wanted:
        with tempfile.TemporaryDirectory(prefix="md-bench-") as home:
            os.environ["MODELDEPLOY_HOME"] = home
            say(f"\n{name}")
            parts[name](Path(home))


def imports(_home: Path) -> None:
    """CPU seconds of a process that only imports, beyond the bare interpreter; best of several."""
    bare = min(cpu("pass") for _ in range(ROUNDS))
    for code in (
        "import modeldeploy",
        "from modeldeploy import Endpoint, Model, BatchJob",
        "import numpy",
        "import sklearn.linear_model",
    ):
        say(f"  {code:<55} {min(cpu(code) for _ in range(ROUNDS)) - bare:6.3f} s CPU")


def cpu(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def deploy(_home: Path) -> None:
    """From the call to the first answer: with nothing running, and with the supervisor warm; then rollback."""
    from modeldeploy import Endpoint, Model

    first, second, rows = models()
    v1 = Model(first, name="bench", version="1.0.0", example=rows.head())
    v2 = Model(second, name="bench", version="1.1.0", example=rows.head())
    begun = time.perf_counter()
    endpoint = Endpoint.deploy(v1, name="bench")
    endpoint.predict(rows.head(1))
    say(f"  deploy to first answer, nothing running     {time.perf_counter() - begun:6.3f} s")
    begun = time.perf_counter()
    other = Endpoint.deploy(v1, name="bench-two")
    other.predict(rows.head(1))
    say(f"  deploy to first answer, supervisor warm     {time.perf_counter() - begun:6.3f} s")
    endpoint.rollout(v2)
    took = []
    for to in ("1.0.0", "1.1.0") * 5:
        begun = time.perf_counter()
        endpoint.rollback(to=to)
        took.append(time.perf_counter() - begun)
    say(
        f"  rollback, median (fastest) of {len(took)}              {statistics.median(took) * 1000:6.1f} ms ({min(took) * 1000:.1f})"
    )
    endpoint.delete()
    other.delete()


def serve(_home: Path) -> None:
    """One-row requests: JSON by one and by several connections, and the SDK; against bare predict in this process."""
    from modeldeploy import Endpoint, Model

    first, _second, rows = models()
    endpoint = Endpoint.deploy(Model(first, name="bench", version="1.0.0", example=rows.head()), name="bench")
    one = rows.head(1)
    bare = median_ms(lambda: first.predict(one), 300)
    say(f"  bare predict, one row                       {bare:6.2f} ms")
    say(f"  Endpoint.predict, one row                   {median_ms(lambda: endpoint.predict(one), 300):6.2f} ms")
    body = orjson.dumps({"instances": one.to_dict("records")})
    import urllib3

    pool = urllib3.PoolManager(maxsize=64)
    url = f"{endpoint.url}/invocations"
    headers = {"content-type": "application/json"}
    say(
        f"  HTTP JSON, one connection                   {median_ms(lambda: pool.request('POST', url, body=body, headers=headers), 300):6.2f} ms"
    )
    single = 1000 / bare
    for connections in (8, 64):
        rate, p99 = load(url, body, connections)
        say(
            f"  HTTP JSON, {connections:>2} connections: {rate:8,.0f} requests/s, p99 {p99:6.1f} ms, {rate / single:5.1f} x bare predict one by one"
        )
    endpoint.delete()


def load(url: str, body: bytes, connections: int, seconds: float = 3.0) -> tuple[float, float]:
    """Ask from another process, closed loop."""
    done = subprocess.run(
        [sys.executable, __file__, "--load", url, str(connections), str(seconds)],
        input=body,
        capture_output=True,
        check=True,
    )
    rate, p99 = done.stdout.split()
    return float(rate), float(p99)


def generate(url: str, connections: int, seconds: float) -> None:
    import asyncio

    import uvloop

    host, port, path = url.removeprefix("http://").replace("/", ":", 1).split(":")
    body = sys.stdin.buffer.read()
    request = (
        f"POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    took: list[float] = []

    async def one(end: float) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        while time.perf_counter() < end:
            begun = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(head.decode())
            length = next(
                int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
            )
            await reader.readexactly(length)
            took.append(time.perf_counter() - begun)
        writer.close()

    async def run() -> None:
        end = time.perf_counter() + seconds
        await asyncio.gather(*(one(end) for _ in range(connections)))

    uvloop.run(run())
    sys.stdout.write(f"{len(took) / seconds} {np.quantile(took, 0.99) * 1000}\n")


def batch(home: Path) -> None:
    """Parquet to parquet, against the same work in a bare single-threaded loop of record batches."""
    from modeldeploy import BatchJob, Model

    first, _second, rows = models()
    model = Model(first, name="bench", version="1.0.0", example=rows.head())
    source = home / "in.parquet"
    write_source(source, list(rows.columns))
    begun = time.perf_counter()
    bare(first, source, home / "bare.parquet")
    limit = time.perf_counter() - begun
    say(f"  bare loop, one thread: {BATCH_ROWS:,} rows        {limit:6.2f} s, {BATCH_ROWS / limit:,.0f} rows/s")
    begun = time.perf_counter()
    BatchJob.run(model, source, home / "out.parquet", key="id", keep=["id"])
    took = time.perf_counter() - begun
    say(
        f"  BatchJob.run                                {took:6.2f} s, {BATCH_ROWS / took:,.0f} rows/s, {limit / took:.2f} x the bare loop"
    )


def write_source(path: Path, columns: list[str]) -> None:
    rng = np.random.default_rng(0)
    writer = None
    for start in range(0, BATCH_ROWS, 131_072):
        count = min(131_072, BATCH_ROWS - start)
        table = pa.table({"id": np.arange(start, start + count), **{name: rng.normal(size=count) for name in columns}})
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def bare(model, source: Path, target: Path) -> None:
    writer = None
    for chunk in pq.ParquetFile(source).iter_batches(65_536):
        frame = chunk.drop_columns(["id"]).to_pandas()
        table = pa.table({"id": chunk.column("id"), "prediction": model.predict(frame)})
        writer = writer or pq.ParquetWriter(target, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def models():
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X = X.iloc[:, :10]
    first = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    second = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(X, y)
    return first, second, pd.DataFrame(X)


def median_ms(act, count: int) -> float:
    for _ in range(20):
        act()
    took = []
    for _ in range(count):
        begun = time.perf_counter()
        act()
        took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1000


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--load"]:
        generate(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    else:
        main()
