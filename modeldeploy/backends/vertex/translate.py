"""Values of ours to messages of the API and back."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any

import attrs

from modeldeploy.backends.cloud.naming import digest, spec
from modeldeploy.backends.vertex import hardware, names
from modeldeploy.backends.vertex.client import types
from modeldeploy.backends.vertex.described import Seen
from modeldeploy.backends.vertex.entry import HEALTH, PORT, PREDICT, Container
from modeldeploy.backends.vertex.hardware import Machine
from modeldeploy.backends.vertex.options import VertexEndpointOptions, VertexOptions
from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.serving import EndpointSpec, EndpointState, Revision, RevisionState

DEFAULT_MACHINE = "n1-standard-2"
MOST_RECORD_CHARS = 32_000
"""A revision travels in an environment variable of its version; a Linux process takes 131,071 characters in one."""
_PERIOD_S = 10


@attrs.frozen
class Defaults:
    """What a backend puts into every request."""

    machine_type: str = DEFAULT_MACHINE
    accelerator: str = ""
    image: str = ""
    base_image: str = ""
    service_account: str = ""
    spot: bool = False
    labels: Mapping[str, str] = attrs.field(factory=dict[str, str])


# Records


def record(revision: Revision) -> str:
    """Write a revision down for an environment variable; ConfigurationError when it is too long."""
    text = json.dumps(to_json(revision), sort_keys=True, separators=(",", ":"))
    packed = base64.b64encode(zlib.compress(text.encode(), 9)).decode()
    if len(packed) > MOST_RECORD_CHARS:
        message = f"the signature of {revision.model} takes {len(packed)} characters, and {MOST_RECORD_CHARS} are sent"
        raise ConfigurationError(message, hint="give the model fewer columns, or one vector column")
    return packed


def revision(model: Any) -> Revision | None:
    """Read what a version of a model was registered for; None when it is none of ours, IntegrityError when its record was changed."""
    known = dict(model.labels).get(names.LABEL_SPEC)
    if not known:
        return None
    variables = {each.name: each.value for each in model.container_spec.env}
    try:
        document = json.loads(zlib.decompress(base64.b64decode(variables[names.ENV_RECORD])))
    except (KeyError, ValueError, zlib.error) as error:
        raise _damaged(model) from error
    if names.label(digest(document)) != known:
        raise _damaged(model)
    return from_json(Revision, document)


def _damaged(model: Any) -> IntegrityError:
    message = f"the record of {model.name!r}, version {model.version_id!r}, was changed or taken away"
    return IntegrityError(message, hint="delete the version, and deploy the model again under another endpoint name")


# To the service


def model(asked: Revision, container: Container, artifacts: str, extra: Mapping[str, str], defaults: Defaults) -> Any:
    """Make the version of the model that a revision runs: its files, its container, and what the revision is."""
    version = asked.model
    labels = {
        **defaults.labels,
        names.LABEL_MODEL: version.name,
        names.LABEL_REVISION: asked.id,
        names.LABEL_SPEC: names.label(spec(asked)),
    }
    variables = {names.ENV_REVISION: asked.id, names.ENV_RECORD: record(asked), **extra}
    return types().Model(
        display_name=version.name,
        version_aliases=[asked.id],
        version_description=f"{version.name} {version.version} {version.digest}",
        artifact_uri=artifacts,
        container_spec=container_spec(container, variables, startup_s=_options(asked).startup_s),
        labels=labels,
    )


def container_spec(container: Container, variables: Mapping[str, str], *, startup_s: int) -> Any:
    """Say what is started, where it answers, and how long it may take to start."""
    made = types()
    probe = made.Probe(
        http_get=made.Probe.HttpGetAction(path=HEALTH, port=PORT),
        period_seconds=_PERIOD_S,
        timeout_seconds=_PERIOD_S - 1,
        failure_threshold=max(3, startup_s // _PERIOD_S),
    )
    return made.ModelContainerSpec(
        image_uri=container.image,
        command=list(container.command),
        env=[made.EnvVar(name=name, value=value) for name, value in variables.items()],
        ports=[made.Port(container_port=PORT)],
        predict_route=PREDICT,
        health_route=HEALTH,
        deployment_timeout={"seconds": startup_s},
        startup_probe=probe,
    )


def endpoint(asked: EndpointSpec, defaults: Defaults) -> Any:
    """Make an endpoint."""
    options = VertexEndpointOptions.read(asked.options, "endpoint")
    made = types()
    found = made.Endpoint(
        display_name=asked.name,
        labels={**defaults.labels, names.LABEL_ENDPOINT: asked.name},
        dedicated_endpoint_enabled=options.dedicated,
    )
    if options.inference_timeout_s:
        found.client_connection_config = made.ClientConnectionConfig(
            inference_timeout={"seconds": options.inference_timeout_s}
        )
    return found


def deployed_model(asked: Revision, model_name: str, defaults: Defaults) -> Any:
    """Make the deployed model of a revision, under its own id."""
    options = _options(asked)
    return types().DeployedModel(
        id=names.deployed_id(asked.id),
        model=model_name,
        display_name=asked.id,
        dedicated_resources=_resources(asked, options, defaults),
        service_account=options.service_account or defaults.service_account,
        enable_access_logging=options.access_logging,
    )


def _resources(asked: Revision, options: VertexOptions, defaults: Defaults) -> Any:
    made, chosen = types(), machine(asked, defaults)
    most = options.most_replicas or asked.scale.workers
    aims = (("aiplatform.googleapis.com/prediction/online/cpu/utilization", options.cpu_percent),
            ("aiplatform.googleapis.com/prediction/online/accelerator/duty_cycle", options.gpu_percent))  # fmt: skip
    return made.DedicatedResources(
        machine_spec=machine_spec(chosen),
        min_replica_count=options.least_replicas or asked.scale.workers,
        max_replica_count=most,
        autoscaling_metric_specs=[
            made.AutoscalingMetricSpec(metric_name=name, target=percent) for name, percent in aims if percent
        ],
        spot=options.spot or defaults.spot,
    )


def machine_spec(chosen: Machine) -> Any:
    """Say on what machines."""
    made = types()
    if not chosen.accelerator:
        return made.MachineSpec(machine_type=chosen.type)
    return made.MachineSpec(
        machine_type=chosen.type,
        accelerator_type=accelerator(chosen.accelerator),
        accelerator_count=chosen.accelerator_count,
    )


def accelerator(name: str) -> Any:
    """Give an accelerator of the API; ConfigurationError for one that the installed package does not know."""
    known = types().AcceleratorType
    if name not in known.__members__:
        message = f"accelerator {name!r} is not known to the installed google-cloud-aiplatform"
        found = [each for each in known.__members__ if each.startswith(("NVIDIA", "TPU"))]
        raise ConfigurationError(message, hint=f"known are {found}")
    return known[name]


def machine(asked: Revision, defaults: Defaults) -> Machine:
    """Choose the machine: the one that is named, the one that the hardware needs, or the backend's."""
    options = _options(asked)
    chosen = hardware.choose(asked.hardware, options, defaults.machine_type)
    named = options.machine_type or options.accelerator or chosen.accelerator
    if defaults.accelerator and not named and chosen.type == defaults.machine_type:
        return Machine(chosen.type, defaults.accelerator, 1)
    return chosen


def _options(asked: Revision) -> VertexOptions:
    return VertexOptions.read(asked.options, "revision")


# From the service


def state(seen: Seen, url: str) -> EndpointState:
    """Show an endpoint as any provider is shown."""
    return EndpointState(
        name=seen.name,
        url=url,
        revisions=tuple(
            RevisionState(each.revision, ready=True, note=each.replicas)
            for each in seen.deployed
            if each.revision is not None
        ),
        traffic=seen.traffic,
        version=seen.version,
        settled=seen.settled,
    )
