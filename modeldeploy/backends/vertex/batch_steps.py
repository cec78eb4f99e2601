"""The steps of a job on Vertex AI: its model is registered for the time of the job, its runs are batch prediction jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs

from modeldeploy.backends.cloud.batch_state import State
from modeldeploy.backends.cloud.batch_steps import PLACE, Steps
from modeldeploy.backends.cloud.batch_work import Work
from modeldeploy.backends.cloud.steps import Step
from modeldeploy.backends.vertex import entry, names, translate
from modeldeploy.backends.vertex.batch_runs import PredictionRuns
from modeldeploy.backends.vertex.client import none_if_missing, types
from modeldeploy.backends.vertex.entry import Container, Shipment
from modeldeploy.backends.vertex.errors import BusyError, TakenError
from modeldeploy.backends.vertex.hardware import Machine
from modeldeploy.backends.vertex.pace import Pace
from modeldeploy.backends.vertex.provider import Provider
from modeldeploy.backends.vertex.ship import Position
from modeldeploy.backends.vertex.terms import Terms
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.scoring.job import Job, Request
from modeldeploy.serving.lines import SWITCH
from modeldeploy.values.names import short_hash
from modeldeploy.values.ticket import Ticket

_SHIP = "ship"
_STARTUP_S = 1_800


@attrs.frozen
class Tools:
    """What every step of every job needs."""

    provider: Provider
    terms: Terms
    pace: Pace
    container: Callable[[Bundle], Container]

    @property
    def machine(self) -> Machine:
        """On what each replica of a job runs."""
        terms, defaults = self.terms, self.provider.defaults
        named = terms.accelerator or ("" if terms.machine_type else defaults.accelerator)
        return Machine(terms.machine_type or defaults.machine_type, named, 1 if named else 0)

    def runs(self, job: Job) -> PredictionRuns:
        """Give the batch prediction jobs of a job of ours."""
        provider = self.provider
        return PredictionRuns(
            provider.client,
            provider.storage,
            self.terms,
            self.machine,
            {**provider.defaults.labels, names.LABEL_JOB: job.name},
            provider.defaults.service_account,
        )

    def drop(self, model: str) -> None:
        """Ask for a job's model to be gone; one that is gone is fine."""
        client = self.provider.client
        none_if_missing(lambda: client.begin("model", "delete_model", {"name": model}))

    def forget(self, job: Job) -> None:
        """Take away what an earlier job of this name left, here and there."""
        state = State.of(job.entries())
        storage = self.provider.storage
        if state.open is not None:
            self.runs(job).stop(state.open.name)
        if state.run:
            storage.delete([each.key for each in storage.below(f"{PLACE}/{job.name}/{state.run}/")])
        if state.model:
            self.drop(state.model)
        job.forget()


class PredictionSteps(Steps):
    """A ticket of a job on Vertex AI."""

    def __init__(self, tools: Tools, ticket: Ticket, job: Job, asked: Request) -> None:
        super().__init__(tools.pace, ticket, job, asked)
        self._tools = tools
        self._provider = tools.provider

    def _work(self) -> Work:
        tools = self._tools
        runs = tools.runs(self._job)
        return Work(self._job, self._asked, self._provider.storage, runs, terms=tools.terms, place=PLACE)

    def _stop_run(self, state: State) -> None:
        if state.open is not None:
            self._tools.runs(self._job).stop(state.open.name)

    def _delete_model(self, name: str) -> None:
        self._tools.drop(name)

    # The model: its files, then a model of its own, for its container answers row by row

    def _ship(self, work: Work) -> Ticket:
        try:
            return self._next_of_model(work)
        except (BusyError, TakenError) as error:
            return self._waiting(work, f"waits: {error.message}", 0.0)

    def _next_of_model(self, work: Work) -> Ticket:
        name = self._model(work)
        client = self._provider.client
        resource = f"{client.access.parent}/models/{name}"
        if none_if_missing(lambda: client.call("model", "get_model", {"name": resource})) is not None:
            work.use(resource)
            return self._moved(work, "the model is there")
        model = self._asked.spec.model
        bundle = Bundle.open(Path(model.uri), expect=model.digest)
        shipment = Shipment.of(bundle)
        step = Step.of(self._ticket)
        if step.name == _SHIP and step.about == "registering" and self._provider.registering(name):
            return self._waiting(work, "the model is being registered", 0.0)
        position = Position.load(step.about if step.name == _SHIP and step.about.startswith("[") else "")
        position = self._provider.shipper.advance(shipment, position)
        if not position.done:
            return self._moved(work, "sends the model", Step(_SHIP, position.dump()))
        self._register(bundle, shipment, name)
        return self._moved(work, "the model is being registered", Step(_SHIP, "registering"))

    def _model(self, work: Work) -> str:
        """Name the job's model: the same for the same run."""
        return f"batch-{self._job.name}-{short_hash(self._job.name, work.state.run)}"

    def _register(self, bundle: Bundle, shipment: Shipment, name: str) -> None:
        bundle.verify()
        defaults, container = self._provider.defaults, self._tools.container(bundle)
        variables = {SWITCH: "true", **entry.variables(bundle, tuple(self._asked.trust))}
        made = types().Model(
            display_name=name,
            artifact_uri=self._provider.shipper.url(shipment),
            container_spec=translate.container_spec(container, variables, startup_s=_STARTUP_S),
            labels={**defaults.labels, names.LABEL_JOB: self._job.name},
        )
        request = {"parent": self._provider.client.access.parent, "model": made, "model_id": name}
        self._provider.client.begin("model", "upload_model", request, model=name)
