"""A revision to be ready: its archive on S3, its Model, and a variant beside those that are there."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from modeldeploy.backends.cloud.steps import Step, moved
from modeldeploy.backends.sagemaker import names, translate
from modeldeploy.backends.sagemaker.change import PREPARE, START, Change, Tools, refuse_failed
from modeldeploy.backends.sagemaker.described import Config, Seen, tag_list
from modeldeploy.backends.sagemaker.images import Image
from modeldeploy.backends.sagemaker.scaling import SCALE, Scaling
from modeldeploy.backends.sagemaker.ship import Position, Shipment, Shipper
from modeldeploy.errors import ConflictError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.values.codec import from_json
from modeldeploy.values.serving import EndpointSpec, Revision
from modeldeploy.values.ticket import Ticket

SHIP, MODEL = "ship", "model"


class PutRevision(Change):
    """Bring a revision to an endpoint; the first one makes it."""

    def __init__(self, tools: Tools, ticket: Ticket, image: Callable[[Bundle, Revision], Image]) -> None:
        super().__init__(tools, ticket)
        self._spec = from_json(EndpointSpec, ticket.wanted["endpoint"])
        self._revision = from_json(Revision, ticket.wanted["revision"])
        self._image = image

    @property
    def _model(self) -> str:
        return names.model_name(self.name, self._revision)

    def _steps(self) -> dict[str, Callable[[Step], Ticket]]:
        return {START: self._start, SHIP: self._ship, MODEL: self._make_model, SCALE: self._scale}

    def _start(self, _step: Step) -> Ticket:
        seen, config = self._look()
        if seen is None or config is None:
            return moved(self.ticket, Step(SHIP), note="sends the model")
        refuse_impostor(config, self._revision, self.name)
        if self._in(config) or self._brings(seen):
            return self._ask(seen.config)
        broken = refuse_failed(seen)
        return self.ticket.failed(broken) if broken else moved(self.ticket, Step(SHIP), note="sends the model")

    # The archive and the Model

    def _ship(self, step: Step) -> Ticket:
        bundle, shipper = self._bundle(), self._shipper()
        position = shipper.advance(bundle, Position.load(step.about))
        if position.done:
            return moved(self.ticket, Step(MODEL), note="the model is sent", fraction=1.0)
        return moved(self.ticket, Step(SHIP, position.dump()), note="sends the model", fraction=position.fraction)

    def _bundle(self) -> Bundle:
        model = self._revision.model
        return Bundle.open(Path(model.uri), expect=model.digest)

    def _shipper(self) -> Shipper:
        # Below the revision's own place, so that it goes with the revision and with nothing else.
        return Shipper(self._provider.storage, prefix=names.place(self.name, self._revision.id))

    def _make_model(self, _step: Step) -> Ticket:
        record = self._provider.put_record(self.name, self._revision)
        self._provider.put_model(self._request_of(self._shipment(), record))
        return moved(self.ticket, Step(PREPARE, at=time.time()), note=f"made the model {self._model!r}")

    def _shipment(self) -> Shipment:
        bundle = self._bundle()
        trusted = self.ticket.wanted.get("trust", ())
        return self._shipper().shipment(bundle, self._image(bundle, self._revision), trust=trusted)

    def _request_of(self, shipment: Shipment, record: str) -> dict[str, object]:
        container = translate.Container(shipment.image, shipment.model_data_url, shipment.environment)
        return translate.model_request(self.name, self._revision, container, record, self._provider.defaults)

    # The variant

    def _wanted(self, seen: Seen | None, config: Config | None) -> Config | None:
        defaults = self._provider.defaults
        if seen is None or config is None:
            first = translate.variant(self.name, self._revision, 100.0, defaults)
            return translate.first_config(self._spec, first, defaults)
        refuse_impostor(config, self._revision, self.name)
        if self._in(config):
            return None
        # The weights as they are now, for those of the configuration are as old as that; the new one gets none.
        now = config.with_traffic(seen.traffic)
        return now.with_variant(translate.variant(self.name, self._revision, 0.0, defaults))

    def _create(self, config: str) -> None:
        provider = self._provider
        tags = tag_list(translate.tags(self.name, provider.defaults))
        provider.client.sagemaker("create_endpoint", EndpointName=self.name, EndpointConfigName=config, Tags=tags)

    def _in(self, config: Config) -> bool:
        found = config.find(self._revision.id)
        return found is not None and found.model == self._model

    def _holds(self, seen: Seen) -> bool:
        config = self._provider.config(seen.config)
        there = {slot.name for slot in (*seen.production, *seen.shadow)}
        return config is not None and self._in(config) and self._revision.id in there

    def _done(self) -> Ticket:
        return moved(self.ticket, Step(SCALE))

    def _scale(self, _step: Step) -> Ticket:
        _seen, config = self._look()
        asynchronous = config is not None and config.asynchronous
        Scaling(self._provider.client).apply(self.name, self._revision, asynchronous=asynchronous)
        return super()._done()

    def _failed(self, note: str) -> Ticket:
        last = self._tools.tail(self.name, self._revision.id)
        said = f"; the last lines of its log: {last}" if last else "; its containers have written no log"
        return self.ticket.failed(f"revision {self._revision.id!r} did not become ready: {note}{said}")


def refuse_impostor(config: Config, revision: Revision, endpoint: str) -> None:
    """Refuse another content under an id that the endpoint has."""
    found = config.find(revision.id)
    if found is not None and found.model != names.model_name(endpoint, revision):
        message = f"endpoint {endpoint!r} has another revision {revision.id!r}"
        raise ConflictError(message, hint="an id stands for one content; use Revision.of")
