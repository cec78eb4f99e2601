"""What SageMaker can do for us, and why not where it cannot."""

from __future__ import annotations

from modeldeploy.values.capability import Capabilities, Shadow

MOST_VARIANTS = 10
"""Production variants of one endpoint (botocore's model of CreateEndpointConfig)."""
MOST_REQUEST_BYTES = 4_000_000
"""What serverless endpoints take; those on instances take 6,291,456 bytes by the service's model."""

CAPABILITIES = Capabilities(
    serving=True,
    durable=True,
    split=MOST_VARIANTS,
    shadow=Shadow(max_targets=1, alone=True),
    pinned_invoke=True,
    max_request_bytes=MOST_REQUEST_BYTES,
    cancel=True,
    meters=True,
    meter_resolution=60.0,
    meter_delay=120.0,
    logs=True,
    batch=True,
    scale_to_zero=True,
    why_not={
        "split": f"an endpoint has at most {MOST_VARIANTS} production variants; drop revisions that are not needed",
        "expect_is_atomic": "UpdateEndpointWeightsAndCapacities takes no precondition; the version is compared right before it",
        "safe_canary": "its router does not ask a second variant when one fails; keep the first step small",
        "sticky": "its router keeps no keys; Endpoint.predict(key=...) pins the variant here, other callers are assigned anew each time",
        "compares": "it drops the answers of shadow variants; gate the copies on error_rate or latency, or compare captured data",
        "meters_by_share": "CloudWatch counts all answers of a variant by the minute, pinned calls included",
        "edge": "Edge Manager was discontinued; EdgeTarget.greengrass(...) puts models on devices",
        "server_side_guard": "variants side by side cannot be guarded; make the backend with guard=ServerGuard(...)",
    },
)
