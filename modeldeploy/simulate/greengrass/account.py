"""Components, deployments and the core devices of one account; time goes on whenever somebody asks."""

from __future__ import annotations

import base64
import hashlib
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
import orjson

from modeldeploy.simulate.clock import Clock
from modeldeploy.simulate.greengrass import recipes
from modeldeploy.simulate.greengrass.faults import Faults
from modeldeploy.simulate.greengrass.records import (
    ACTIVE,
    CANCELED,
    ENDED,
    FAILED,
    IN_PROGRESS,
    INACTIVE,
    QUEUED,
    SUCCEEDED,
    Component,
    Core,
    Deployment,
    Execution,
    Json,
    Timings,
)
from modeldeploy.simulate.sagemaker.errors import ServiceError, invalid

Members = Callable[[str], Iterable[str]]
"""Names the things of a group by its ARN."""
Read = Callable[[str], bytes | None]
"""Reads an object of storage by its URI."""


@attrs.define(eq=False)
class Account:
    """All that Greengrass holds for an account."""

    number: str
    region: str
    clock: Clock
    faults: Faults
    timings: Timings
    members: Members
    read: Read
    manual: bool = False
    """Whether devices act when ``act`` is called, and at no other time."""
    components: dict[str, Component] = attrs.field(factory=dict)
    deployments: dict[str, Deployment] = attrs.field(factory=dict)
    cores: dict[str, Core] = attrs.field(factory=dict)
    tokens: dict[str, Json] = attrs.field(factory=dict)
    lock: threading.RLock = attrs.field(factory=threading.RLock)

    # Time

    def go_on(self) -> None:
        """Let pass what has passed since the last look."""
        if not self.manual:
            self._pass()

    def act(self) -> None:
        """Let every device that can be reached do all that is asked of it, now."""
        for _stage in (QUEUED, IN_PROGRESS, SUCCEEDED):
            self._pass()

    def _pass(self) -> None:
        now = self.clock.now()
        for core in self.cores.values():
            core.told = now if core.online else core.told
        for deployment in self.deployments.values():
            if deployment.status == ACTIVE:
                self._enrol(deployment, now)
                for thing, execution in deployment.executions.items():
                    self._live(deployment, self.cores[thing], execution, now)
                self._abort(deployment, now)

    def _enrol(self, deployment: Deployment, now: float) -> None:
        """Queue the deployment for every device that is in its group now, as a continuous job does."""
        for thing in self.members(deployment.target):
            if thing in self.cores and thing not in deployment.executions:
                deployment.executions[thing] = Execution(QUEUED, now, now)

    def _live(self, deployment: Deployment, core: Core, execution: Execution, now: float) -> None:
        if not core.online or execution.status in ENDED:
            return
        if execution.status == QUEUED and now >= execution.queued + self._span(self.timings.queue):
            execution.status, execution.begun, execution.changed = IN_PROGRESS, now, now
        elif execution.status == IN_PROGRESS and now >= execution.begun + self._span(self.timings.apply):
            self._apply(deployment, core, execution, now)

    def _apply(self, deployment: Deployment, core: Core, execution: Execution, now: float) -> None:
        failure = next(filter(None, (self._failure(core, *each) for each in deployment.components.items())), "")
        execution.changed = now
        if not failure:
            execution.status = SUCCEEDED
            # What a device no longer belongs to is taken away with the next deployment.
            core.installed, core.changed = dict(deployment.components), now
            return
        execution.status = FAILED
        rolls_back = (
            deployment.request.get("deploymentPolicies", {}).get("failureHandlingPolicy", "ROLLBACK") == "ROLLBACK"
        )
        execution.reason = f"{'FAILED_ROLLBACK_COMPLETE' if rolls_back else 'FAILED_ROLLBACK_NOT_REQUESTED'}: {failure}"
        if not rolls_back:
            core.installed, core.changed = dict(deployment.components), now

    def _failure(self, core: Core, name: str, version: str) -> str:
        component = self.find(name, version)
        if component is None:
            return f"No local or cloud component version satisfies {name} {version}"
        for artifact in component.artifacts:
            data = self.read(artifact["uri"])
            if data is None or _digest(data) != artifact.get("digest"):
                return f"Integrity check for downloaded artifact failed: {artifact['uri']}"
        if self.faults.fails(core.name, component.revision):
            return f"Service {name} in broken state after deployment: the install script exited with code 1"
        return ""

    def _abort(self, deployment: Deployment, now: float) -> None:
        """Stop the deployment when more devices failed than its maker allows."""
        ended = [each for each in deployment.executions.values() if each.status in ENDED]
        failed = sum(each.status == FAILED for each in ended)
        criteria = deployment.request.get("iotJobConfiguration", {}).get("abortConfig", {}).get("criteriaList", ())
        for each in criteria:
            enough = len(ended) >= each["minNumberOfExecutedThings"]
            if enough and failed * 100 >= each["thresholdPercentage"] * len(ended) and failed:
                self._stop(deployment, now)

    @staticmethod
    def _stop(deployment: Deployment, now: float) -> None:
        deployment.status = CANCELED
        for execution in deployment.executions.values():
            if execution.status not in ENDED:
                execution.status, execution.changed = CANCELED, now

    def _span(self, seconds: float) -> float:
        return self.clock.after(seconds) - self.clock.now()

    # Components

    def create_component(self, asked: Json) -> Json:
        """Make a version of a component; one that is there already is refused."""
        if "inlineRecipe" not in asked:
            raise invalid("Either inlineRecipe or lambdaFunction must be given; the rehearsal takes recipes.")
        recipe = _recipe(asked["inlineRecipe"])
        now, arn = self.clock.now(), self._arn(recipe)
        if arn in self.components:
            raise ServiceError(
                "ConflictException", f"Component [{recipe['componentname']} : {recipe['componentversion']}] for account already exists.",
                status=409, members={"resourceId": arn, "resourceType": "COMPONENT"},
            )  # fmt: skip
        made = Component(arn, recipe, dict(asked.get("tags", {})), now, self.clock.after(self.timings.deployable))
        self._check_artifacts(made)
        self.components[arn] = made
        return {
            "arn": arn, "componentName": made.name, "componentVersion": made.version,
            "creationTimestamp": now, "status": {"componentState": "REQUESTED"},
        }  # fmt: skip

    def _check_artifacts(self, made: Component) -> None:
        for artifact in made.artifacts:
            data = self.read(artifact["uri"])
            if data is None:
                made.failure = f"Cannot access {artifact['uri']}: the specified key does not exist."
            else:
                artifact |= {"digest": _digest(data), "algorithm": "SHA-256"}
        if made.revision in self.faults.refused:
            made.failure = "The component cannot be deployed."

    def describe_component(self, asked: Json) -> Json:
        """Tell of a version."""
        found = self._component(asked["arn"])
        state = (
            "FAILED" if found.failure else ("DEPLOYABLE" if self.clock.now() >= found.deployable_at else "INITIATED")
        )
        status = {"componentState": state, **({"message": found.failure} if found.failure else {})}
        return {
            "arn": found.arn, "componentName": found.name, "componentVersion": found.version,
            "creationTimestamp": found.created, "status": status, **({"tags": found.tags} if found.tags else {}),
        }  # fmt: skip

    def delete_component(self, asked: Json) -> Json:
        """Delete a version; devices that have it keep it."""
        del self.components[self._component(asked["arn"]).arn]
        return {}

    def list_versions(self, asked: Json) -> Json:
        """List the versions of a component."""
        found = [each for each in self.components.values() if each.arn.startswith(f"{asked['arn']}:versions:")]
        if not found:
            raise _missing("COMPONENT", asked["arn"])
        listed = [{"componentName": each.name, "componentVersion": each.version, "arn": each.arn} for each in found]
        return {"componentVersions": listed}

    def _component(self, arn: str) -> Component:
        if arn not in self.components:
            raise _missing("COMPONENT", arn)
        return self.components[arn]

    def find(self, name: str, version: str) -> Component | None:
        """Find a version by name."""
        return self.components.get(self._arn({"componentname": name, "componentversion": version}))

    def _arn(self, recipe: Mapping[str, Any]) -> str:
        name, version = recipe["componentname"], recipe["componentversion"]
        return f"arn:aws:greengrass:{self.region}:{self.number}:components:{name}:versions:{version}"

    # Deployments

    def create_deployment(self, asked: Json) -> Json:
        """Make a deployment, which takes the place of the one that its target has."""
        token = str(asked.get("clientToken", ""))
        if token in self.tokens:
            return self.tokens[token]
        for name, each in asked.get("components", {}).items():
            found = self.find(name, each["componentVersion"])
            if found is None or found.failure or self.clock.now() < found.deployable_at:
                raise invalid(f"Component {name} {each['componentVersion']} is not deployable.")
        for other in self.deployments.values():
            if other.target == asked["targetArn"] and other.status == ACTIVE:
                self._stop(other, self.clock.now())
                other.status = INACTIVE
        made = Deployment(str(uuid.uuid4()), asked["targetArn"], asked, self.clock.now(), len(self.deployments) + 1)
        self.deployments[made.id] = made
        answer = {"deploymentId": made.id, "iotJobId": made.id, "iotJobArn": self._job_arn(made)}
        if token:
            self.tokens[token] = answer
        return answer

    def _job_arn(self, made: Deployment) -> str:
        return f"arn:aws:iot:{self.region}:{self.number}:job/{made.id}"

    def get_deployment(self, asked: Json) -> Json:
        """Tell of a deployment."""
        found = self._deployment(asked)
        kept = ("components", "deploymentPolicies", "iotJobConfiguration", "tags")
        return {
            **self._listed(found), **{key: found.request[key] for key in kept if key in found.request}, "iotJobId": found.id,
        }  # fmt: skip

    def list_deployments(self, asked: Json) -> Json:
        """List deployments, all of a target or the latest of each."""
        target = asked.get("targetArn")
        found = [each for each in self.deployments.values() if target in {None, each.target}]
        if asked.get("historyFilter", "LATEST_ONLY") == "LATEST_ONLY":
            found = list({each.target: each for each in found}.values())
        return {"deployments": [self._listed(each) for each in found]}

    def _listed(self, found: Deployment) -> Json:
        latest = max((each.number for each in self.deployments.values() if each.target == found.target), default=0)
        return {
            "targetArn": found.target, "revisionId": str(found.number), "deploymentId": found.id, "deploymentName": found.name,
            "creationTimestamp": found.created, "deploymentStatus": found.status, "isLatestForTarget": found.number == latest,
        }  # fmt: skip

    def cancel_deployment(self, asked: Json) -> Json:
        """Stop a deployment; devices that are at it finish."""
        found = self._deployment(asked)
        if found.status == ACTIVE:
            self._stop(found, self.clock.now())
        return {"message": "The deployment was canceled."}

    def delete_deployment(self, asked: Json) -> Json:
        """Delete a deployment that goes on no more."""
        found = self._deployment(asked)
        if found.status == ACTIVE:
            raise ServiceError(
                "ConflictException", f"Deployment {found.id} is active.",
                status=409, members={"resourceId": found.id, "resourceType": "DEPLOYMENT"},
            )  # fmt: skip
        del self.deployments[found.id]
        return {}

    def _deployment(self, asked: Json) -> Deployment:
        found = self.deployments.get(asked["deploymentId"])
        if found is None:
            raise _missing("DEPLOYMENT", asked["deploymentId"])
        return found

    # Devices

    def get_core(self, asked: Json) -> Json:
        """Tell of a core device."""
        core = self._core(asked)
        ill = any(self._state(name, version) == "BROKEN" for name, version in core.installed.items())
        return {
            "coreDeviceThingName": core.name, "coreVersion": "2.15.0", "platform": "linux", "architecture": "aarch64",
            "runtime": "aws_nucleus_classic", "status": "UNHEALTHY" if ill else "HEALTHY", "lastStatusUpdateTimestamp": core.told,
        }  # fmt: skip

    def list_cores(self, _asked: Json) -> Json:
        """List the core devices."""
        return {"coreDevices": [
            {"coreDeviceThingName": each.name, "status": "HEALTHY", "lastStatusUpdateTimestamp": each.told} for each in self.cores.values()
        ]}  # fmt: skip

    def installed(self, asked: Json) -> Json:
        """List what a device has."""
        core = self._core(asked)
        return {
            "installedComponents": [
                {
                    "componentName": name, "componentVersion": version, "lifecycleState": self._state(name, version),
                    "isRoot": True, "lastStatusChangeTimestamp": core.changed,
                }
                for name, version in sorted(core.installed.items())
            ]
        }  # fmt: skip

    def _state(self, name: str, version: str) -> str:
        found = self.find(name, version)
        return "BROKEN" if found is not None and found.revision in self.faults.crashing else "RUNNING"

    def effective(self, asked: Json) -> Json:
        """List the deployments that were meant for a device."""
        core = self._core(asked)
        found = [
            (each, each.executions[core.name]) for each in self.deployments.values() if core.name in each.executions
        ]
        return {"effectiveDeployments": [self._effective(*each) for each in found]}

    def _effective(self, deployment: Deployment, execution: Execution) -> Json:
        return {
            "deploymentId": deployment.id, "deploymentName": deployment.name, "iotJobId": deployment.id, "iotJobArn": self._job_arn(deployment),
            "targetArn": deployment.target, "coreDeviceExecutionStatus": execution.status, "reason": execution.reason or execution.status,
            "creationTimestamp": execution.queued, "modifiedTimestamp": execution.changed,
        }  # fmt: skip

    def _core(self, asked: Json) -> Core:
        name = asked["coreDeviceThingName"]
        if name not in self.cores:
            raise _missing("CORE_DEVICE", name)
        return self.cores[name]


OPERATIONS: Mapping[str, Callable[[Account, Json], Json]] = {
    "CreateComponentVersion": Account.create_component,
    "DescribeComponent": Account.describe_component,
    "DeleteComponent": Account.delete_component,
    "ListComponentVersions": Account.list_versions,
    "CreateDeployment": Account.create_deployment,
    "GetDeployment": Account.get_deployment,
    "ListDeployments": Account.list_deployments,
    "CancelDeployment": Account.cancel_deployment,
    "DeleteDeployment": Account.delete_deployment,
    "GetCoreDevice": Account.get_core,
    "ListCoreDevices": Account.list_cores,
    "ListInstalledComponents": Account.installed,
    "ListEffectiveDeployments": Account.effective,
}


def _recipe(blob: str) -> Json:
    try:
        found = orjson.loads(base64.b64decode(blob))
    except ValueError as error:
        raise invalid("The recipe is not JSON; the rehearsal reads no YAML.") from error
    wrong = recipes.faults(found) if isinstance(found, dict) else ["recipe: it is no object"]
    if wrong:
        raise invalid(f"The recipe has {len(wrong)} faults: {'; '.join(wrong)}")
    lowered: Json = recipes.lowered(found)
    return lowered


def _digest(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def _missing(kind: str, name: str) -> ServiceError:
    return ServiceError(
        "ResourceNotFoundException",
        f"{kind} {name} does not exist.",
        status=404,
        members={"resourceId": name, "resourceType": kind},
    )
