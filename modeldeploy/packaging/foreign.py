"""Model files that other tools wrote, read without running what is in them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from pathlib import Path

import attrs

from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.packaging.flavours.table import Saved

MAX_BYTES = 16 * 1024**3


@attrs.frozen(eq=False)
class Foreign:
    """A model file in terms of ours: its flavour, the method to call, and the files as the flavour reads them."""

    flavour: str
    method: str
    saved: Saved


def read(path: Path, *, method: str | None, trust: Collection[str]) -> Foreign:
    """Read a model file; ConfigurationError names what is accepted.

    A pickle is taken only when ``trust`` holds its digest; it is never opened here.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        message = f"{str(path)!r} is not a model file that can be taken as it is"
        raise ConfigurationError(message, hint=_REMEDIES.get(path.suffix.lower(), _ACCEPTED))
    return reader(path, method, trust)


def read_bytes(path: Path) -> bytes:
    """Read a model file whole; ConfigurationError when it is absent or larger than any model we take."""
    if not path.is_file():
        message = f"{str(path)!r} does not exist"
        raise ConfigurationError(message, hint="pass the path of a model file or of a bundle")
    if path.stat().st_size > MAX_BYTES:
        message = f"{str(path)!r} is larger than {MAX_BYTES} bytes"
        raise ConfigurationError(message, hint="split the model, or serve it from a function that reads it in parts")
    return path.read_bytes()


def vouched(data: bytes, path: Path, trust: Collection[str], why: str) -> bytes:
    """Return ``data`` when its digest is trusted, else raise IntegrityError that names the digest."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if digest not in trust:
        message = f"{str(path)!r} {why}, and nobody here vouched for it"
        raise IntegrityError(message, hint=f"if you know where it comes from, pass trust={digest!r}")
    return data


def onnx(path: Path, method: str | None, _trust: Collection[str]) -> Foreign:
    """Read an ONNX file."""
    from modeldeploy.packaging.flavours import onnx as flavour

    data = read_bytes(path)
    return Foreign("onnx", flavour.check_method(data, method), flavour.save(data, method="run"))


def xgboost(path: Path, method: str | None, _trust: Collection[str]) -> Foreign:
    """Read what XGBoost's ``save_model`` wrote, by a Booster or a scikit-learn class."""
    from modeldeploy.packaging.flavours import xgboost as flavour

    data = read_bytes(path)
    model = flavour.read(data, flavour.kind_of(data))
    called = flavour.check_method(model, method)
    return Foreign("xgboost", called, flavour.save(model, method=called))


def lightgbm(path: Path, method: str | None, _trust: Collection[str]) -> Foreign:
    """Read what LightGBM's ``save_model`` wrote."""
    from modeldeploy.packaging.flavours import lightgbm as flavour

    model = flavour.read(read_bytes(path))
    called = flavour.check_method(model, method)
    return Foreign("lightgbm", called, flavour.save(model, method=called))


def skops(path: Path, method: str | None, trust: Collection[str]) -> Foreign:
    """Read a skops file; one with types beyond scikit-learn's needs trust."""
    from modeldeploy.packaging.flavours import skops as format_

    data = read_bytes(path)
    types = format_.untrusted(data)
    odd = [name for name in types if not format_.is_safe(name)]
    if odd:
        vouched(data, path, trust, f"holds the types {odd[:5]}")
    modules = frozenset({"sklearn", "skops", *(name.partition(".")[0] for name in types)})
    saved = Saved({"model.skops": data}, {"format": "skops"}, pickled=False, modules=modules, trusted=bool(odd))
    return Foreign("sklearn", method or "predict", saved)


def pickle(path: Path, method: str | None, trust: Collection[str]) -> Foreign:
    """Take a pickle that the caller vouches for; it is opened in a process of its own."""
    from modeldeploy.packaging.flavours import pickles

    data = vouched(read_bytes(path), path, trust, "is a pickle, which runs code when it is loaded")
    called = method or "predict"
    joblib = path.suffix.lower() == ".joblib"
    modules = frozenset({"sklearn", "joblib"}) if joblib else pickles.modules_in(data)
    saved = Saved({"model.pkl": data}, {"format": "joblib" if joblib else "pickle"}, pickled=True, modules=modules)
    return Foreign("function", called, saved)


_READERS: dict[str, Callable[[Path, str | None, Collection[str]], Foreign]] = {
    ".joblib": pickle,
    ".json": xgboost,
    ".onnx": onnx,
    ".pickle": pickle,
    ".pkl": pickle,
    ".skops": skops,
    ".txt": lightgbm,
    ".ubj": xgboost,
}
_ACCEPTED = (
    "pass a bundle (directory or .tar.gz), an MLflow model directory, or a file ending in .onnx, .ubj or .json (XGBoost), "
    ".txt (LightGBM), .skops, .pkl or .joblib"
)
_REMEDIES = {
    ".py": "import the function or object from it and pass that to Model(...)",
    ".pt": "load the module with torch and pass it to Model(...)",
    ".pth": "load the module with torch and pass it to Model(...)",
    ".pt2": "load the program with torch and pass its module to Model(...), or export the model to ONNX",
    ".safetensors": "it holds only tensors; build the module, load them and pass it to Model(...)",
}
