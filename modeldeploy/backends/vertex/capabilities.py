"""What Vertex AI can do for us, and why not where it cannot."""

from __future__ import annotations

from modeldeploy.values.capability import Capabilities

MOST_DEPLOYED = 20
"""Revisions that one endpoint is given here; the service's own limit is a quota."""
MOST_REPLICAS = 100
MOST_BYTES = 1_500_000
"""Bytes of a request to a shared endpoint."""
MOST_DEDICATED_BYTES = 10_000_000
"""Bytes of a request to an endpoint with an address of its own."""
MOST_TIMEOUT_S = 60
"""Seconds that a shared endpoint gives an answer."""
MOST_DEDICATED_TIMEOUT_S = 3_600

CAPABILITIES = Capabilities(
    serving=True,
    durable=True,
    split=MOST_DEPLOYED,
    staging=True,
    max_request_bytes=MOST_BYTES,
    expect_is_atomic=True,
    cancel=True,
    meters=True,
    meter_resolution=60.0,
    meter_delay=240.0,
    logs=True,
    batch=True,
    why_not={
        "split": f"an endpoint is given at most {MOST_DEPLOYED} revisions here; drop those that are not needed",
        "shadow": "the API has no field for copies; deploy to a second endpoint, and send each request there too from your own code",
        "compares": "it makes no copies of requests; log requests to BigQuery, and score them again with a batch job",
        "pinned_invoke": "a prediction cannot name the deployed model that answers it; deploy to an endpoint of its own to ask one alone",
        "safe_canary": "its router does not ask a second revision when one fails; keep the first step small",
        "sticky": "its router draws for each request anew; hash the key in your own code, over two endpoints",
        "meters_by_share": "Cloud Monitoring counts all answers of a deployed model by the minute",
        "edge": "nothing of it runs on devices; EdgeTarget.fleet(...) puts models on devices",
        "scale_to_zero": "a deployed model keeps at least one replica (v1 of the API); drop the revision when it is not needed",
        "server_side_guard": "the service has no rollback of its own; the rollout's gates guard",
        "staging": "golden='skip' was asked for, so a revision meets its golden outputs only on an endpoint that it has alone",
    },
)
