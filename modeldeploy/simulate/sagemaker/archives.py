"""From a model's archive in storage to a directory."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modeldeploy.simulate.sagemaker.cloud import Cloud, split_s3


class DownloadError(Exception):
    """The model's data is not there, or may not be read; ``url`` is where it was looked for."""

    def __init__(self, url: str) -> None:
        super().__init__(f"nothing to download at {url}")
        self.url = url


class ExtractError(Exception):
    """The model's data is no archive that the service extracts."""

    def __init__(self, url: str) -> None:
        super().__init__(f"no archive at {url}")
        self.url = url


def location(container: Mapping[str, Any]) -> tuple[str, bool] | None:
    """Tell where a container's model lies and whether it is an archive; None when it has none."""
    if "ModelDataUrl" in container:
        return str(container["ModelDataUrl"]), True
    source = container.get("ModelDataSource", {}).get("S3DataSource")
    return None if source is None else (str(source["S3Uri"]), source["CompressionType"] == "Gzip")


def is_there(cloud: Cloud, container: Mapping[str, Any]) -> bool:
    """Say whether a container's model is in storage, or needs none."""
    found = location(container)
    if found is None:
        return True
    bucket, key = split_s3(found[0])
    return bool(cloud.keys(bucket, key)) if key.endswith("/") else cloud.size(bucket, key) is not None


def fetch(cloud: Cloud, container: Mapping[str, Any], into: Path) -> None:
    """Put a container's model into a directory; DownloadError or ExtractError when it cannot be."""
    into.mkdir(parents=True)
    found = location(container)
    if found is None:
        return
    url, packed = found
    if packed:
        _extract(cloud, url, into)
    else:
        _copy(cloud, url, into)


def _extract(cloud: Cloud, url: str, into: Path) -> None:
    body = cloud.open(*split_s3(url))
    if body is None:
        raise DownloadError(url)
    try:
        with tarfile.open(fileobj=body, mode="r|gz") as archive:
            archive.extractall(into, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ExtractError(url) from error
    finally:
        body.close()


def _copy(cloud: Cloud, url: str, into: Path) -> None:
    bucket, prefix = split_s3(url)
    keys = cloud.keys(bucket, prefix)
    if not keys:
        raise DownloadError(url)
    for key in keys:
        relative = key.removeprefix(prefix).lstrip("/") or key.rpartition("/")[2]
        there = (into / relative).resolve()
        if there.is_relative_to(into.resolve()) and not key.endswith("/"):
            _save(cloud, bucket, key, there)


def _save(cloud: Cloud, bucket: str, key: str, there: Path) -> None:
    body = cloud.open(bucket, key)
    if body is None:
        raise DownloadError(f"s3://{bucket}/{key}")
    there.parent.mkdir(parents=True, exist_ok=True)
    with there.open("wb") as file:
        shutil.copyfileobj(body, file)
