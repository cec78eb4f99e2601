"""What Greengrass can do for us, and why not where it cannot."""

from __future__ import annotations

from modeldeploy.values.capability import Capabilities

MOST_REVISIONS = 10
"""Of one target: each has a thing group of its own."""

CAPABILITIES = Capabilities(
    durable=True,
    edge=True,
    split=MOST_REVISIONS,
    why_not={
        "serving": "devices are asked where they stand; Greengrass passes no predictions on",
        "expect_is_atomic": "a table is one thing group for each revision, and each has a version of its own",
        "pinned_invoke": "devices are asked where they stand",
        "compares": "no request is copied",
        "staging": "each device proves a revision by itself",
        "safe_canary": "a device runs one revision, and nobody else answers for it",
        "scale_to_zero": "devices are there or not",
        "server_side_guard": "the service stops deployments by limits=, and takes none back from devices that succeeded; use rings",
        "meters_by_share": "devices report whether they are well, not how they answer",
        "shadow": "a device runs one revision; try another one on other devices, by a ring",
        "sticky": "a device's place never changes, so whoever asks it is answered by the same revision",
        "cancel": "a deployment that devices have begun cannot be stopped; publish the table that you want instead",
        "meters": "devices report whether their components run, not how they answer",
        "logs": "logs stay on the devices; aws.greengrass.LogManager sends them to CloudWatch",
        "batch": "devices predict; score tables on another backend",
    },
)
