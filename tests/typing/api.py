"""The public API as its users write it; ``mypy --strict`` must agree with each line. Checked, never run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

import numpy as np

from modeldeploy import (
    Analysis,
    BatchJob,
    EdgeTarget,
    Endpoint,
    Gate,
    Hardware,
    Model,
    Operation,
    Rollout,
    RolloutPolicy,
    Session,
    Tolerance,
    errors,
    log_to_console,
    register,
)
from modeldeploy.convert.report import ParityReport
from modeldeploy.handles.devices import Devices, Rings, TargetStatus
from modeldeploy.handles.plans import Call, Plan
from modeldeploy.values.edge import Device
from modeldeploy.values.events import Event
from modeldeploy.values.forecast import Forecast
from modeldeploy.values.serving import Revision


def package(estimator: object, table: np.ndarray[Any, np.dtype[np.float64]]) -> Model:
    model = Model(estimator, name="iris", version="1.0.0", example=table)
    assert_type(model.digest, str)
    assert_type(Model.versions("iris"), tuple[str, ...])
    assert_type(Model.get("iris", "1.0.0"), Model)
    assert_type(model.to_onnx(sample=table).quantize(sample=table), Model)
    assert_type(model.parity, ParityReport | None)
    assert_type(model.archive("iris.tar.gz"), Path)
    return model


def serve(model: Model, table: object) -> Endpoint:
    endpoint = Endpoint.deploy(model, name="iris", workers=2, timeout=60.0)
    assert_type(endpoint, Endpoint)
    assert_type(Endpoint.get("iris"), Endpoint)
    assert_type(Endpoint.list(), tuple[Endpoint, ...])
    assert_type(endpoint.url, str)
    assert_type(endpoint.traffic, dict[str, int])
    assert_type(endpoint.stable, Revision)
    assert_type(endpoint.predict(table), Any)
    assert_type(endpoint.predict(table, key="user-7"), Any)
    assert_type(endpoint.operation, Operation | None)
    for window in endpoint.metrics():
        assert_type(window.error_rate, float | None)
    for line in endpoint.logs(limit=10):
        assert_type(line.text, str)
    return endpoint


def put_on_devices(model: Model) -> Rollout:
    target = EdgeTarget.fleet("cameras", store="store", key="key.pem")
    assert_type(target.deploy(model, RolloutPolicy.rings((10, 50), min_devices=3, on_failure="rollback")), EdgeTarget)
    assert_type(EdgeTarget.list(), tuple[EdgeTarget, ...])
    assert_type(target.devices, Devices)
    assert_type(target.devices[0], Device)
    assert_type(target.rings, Rings)
    assert_type(target.status, TargetStatus)
    assert_type(target.shares, dict[str, int])
    assert_type(target.plan(model), Plan)
    assert_type(target.agent("camera-1", home=Path("camera-1"), poll=5), tuple[str, ...])
    return target.rollout(model, wait=False)


def roll_out(endpoint: Endpoint, model: Model) -> Rollout:
    canary = RolloutPolicy.canary(
        steps=(5, 25, 50), soak=60, gates=["error_rate <= 1%", Gate.parse("p95_latency <= 1.2x")]
    )
    assert_type(RolloutPolicy.all_at_once(), RolloutPolicy)
    assert_type(RolloutPolicy.blue_green(bake=30.0), RolloutPolicy)
    assert_type(RolloutPolicy.linear(20, every=5.0), RolloutPolicy)
    assert_type(endpoint.plan(model, canary).ok, bool)
    assert_type(Endpoint.plan_deploy(model, "iris", policy=canary), Plan)
    assert_type(endpoint.plan_rollback(to="1.0.0").calls, tuple[Call, ...])
    assert_type(endpoint.plan_delete().warnings, tuple[str, ...])
    assert_type(canary.forecast(rps=20, base_rate=0.01), Forecast)
    endpoint.rollout(model, golden=Tolerance(float32=(1e-3, 1e-6)))
    endpoint.rollout(model, golden={"float32": 1e-3}, wait=False)
    rollout = endpoint.rollout(model, canary, wait=False)
    assert_type(rollout, Rollout)
    assert_type(rollout.pause("look at it").resume().promote(wait=False), Rollout)
    assert_type(rollout.abort(reason="recall dropped"), Rollout)
    assert_type(rollout.skip_step("enough seen").verdicts[-1].percent, int)
    test = endpoint.rollout(model, RolloutPolicy.ab_test(50, key="user_id", until=60.0), wait=False)
    assert_type(test.score({"user-1": 1, "user-2": False}), int)
    assert_type(test.outcomes.difference, tuple[float, float])
    endpoint.rollout(model, RolloutPolicy.shadow(20, gates=["disagreement <= 5%"], then=(5, 50)))
    RolloutPolicy.canary(gates=[lambda look: look.new.errors < 3], analysis=Analysis(alpha=0.01), key="header:x-user")
    assert_type(rollout.id, str)
    assert_type(endpoint.rollback(to="1.0.0", reason="recall dropped"), Rollout)
    assert_type(endpoint.delete(), Operation)
    return rollout


def score(endpoint: Endpoint) -> BatchJob:
    job = BatchJob.run(endpoint.stable, "in.parquet", "out.parquet", key="id")
    assert_type(job, BatchJob)
    return job


def take_up(id: str) -> None:  # noqa: A002
    assert_type(Operation.get(id).wait(timeout=10), Operation)
    assert_type(Operation.unfinished(), tuple[Operation, ...])


def watch() -> None:
    def on_event(event: Event) -> None:
        assert_type(event.at, float)

    session = Session.of("local")
    unsubscribe = session.subscribe(on_event)
    unsubscribe()
    Endpoint.get("iris", backend=session)
    log_to_console(json=True, level="debug")
    register("mine", "mine.backend:Mine")


def go_wrong(endpoint: Endpoint, model: Model) -> str:
    try:
        endpoint.rollout(model)
    except errors.RolloutAborted as error:
        return error.verdict
    except errors.OperationTimeout as error:
        return error.hint or ""
    except errors.InvalidRequestError as error:
        return error.field or ""
    return ""


async def without_blocking(endpoint: Endpoint, model: Model, table: object) -> None:
    assert_type(await endpoint.aio.predict(table), Any)
    assert_type(await endpoint.rollout(model, wait=False), Rollout)
    assert_type(await Operation.get("id"), Operation)


def shape() -> Hardware:
    return Hardware(cpu=2, memory_gb=4)
