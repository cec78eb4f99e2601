"""Which image serves a bundle: the provider's prebuilt one for its flavour, or the one that the user names.

The tables of prebuilt images are data files of the ``sagemaker`` package, read by their path and only when no image is named: importing that
package takes seconds, and the rest of the backend works without it. An image must have Python 3.11 or newer, because what loads a bundle
does, and a pickle needs the very Python that it was made with; an image whose Python nobody wrote down is not guessed at.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import orjson

from modeldeploy.errors import ConfigurationError, MissingDependencyError, UnsupportedError
from modeldeploy.packaging.manifest import Manifest

LEAST_PYTHON = (3, 11)
_MAX_URI = 255
# Most wanted first. Any image with the handler functions serves any flavour once it has installed code/requirements.txt.
_FRAMEWORKS = {
    "sklearn": ("sklearn", "pytorch"),
    "xgboost": ("xgboost", "sklearn", "pytorch"),
    "torch": ("pytorch",),
    "lightgbm": ("sklearn", "pytorch"),
    "onnx": ("sklearn", "pytorch"),
    "function": ("sklearn", "pytorch"),
}
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "xgboost": "xgboost", "pytorch": "torch"}
# AWS partitions whose host names differ; botocore's endpoints.json.
_SUFFIXES = {"cn-": "amazonaws.com.cn", "us-iso-": "c2s.ic.gov", "us-isob-": "sc2s.sgov.gov"}
_USUAL_SUFFIX = "amazonaws.com"
_BUILD = (
    "build an image that runs 'python -m modeldeploy.serving serve --host 0.0.0.0 --auth none' and name it with image="
)
_PYTHON = re.compile(r"py3(\d+)")


@attrs.frozen
class Image:
    """A container image and what is known about it."""

    uri: str
    python: str = ""
    """Its Python, such as ``3.12``; empty when nobody here knows."""
    prebuilt: bool = False
    """Whether it is one of the provider's, which calls the handler functions of ``code/inference.py``."""


def is_gpu(instance_type: str) -> bool:
    """Whether an instance has graphics processors."""
    return instance_type.removeprefix("ml.")[:1] in {"g", "p"}


def is_arm(instance_type: str) -> bool:
    """Whether an instance has Graviton processors, which run other images.

    >>> is_arm("ml.c7g.large"), is_arm("ml.g5.xlarge")
    (True, False)
    """
    return re.match(r"ml\.[a-z]+\d+g[a-z]*\.", instance_type) is not None


def choose(
    manifest: Manifest,
    *,
    region: str,
    image: str | None = None,
    gpu: bool = False,
    arm: bool = False,
    tables: Path | None = None,
) -> Image:
    """Choose the image for a bundle, before anything is sent; ``tables`` is where the tables lie when not in ``sagemaker``.

    ConfigurationError for an ``image`` that is no address, MissingDependencyError when the tables are not installed, UnsupportedError when
    no prebuilt image can serve the bundle.
    """
    if image is not None:
        return Image(_address(image))
    if arm:
        message = f"no prebuilt image is known that serves {manifest.name} {manifest.version} on Graviton instances"
        raise UnsupportedError(message, capability="serving", hint=_BUILD)
    wanted = _FRAMEWORKS.get(manifest.flavour, ())
    folder = tables or _tables()
    found = [entry for name in wanted for entry in _entries(folder, name, region, gpu=gpu)]
    fitting = [entry for entry in found if _fits(entry, manifest)]
    if not fitting:
        raise _unserved(manifest, found, region, gpu=gpu)
    best = max(fitting, key=lambda entry: _rank(entry, manifest, wanted))
    return Image(best.uri, ".".join(map(str, best.python)), prebuilt=True)


def _address(image: str) -> str:
    if not image or len(image) > _MAX_URI or re.search(r"\s", image):
        message = f"image {image!r} is not the address of an image"
        raise ConfigurationError(message, hint="give ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY:TAG")
    return image


def _tables() -> Path:
    """Find the tables without importing the package."""
    spec = importlib.util.find_spec("sagemaker")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(place) / "core" / "image_uri_config"
        if folder.is_dir():
            return folder
    message = (
        "choosing the provider's prebuilt image needs the tables of the 'sagemaker' package, which is not installed"
    )
    raise MissingDependencyError(
        message, hint="run: pip install 'modeldeploy[sagemaker]', or name an image with image="
    )


@attrs.frozen
class _Entry:
    framework: str
    version: tuple[int, ...]
    python: tuple[int, ...]
    """Empty when the table does not say."""
    uri: str


def _entries(folder: Path, framework: str, region: str, *, gpu: bool) -> Iterator[_Entry]:
    """Give every image of a framework in a region."""
    path = folder / f"{framework}.json"
    if not path.is_file():
        return
    table = _read(path).get("inference", {})
    processor = "gpu" if gpu else "cpu"
    for version, config in table.get("versions", {}).items():
        processors = config.get("processors") or table.get("processors")
        registry = config.get("registries", {}).get(region)
        if registry is None or processor not in (processors or ("cpu",)):
            continue
        for python in config.get("py_versions") or ("",):
            tag = _tag(version, config, processor if processors else "", python)
            host = f"{registry}.dkr.ecr.{region}.{_suffix(region)}"
            uri = f"{host}/{config['repository']}:{tag}"
            yield _Entry(framework, _numbers(version), _python(version) or _python(python), uri)


def _tag(version: str, config: Mapping[str, Any], processor: str, python: str) -> str:
    """Write a tag by the rules of the package's own ``image_uris``."""
    build = config.get("container_version", {}).get(processor, "")
    shown = processor if config.get("processor_in_tag", True) else ""
    return "-".join(part for part in (config.get("tag_prefix", version), shown, python, build) if part)


@functools.cache
def _read(path: Path) -> Mapping[str, Any]:
    table: Mapping[str, Any] = orjson.loads(path.read_bytes())
    return table


def _suffix(region: str) -> str:
    return next((suffix for prefix, suffix in _SUFFIXES.items() if region.startswith(prefix)), _USUAL_SUFFIX)


def _numbers(version: str) -> tuple[int, ...]:
    """Read the numbers at the start of a version: ``1.4-2-py312`` is 1.4.2."""
    return tuple(int(part) for part in re.findall(r"\d+", re.sub(r"-py\d+.*", "", version)))


def _python(text: str) -> tuple[int, ...]:
    found = _PYTHON.search(text)
    return (3, int(found[1])) if found else ()


def _fits(entry: _Entry, manifest: Manifest) -> bool:
    if entry.python < LEAST_PYTHON:
        return False
    return not manifest.pickled or entry.python == _numbers(manifest.python)[:2]


def _rank(entry: _Entry, manifest: Manifest, wanted: tuple[str, ...]) -> tuple[Any, ...]:
    """Rank an image: the flavour's own framework, the version that the model needs, the same Python, the newest."""
    needed = _needed(manifest, entry.framework)
    same = entry.version[: len(needed)] == needed[: len(entry.version)] if needed else False
    return (
        -wanted.index(entry.framework),
        same,
        entry.version[:2] == needed[:2],
        entry.python == _numbers(manifest.python)[:2],
        entry.version,
        entry.python,
    )


def _needed(manifest: Manifest, framework: str) -> tuple[int, ...]:
    pinned = f"{_DISTRIBUTIONS[framework]}=="
    text = next((each for each in manifest.requirements if each.startswith(pinned)), "")
    return _numbers(text.removeprefix(pinned))


def _unserved(manifest: Manifest, found: list[_Entry], region: str, *, gpu: bool) -> UnsupportedError:
    needs = (
        f"Python {'.'.join(manifest.python.split('.')[:2])}, in which its pickle was made"
        if manifest.pickled
        else "Python 3.11 or newer"
    )
    if manifest.flavour not in _FRAMEWORKS:
        why = f"there is none for flavour {manifest.flavour!r}"
    elif not found:
        why = f"there is none in region {region!r}" + (" for GPUs" if gpu else "")
    else:
        known = sorted({".".join(map(str, entry.python)) or "unknown" for entry in found})
        why = f"it needs {needs}, and the images have Python {', '.join(known)}"
    message = f"no prebuilt image serves {manifest.name} {manifest.version}: {why}"
    return UnsupportedError(message, capability="serving", hint=_BUILD)
