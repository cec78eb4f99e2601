"""What a user may give, made into values: a Model, an estimator, a path or a URI, and the rest of what a deployment asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from modeldeploy.errors import ConfigurationError
from modeldeploy.handles.model import Model
from modeldeploy.handles.session import Session
from modeldeploy.spi import Backend
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.serving import EndpointSpec, Hardware, Revision, Scale
from modeldeploy.values.tolerance import Tolerance, ToleranceLike

if TYPE_CHECKING:
    from modeldeploy.engine.rollout import RolloutCursor
    from modeldeploy.handles.snapshot import Snapshot

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


def asked(
    model: object,
    name: str | None,
    backend: str | Backend | Session | None,
    home: Path | str | None,
    *,
    version: str,
    example: object,
) -> tuple[Session, str, Revision]:
    """Find the session, the endpoint's name (the model's own unless given) and the revision in its plainest shape."""
    made = as_model(model, name=name, version=version, example=example, home=home)
    return Session.of(backend, home=home), EndpointSpec(name or made.name).name, Revision.of(made.identity)


def shaped(
    plain: Revision,
    like: Revision | None = None,
    *,
    workers: int | None,
    hardware: Hardware | None,
    options: Mapping[str, str] | None,
) -> Revision:
    """Make the revision of the same model in the shape that was asked for; what was not is as it is in ``like``."""
    like = like or plain
    return Revision.of(
        plain.model,
        scale=like.scale if workers is None else Scale(workers),
        hardware=hardware or like.hardware,
        options=like.options if options is None else options,
    )


def begun(
    snapshot: Snapshot, revision: Revision, policy: object, *, keep: object, golden: ToleranceLike
) -> RolloutCursor:
    """Make the cursor of a rollout; refuses what a notebook, which no type checker reads, gives most often."""
    policy = RolloutPolicy.all_at_once() if policy is None else policy
    if not isinstance(policy, RolloutPolicy):
        message = f"policy is {policy!r}"
        raise ConfigurationError(message, hint="make one, for example RolloutPolicy.canary((5, 50), soak=60)")
    if isinstance(keep, bool) or not isinstance(keep, int) or keep < 0:
        message = f"keep is {keep!r}"
        raise ConfigurationError(message, hint="use a whole number of earlier revisions, 0 or more")
    return snapshot.cursor(revision, policy, keep=keep, golden=golden is not False, tolerance=Tolerance.of(golden))
