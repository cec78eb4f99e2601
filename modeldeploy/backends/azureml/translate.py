"""Values of ours to entities of the SDK and back."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from modeldeploy.backends.azureml import hardware, names
from modeldeploy.backends.azureml.described import Deployment, Seen
from modeldeploy.backends.azureml.entry import SCRIPT, Environment
from modeldeploy.backends.azureml.options import AzureMLEndpointOptions, AzureMLOptions
from modeldeploy.backends.cloud.naming import digest, spec
from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.serving import EndpointSpec, EndpointState, Revision, RevisionState, Traffic

DEFAULT_INSTANCE = "Standard_DS3_v2"
MOST_RECORD_CHARS = 32_000
"""A revision travels in an environment variable of its deployment; a Linux process takes 131,071 characters in one."""
_PERIOD_S = 10


@attrs.frozen
class Defaults:
    """What a backend puts into every request."""

    instance_type: str = DEFAULT_INSTANCE
    auth_mode: str = "key"
    image: str = ""
    tags: Mapping[str, str] = attrs.field(factory=dict[str, str])


# Records


def record(revision: Revision) -> str:
    """Write a revision down for an environment variable; ConfigurationError when it is too long."""
    text = json.dumps(to_json(revision), sort_keys=True, separators=(",", ":"))
    packed = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    if len(packed) > MOST_RECORD_CHARS:
        message = f"the signature of {revision.model} takes {len(packed)} characters, and {MOST_RECORD_CHARS} are sent"
        raise ConfigurationError(message, hint="give the model fewer columns, or one vector column")
    return packed


def revision(deployment: Deployment) -> Revision:
    """Read what a deployment serves; IntegrityError when its record is not the one that was written."""
    try:
        document = json.loads(zlib.decompress(base64.b64decode(deployment.variables[names.ENV_RECORD])))
    except (KeyError, ValueError, zlib.error) as error:
        raise _damaged(deployment) from error
    if digest(document) != deployment.spec:
        raise _damaged(deployment)
    return from_json(Revision, document)


def _damaged(deployment: Deployment) -> IntegrityError:
    message = f"the record of deployment {deployment.name!r} was changed or taken away"
    return IntegrityError(message, hint="delete the deployment, or deploy the model again under another endpoint name")


# To the SDK


def model(revision: Revision, defaults: Defaults) -> Any:
    """Make the model asset of a revision."""
    from azure.ai.ml.constants import AssetTypes
    from azure.ai.ml.entities import Model

    asked = revision.model
    return Model(
        name=asked.name,
        version=names.model_version(asked),
        path=str(Path(asked.uri)),
        type=AssetTypes.CUSTOM_MODEL,
        description=f"{asked} ({asked.flavour})",
        tags={**defaults.tags, names.TAG_DIGEST: asked.digest},
    )


def environment(made: Environment, defaults: Defaults) -> Any:
    """Make the environment asset."""
    from azure.ai.ml.entities import Environment as Entity

    extra: dict[str, Any] = (
        {"conda_file": dict(made.conda)} if made.conda else {"inference_config": dict(made.routes or {})}
    )
    return Entity(name=names.ENVIRONMENT, version=made.version, image=made.image, tags=dict(defaults.tags), **extra)


def endpoint(asked: EndpointSpec, defaults: Defaults) -> Any:
    """Make the endpoint."""
    from azure.ai.ml.entities import ManagedOnlineEndpoint

    options = AzureMLEndpointOptions.read(asked.options, "endpoint")
    return ManagedOnlineEndpoint(
        name=asked.name,
        auth_mode=options.auth_mode or defaults.auth_mode,
        public_network_access="enabled" if options.public_network_access else "disabled",
        tags=tags(asked.name, defaults),
    )


def deployment(
    name: str, asked: Revision, made: Environment, *, code: Path | None, extra: Mapping[str, str], defaults: Defaults
) -> Any:
    """Make the deployment of a revision; ``code`` is where the generated script lies, None for a container of one's own."""
    from azure.ai.ml.entities import CodeConfiguration, ManagedOnlineDeployment, OnlineRequestSettings

    options = AzureMLOptions.read(asked.options, "revision")
    requests = OnlineRequestSettings(
        request_timeout_ms=options.request_timeout_s * 1000,
        max_concurrent_requests_per_instance=options.concurrency,
    )
    return ManagedOnlineDeployment(
        name=asked.id,
        endpoint_name=name,
        model=names.reference(asked.model.name, names.model_version(asked.model)),
        environment=made.reference,
        code_configuration=CodeConfiguration(code=str(code), scoring_script=SCRIPT) if code else None,
        instance_type=instance_type(asked, defaults),
        instance_count=asked.scale.workers,
        environment_variables={**variables(name, asked), **extra},
        request_settings=requests,
        liveness_probe=_probe(options.startup_s),
        readiness_probe=_probe(options.startup_s),
        app_insights_enabled=options.app_insights,
        tags=tags(name, defaults, asked),
    )


def _probe(startup_s: int) -> Any:
    """Make a probe that allows for so long a start: loading a model takes minutes, and thirty failures in a row restart the container."""
    from azure.ai.ml.entities import ProbeSettings

    return ProbeSettings(
        initial_delay=_PERIOD_S,
        period=_PERIOD_S,
        timeout=_PERIOD_S - 1,
        success_threshold=1,
        failure_threshold=max(3, startup_s // _PERIOD_S),
    )


def variables(name: str, asked: Revision) -> dict[str, str]:
    """Give the environment variables of a deployment: what it is, and how many requests it works on at a time."""
    concurrency = AzureMLOptions.read(asked.options, "revision").concurrency
    return {
        names.ENV_ENDPOINT: name,
        names.ENV_REVISION: asked.id,
        names.ENV_RECORD: record(asked),
        "WORKER_COUNT": str(concurrency),
    }


def instance_type(asked: Revision, defaults: Defaults) -> str:
    """Choose the size: the one that is named, the one that the hardware needs, or the backend's."""
    named = AzureMLOptions.read(asked.options, "revision").instance_type
    return named or hardware.choose(asked.hardware, defaults.instance_type)


def tags(name: str, defaults: Defaults, asked: Revision | None = None) -> dict[str, str]:
    """Give the tags of what is made for an endpoint, or for one revision of it."""
    found = {**defaults.tags, names.TAG_ENDPOINT: name}
    if asked is not None:
        found |= {names.TAG_REVISION: asked.id, names.TAG_SPEC: spec(asked)}
    return found


def written(entity: Any, table: Traffic, seen: Seen) -> Any:
    """Give the endpoint as it was read, with another table: it is always written whole."""
    entity.traffic = dict(table.live)
    entity.mirror_traffic = dict(table.copies)
    before = json.dumps(seen.traffic.live, sort_keys=True, separators=(",", ":"))
    told = {names.TAG_BEFORE: before} if len(before) <= names.MOST_TAG_CHARS else {}
    kept = {key: value for key, value in (entity.tags or {}).items() if key != names.TAG_BEFORE}
    entity.tags = {**kept, names.TAG_SERIAL: str(seen.serial + 1), **told}
    return entity


# From the service


def state(seen: Seen, revisions: Mapping[str, Revision]) -> EndpointState:
    """Show an endpoint as any provider is shown; ``revisions`` are those that could be read, by id."""
    return EndpointState(
        name=seen.name,
        url=seen.uri.removesuffix("/score"),
        revisions=tuple(_revision_state(seen, each, revisions[each.name]) for each in seen.deployments),
        traffic=seen.traffic,
        version=seen.version,
        settled=seen.settled,
    )


def _revision_state(seen: Seen, found: Deployment, served: Revision) -> RevisionState:
    # A deployment that is being changed answers as it did before; one that is being made does not answer yet.
    ready = found.state is found.state.SUCCEEDED or (seen.traffic.share(found.name) > 0 and not found.state.broken)
    return RevisionState(served, ready=ready, note="" if ready else f"the deployment is {found.state.value}")
