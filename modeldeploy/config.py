"""Settings: argument, then environment, then file; never secrets.

The file is TOML: ``modeldeploy.toml`` in the user's configuration directory, or the one that ``MODELDEPLOY_CONFIG`` names::

    backend = "local"
    [backends.sagemaker]
    region = "eu-west-1"

In the environment: ``MODELDEPLOY_HOME``, ``MODELDEPLOY_BACKEND`` and ``MODELDEPLOY_<BACKEND>_<SETTING>``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from modeldeploy.errors import ConfigurationError

DEFAULT_BACKEND = "local"
_PREFIX = "MODELDEPLOY_"
_FILE_KEYS = frozenset({"home", "backend", "backends"})
_SECRETS = ("api_key", "access_key", "password", "secret", "token")


class Settings(NamedTuple):  # no attrs class: who runs a batch job looks here before anything else is imported
    """What was configured: the state directory, the default backend, and each backend's own settings."""

    home: Path
    backend: str
    backends: Mapping[str, Mapping[str, str]]
    environ: Mapping[str, str]

    def __repr__(self) -> str:
        # Not the environment, which may hold secrets.
        return f"Settings(home={self.home!r}, backend={self.backend!r}, backends={self.backends!r})"

    def of_backend(self, name: str) -> dict[str, str]:
        """Collect the settings of one backend; the environment wins over the file."""
        prefix = f"{_PREFIX}{name.upper().replace('-', '_')}_"
        from_environ = {
            key[len(prefix) :].lower(): value for key, value in self.environ.items() if key.startswith(prefix)
        }
        return {**self.backends.get(name, {}), **from_environ}


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the environment and the configuration file; ConfigurationError names the file and the part that is wrong."""
    environ = os.environ if environ is None else environ
    document = _read(_path(environ))
    home = environ.get(f"{_PREFIX}HOME") or document.get("home") or _default_home()
    return Settings(
        home=Path(home).expanduser().absolute(),
        backend=environ.get(f"{_PREFIX}BACKEND") or document.get("backend") or DEFAULT_BACKEND,
        backends={
            name: {key: str(value) for key, value in table.items()}
            for name, table in document.get("backends", {}).items()
        },
        environ=dict(environ),
    )


def at(settings: Settings, home: Path) -> Settings:
    """Give the same settings with another state directory."""
    return settings._replace(home=home)


def _path(environ: Mapping[str, str]) -> Path:
    named = environ.get(f"{_PREFIX}CONFIG")
    if named:
        if not Path(named).is_file():
            message = f"MODELDEPLOY_CONFIG names {named!r}, which is not a file"
            raise ConfigurationError(message, hint="correct the variable or unset it")
        return Path(named)
    import platformdirs

    return platformdirs.user_config_path("modeldeploy") / "modeldeploy.toml"


def _default_home() -> Path:
    import platformdirs

    return platformdirs.user_data_path("modeldeploy")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    import tomllib

    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"configuration file {str(path)!r} cannot be read: {error}"
        raise ConfigurationError(message, hint="it must be TOML") from error
    unknown = sorted(set(document) - _FILE_KEYS)
    if unknown:
        message = f"configuration file {str(path)!r} has unknown keys {unknown}"
        raise ConfigurationError(message, hint=f"known keys are {sorted(_FILE_KEYS)}")
    for key in ("home", "backend"):
        if not isinstance(document.get(key, ""), str):
            message = f"{key!r} in {str(path)!r} is {document[key]!r}"
            raise ConfigurationError(message, hint="write it as a string in quotes")
    backends = document.get("backends", {})
    if not isinstance(backends, dict) or not all(isinstance(table, dict) for table in backends.values()):
        message = f"'backends' in {str(path)!r} is not a table of tables"
        raise ConfigurationError(message, hint="write [backends.NAME] sections")
    for name, table in backends.items():
        _refuse_secrets(path, name, table)
    return document


def _refuse_secrets(path: Path, backend: str, table: Mapping[str, Any]) -> None:
    for key in table:
        if key.lower().endswith(_SECRETS):
            message = f"{key!r} of backend {backend!r} stands in {str(path)!r}, where secrets do not belong"
            variable = f"{_PREFIX}{backend}_{key}".upper().replace("-", "_")
            raise ConfigurationError(message, hint=f"take it out, replace it, and set {variable}")
