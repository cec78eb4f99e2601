"""What is installed, configured and authorised for each cloud, and what is missing, with the command for it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping

import attrs

from modeldeploy import registry
from modeldeploy.config import Settings
from modeldeploy.errors import ModelDeployError


@attrs.frozen
class Cloud:
    """A cloud: what it needs installed, what must be said, and how one logs in."""

    packages: tuple[str, ...]
    needed: tuple[str, ...]
    """Settings without which nothing can be deployed."""
    login: str


CLOUDS = {
    "sagemaker": Cloud(("boto3", "sagemaker"), ("role",), "aws configure sso && aws sso login"),
    "azureml": Cloud(("azure-ai-ml", "azure-identity"), ("subscription_id", "resource_group", "workspace"), "az login"),
    "vertex": Cloud(
        ("google-cloud-aiplatform", "google-cloud-storage"),
        ("project", "location", "bucket"),
        "gcloud auth application-default login",
    ),
}
_YES = frozenset({"true", "yes", "1", "on"})


@attrs.frozen
class Finding:
    """One line: about which cloud, what was looked at, how it is, and what to do about it."""

    cloud: str
    what: str
    state: str
    remedy: str = ""

    def __str__(self) -> str:
        told = f"{self.cloud} {self.what}: {self.state}"
        return f"{told}; run: {self.remedy}" if self.remedy else told


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at each cloud in turn; asks only those over the network that are installed and configured, and changes nothing there."""
    for name, cloud in CLOUDS.items():
        missing = [each for each in cloud.packages if not _installed(each)]
        yield _packages(name, cloud, missing)
        given = settings.of_backend(name)
        absent = [each for each in cloud.needed if not given.get(each)]
        rehearsed = given.get("rehearsal", "").lower() in _YES
        yield _configured(name, given, absent, rehearsed=rehearsed)
        if not missing and given and not rehearsed:
            yield _authorised(name, cloud, settings)


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _packages(name: str, cloud: Cloud, missing: list[str]) -> Finding:
    if missing:
        return Finding(name, "installed", f"no, {', '.join(missing)} missing", f"pip install 'modeldeploy[{name}]'")
    return Finding(name, "installed", ", ".join(f"{each} {_installed(each)}" for each in cloud.packages))


def _configured(name: str, given: Mapping[str, str], absent: list[str], *, rehearsed: bool) -> Finding:
    if rehearsed:
        return Finding(name, "configured", "for its rehearsal on this machine")
    if not absent:
        return Finding(name, "configured", ", ".join(f"{key}={given[key]}" for key in CLOUDS[name].needed))
    # Other sources, such as the workspace's config.json, are told by the look at the service itself.
    exports = " ".join(f"MODELDEPLOY_{name.upper()}_{each.upper()}=..." for each in absent)
    what = "not at all" if not given else f"{', '.join(absent)} missing"
    return Finding(name, "configured", what, f"export {exports}")


def _authorised(name: str, cloud: Cloud, settings: Settings) -> Finding:
    try:
        backend = registry.create(name, settings)
        try:
            identity = backend.check()
        finally:
            backend.close()
    except ModelDeployError as error:
        login = cloud.login if type(error).__name__ == "CredentialsError" else ""
        hint = f" ({error.hint})" if error.hint and not login else ""
        return Finding(name, "authorised", f"no, {error.message}{hint}", login)
    return Finding(name, "authorised", f"yes, {identity.account} at {identity.place}")
