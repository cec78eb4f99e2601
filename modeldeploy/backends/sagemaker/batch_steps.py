"""The steps of a job on SageMaker: its model goes to S3 and becomes a Model, its runs are transform jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs

from modeldeploy.backends.cloud.batch_state import State
from modeldeploy.backends.cloud.batch_steps import PLACE, Steps
from modeldeploy.backends.cloud.batch_work import Work
from modeldeploy.backends.cloud.steps import Step
from modeldeploy.backends.sagemaker import images, names
from modeldeploy.backends.sagemaker.batch_runs import TransformRuns
from modeldeploy.backends.sagemaker.described import tag_list
from modeldeploy.backends.sagemaker.pace import Pace
from modeldeploy.backends.sagemaker.provider import Provider
from modeldeploy.backends.sagemaker.ship import Position, Shipment, Shipper
from modeldeploy.backends.sagemaker.transform import Setting, Transforms
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.scoring.job import Job, Request
from modeldeploy.values.ticket import Ticket

_SHIP = "ship"
_TAG = "modeldeploy:job"


@attrs.frozen
class Tools:
    """What every step of every job needs."""

    provider: Provider
    transforms: Transforms
    setting: Setting
    pace: Pace
    image: Callable[[Bundle], images.Image]

    def stop(self, state: State) -> None:
        """Ask the transform job that is under way to stop, if there is one."""
        if state.open is not None:
            self.transforms.stop(state.open.name)

    def forget(self, job: Job) -> None:
        """Take away what an earlier job of this name left, here and there."""
        state = State.of(job.entries())
        self.stop(state)
        if state.run:
            self.provider.sweep(f"{PLACE}/{job.name}/{state.run}/")
        if state.model:
            self.provider.delete_model(state.model)
        job.forget()


class TransformSteps(Steps):
    """A ticket of a job on SageMaker."""

    def __init__(self, tools: Tools, ticket: Ticket, job: Job, asked: Request) -> None:
        super().__init__(tools.pace, ticket, job, asked)
        self._tools = tools
        self._provider = tools.provider

    def _work(self) -> Work:
        tags = {**self._tools.setting.tags, _TAG: self._job.name}
        setting = attrs.evolve(self._tools.setting, tags=tags)
        storage = self._provider.storage
        runs = TransformRuns(self._tools.transforms, storage, setting)
        return Work(self._job, self._asked, storage, runs, terms=setting.terms, place=PLACE)

    def _stop_run(self, state: State) -> None:
        self._tools.stop(state)

    def _delete_model(self, name: str) -> None:
        self._provider.delete_model(name)

    def _ship(self, work: Work) -> Ticket:
        model = self._asked.spec.model
        bundle = Bundle.open(Path(model.uri), expect=model.digest)
        shipper = Shipper(self._provider.storage, prefix=work.place)
        step = Step.of(self._ticket)
        position = shipper.advance(bundle, Position.load(step.about if step.name == _SHIP else ""))
        if not position.done:
            return self._moved(work, "sends the model", Step(_SHIP, position.dump()))
        shipment = shipper.shipment(bundle, self._tools.image(bundle), trust=self._asked.trust)
        work.use(self._put_model(shipment))
        return self._moved(work, "the model is there")

    def _put_model(self, shipment: Shipment) -> str:
        container, defaults = shipment.container(), self._provider.defaults
        spec = names.digest(container)
        request: dict[str, object] = {
            "ModelName": f"batch-{self._job.name}-{spec[:8]}",
            "PrimaryContainer": {**container, "Environment": {**shipment.environment, names.ENV_SPEC: spec}},
            "ExecutionRoleArn": defaults.role,
            "Tags": tag_list({**defaults.tags, _TAG: self._job.name}),
            **({"VpcConfig": {key: list(value) for key, value in defaults.vpc.items()}} if defaults.vpc else {}),
        }
        self._provider.put_model(request)
        return str(request["ModelName"])
