"""What Azure ML can do for us, and why not where it cannot."""

from __future__ import annotations

from modeldeploy.values.capability import Capabilities, Shadow

MOST_DEPLOYMENTS = 20
"""Deployments of one managed online endpoint (the service's limits page)."""
MOST_MIRRORED = 50
"""Percent of the requests that can be mirrored."""
MOST_INSTANCES = 50
"""Instances of one deployment."""
MOST_TIMEOUT_S = 180
"""The longest request timeout of a managed online endpoint."""

CAPABILITIES = Capabilities(
    serving=True,
    durable=True,
    split=MOST_DEPLOYMENTS,
    shadow=Shadow(max_targets=1, max_percent=MOST_MIRRORED),
    pinned_invoke=True,
    cancel=True,
    meters=True,
    meter_resolution=60.0,
    meter_delay=120.0,
    logs=True,
    batch=True,
    why_not={
        "split": f"an endpoint has at most {MOST_DEPLOYMENTS} deployments; drop revisions that are not needed",
        "shadow": f"traffic is mirrored to one deployment that takes no traffic itself, at most {MOST_MIRRORED} %",
        "compares": "it drops the answers of mirrored requests; gate the copies on logs, or compare collected data",
        "expect_is_atomic": "an endpoint is written whole and without a precondition; the version is compared right before it",
        "safe_canary": "its router does not ask a second deployment when one fails; keep the first step small",
        "sticky": "its router keeps no keys; Endpoint.predict(key=...) pins the revision here, other callers are assigned anew each time",
        "meters_by_share": "Azure Monitor counts all answers of a deployment by the minute, pinned calls included",
        "edge": "devices are reached through IoT Hub: EdgeTarget.iot_edge(...)",
        "scale_to_zero": "a managed online deployment keeps at least one instance; delete the endpoint when it is not needed",
        "server_side_guard": "the service has no rollback of its own; the rollout's gates guard",
    },
)
