"""The libraries of a device: resolved here for its architecture, installed there without a network.

``python -m modeldeploy.edge.wheels --architecture aarch64 --to DIR`` fetches what the agent needs, with exact versions, and this very
version of modeldeploy; ``--site DIR`` unpacks it, pruned, into a directory for ``PYTHONPATH``.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NoReturn

from modeldeploy.errors import ConfigurationError, IntegrityError, ModelDeployError, UnavailableError, UnsupportedError

RUNTIME = ("attrs", "cffi", "cryptography", "httptools", "numpy", "onnxruntime", "orjson")
"""What the agent and its model server import; nothing that these ask for beside it is needed to predict."""

_NAMED = {12: "manylinux2010", 17: "manylinux2014"}
ARCHITECTURES = ("x86_64", "aarch64", "armv7l")
_NEWEST_GLIBC = 28
_TIMEOUT_S = 600
_MISSING = re.compile(r"No matching distribution found for (\S+)")
_EPOCH = (1980, 1, 1, 0, 0, 0)
# Not needed to predict: half of numpy and a third of onnxruntime.
_PRUNED = re.compile(
    r"(^|/)(tests?|testing|__pycache__|f2py|distutils)/|\.(pyi|h|hpp|pxd|pyx|c|lib|a)$"
    r"|^onnxruntime/(tools|transformers|quantization|datasets|backend)/|^numpy/(_core/include|doc)/"
)
# numpy imports its own testing and f2py lazily, but onnxruntime and others may reach for these.
_KEPT = re.compile(r"^numpy/(testing|_utils|f2py/__init__)")


def pins(extra: Iterable[str] = ()) -> tuple[str, ...]:
    """Pin the runtime to the versions that are installed here; ``extra`` requirements, such as a bundle's, win over them."""
    given = {text.partition("==")[0].strip().lower(): text for text in extra}
    own = {name: f"{name}=={_installed(name)}" for name in RUNTIME if name not in given}
    return tuple(sorted({**own, **given}.values()))


def resolve(
    requirements: Collection[str], *, architecture: str, to: Path, python: str = "3.11", glibc: int = _NEWEST_GLIBC
) -> tuple[Path, ...]:
    """Download a wheel for each requirement, for another machine than this one, and build our own; gives their paths.

    Uses pip and its settings; safe to repeat. UnsupportedError names the distribution that has no wheel for this architecture, Python and
    glibc (``28`` is 2.28, Debian 10 and later); UnavailableError when the package index cannot be reached.
    """
    _check(requirements, architecture, python)
    to = Path(to)
    to.mkdir(parents=True, exist_ok=True)
    device = _flags(architecture, python, glibc)
    failed = _download(requirements, device, to)
    if _MISSING.search(failed):
        # pip stops at the first one; whoever plans a device wants to know all.
        lacking = [text for text in sorted(requirements) if _MISSING.search(_download([text], device, to))]
        _refuse_lacking(lacking or sorted(requirements), architecture, python)
    if failed:
        message = f"the wheels for {architecture} could not be fetched: {failed.splitlines()[-1][:300]}"
        raise UnavailableError(message, hint="look at pip's settings, and try again")
    own_wheel(to)
    return tuple(sorted(to.glob("*.whl")))


def install(wheels: Collection[Path], site: Path) -> Path:
    """Unpack wheels into a directory for ``PYTHONPATH``, without what predictions do not need; nothing in them is run."""
    site = Path(site)
    for wheel in wheels:
        try:
            with zipfile.ZipFile(wheel) as archive:
                for name, target in _wanted(archive.namelist()):
                    _extract(archive, name, site / target)
        except (zipfile.BadZipFile, OSError) as error:
            message = f"wheel {Path(wheel).name!r} cannot be unpacked: {error}"
            raise IntegrityError(message, hint="fetch it again") from error
    return site


def own_wheel(to: Path) -> Path:
    """Write the wheel of the modeldeploy that runs here, the same bytes each time; whether it was installed or lies in a source tree."""
    import modeldeploy

    version = modeldeploy.__version__
    root = Path(modeldeploy.__file__).parent
    files = {path.relative_to(root.parent).as_posix(): path.read_bytes() for path in _sources(root)}
    info = f"modeldeploy-{version}.dist-info"
    files[f"{info}/METADATA"] = _metadata(version)
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: modeldeploy\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    path = Path(to) / f"modeldeploy-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name], zipfile.ZIP_DEFLATED)
    return path


# Resolving


def _check(requirements: Collection[str], architecture: str, python: str) -> None:
    if architecture not in ARCHITECTURES:
        message = f"architecture {architecture!r} is not known"
        raise ConfigurationError(message, hint=f"use what `uname -m` says on the device: one of {list(ARCHITECTURES)}")
    if re.fullmatch(r"3\.\d+", python) is None:
        message = f"python is {python!r}"
        raise ConfigurationError(message, hint="use the device's version, such as '3.11'")
    loose = [text for text in requirements if "==" not in text or text.startswith("-")]
    if loose:
        message = f"requirements {loose} are not exact"
        raise ConfigurationError(message, hint="a device gets exactly what was tested: name==version")


def _platforms(architecture: str, glibc: int) -> Iterator[str]:
    for minor in range(glibc, 4, -1):
        yield f"manylinux_2_{minor}_{architecture}"
        if minor in _NAMED:
            yield f"{_NAMED[minor]}_{architecture}"


def _flags(architecture: str, python: str, glibc: int) -> list[str]:
    abis = [f"--abi={abi}" for abi in (f"cp{python.replace('.', '')}", "abi3", "none")]
    platforms = [f"--platform={tag}" for tag in _platforms(architecture, glibc)]
    return ["--only-binary=:all:", "--no-deps", "--implementation=cp", f"--python-version={python}", *abis, *platforms]


def _download(requirements: Collection[str], flags: Sequence[str], to: Path) -> str:
    """Ask pip for wheels; gives what it said when it failed, or nothing."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", f"--dest={to}"]
    try:
        done = subprocess.run(
            [*command, *flags, *requirements], capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        message = f"the package index did not answer within {_TIMEOUT_S} s"
        raise UnavailableError(message, hint="look at pip's settings, and try again") from error
    return (done.stderr.strip() or "pip said nothing") if done.returncode else ""


def _refuse_lacking(lacking: Sequence[str], architecture: str, python: str) -> NoReturn:
    have = "has" if len(lacking) == 1 else "have"
    message = f"{', '.join(lacking)} {have} no wheel for {architecture} and Python {python}"
    hint = "choose a version that has one"
    if architecture == "armv7l":
        hint = "use a 64-bit system on the device: onnxruntime publishes nothing for 32-bit ARM"
    raise UnsupportedError(message, capability="wheels", hint=hint)


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError as error:
        message = f"{name!r} is not installed here, so there is no version to pin"
        raise ConfigurationError(message, hint="run: pip install 'modeldeploy[edge]'") from error


# Installing


def _wanted(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Name what is kept of a wheel, and where it goes."""
    for name in names:
        if name.endswith("/") or (_PRUNED.search(name) and not _KEPT.search(name)):
            continue
        first, _, rest = name.partition("/")
        if first.endswith(".data"):
            kind, _, rest = rest.partition("/")
            if kind in {"purelib", "platlib"}:
                yield name, rest
        elif not first.endswith(".dist-info") or rest == "METADATA" or "LICENSE" in rest.upper():
            yield name, name


def _extract(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    if ".." in PurePosixPath(name).parts or name.startswith("/"):
        message = f"{name!r} leaves the directory that it is unpacked into"
        raise IntegrityError(message, hint="it is no wheel, or a hostile one")
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(name) as source, target.open("wb") as stream:
        shutil.copyfileobj(source, stream)


# Our own


def _sources(root: Path) -> list[Path]:
    found = [path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return sorted(path for path in found if path.suffix != ".pyc")


def _metadata(version: str) -> bytes:
    return f"Metadata-Version: 2.1\nName: modeldeploy\nVersion: {version}\nRequires-Python: >=3.11\n".encode()


def _record(files: dict[str, bytes], own: str) -> bytes:
    lines = []
    for name, data in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}\n")
    return "".join([*lines, f"{own},,\n"]).encode()


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch the runtime of a device; 1 with the reason on standard error when that cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m modeldeploy.edge.wheels", description=__doc__)
    parser.add_argument("--architecture", choices=ARCHITECTURES, required=True)
    parser.add_argument("--python", default="3.11", help="the device's version")
    parser.add_argument("--to", type=Path, required=True, help="where the wheels go")
    parser.add_argument("--site", type=Path, help="unpack them there, pruned")
    parser.add_argument("--with", action="append", default=[], dest="extra", metavar="NAME==VERSION")
    asked = parser.parse_args(arguments)
    try:
        wheels = resolve(pins(asked.extra), architecture=asked.architecture, to=asked.to, python=asked.python)
        if asked.site is not None:
            install(wheels, asked.site)
    except ModelDeployError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    size = sum(path.stat().st_size for path in wheels)
    sys.stdout.write(f"{len(wheels)} wheels, {size / 1e6:.0f} MB, in {asked.to}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
