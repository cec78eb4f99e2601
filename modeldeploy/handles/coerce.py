"""What a user may give where a model is wanted: a Model, an estimator, a path, a URI."""

from __future__ import annotations

from pathlib import Path

from modeldeploy.errors import ConfigurationError
from modeldeploy.handles.model import Model

_SCHEME = "models:/"


def as_model(given: object, *, name: str | None, version: str, example: object, home: Path | str | None) -> Model:
    """Make the Model of what was given; ConfigurationError says what is missing.

    A Model is taken as it is, ``models:/name/version`` and ``models:/name@alias`` come from the store, other strings and paths from a file
    or directory, and anything else is packaged as an estimator, for which ``name`` and ``example`` are needed.
    """
    if isinstance(given, Model):
        return given
    if isinstance(given, str) and given.startswith(_SCHEME):
        return _from_store(given, home)
    if isinstance(given, str | Path) and example is None:
        # Without an example it can only be a bundle, which brings its name and version.
        return Model.from_path(given, home=home)
    if isinstance(given, str | Path):
        return Model.from_path(given, name=name, version=version, example=example, home=home)
    if name is None or example is None:
        missing = " and ".join(word for word, value in (("name", name), ("example", example)) if value is None)
        message = f"a {type(given).__name__} needs {missing} to be packaged"
        hint = "pass example=X.head() (a few rows of input) and name=, or make a Model(estimator, name=, version=, example=)"
        raise ConfigurationError(message, hint=hint)
    return Model(given, name=name, version=version, example=example, home=home)


def _from_store(uri: str, home: Path | str | None) -> Model:
    rest = uri.removeprefix(_SCHEME)
    name, _, version = rest.partition("@") if "@" in rest else rest.partition("/")
    if not (name and version):
        message = f"model URI {uri!r} names no version"
        raise ConfigurationError(message, hint="write models:/name/version or models:/name@alias")
    return Model.get(name, version, home=home)
