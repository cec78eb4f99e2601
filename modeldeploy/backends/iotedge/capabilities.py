"""What IoT Edge can do for us, and why not where it cannot."""

from __future__ import annotations

from modeldeploy.values.capability import Capabilities

MOST_REVISIONS = 10
"""Of one target; a hub of the standard tier takes 100 configurations in all."""

CAPABILITIES = Capabilities(
    durable=True,
    edge=True,
    split=MOST_REVISIONS,
    why_not={
        "serving": "devices are asked where they stand; the hub passes no predictions on",
        "expect_is_atomic": "a table is one configuration for each revision, and each has an ETag of its own",
        "pinned_invoke": "devices are asked where they stand",
        "compares": "no request is copied",
        "staging": "each device proves a revision by itself",
        "safe_canary": "a device runs one revision, and nobody else answers for it",
        "scale_to_zero": "devices are there or not",
        "server_side_guard": "the engine's rings judge by what devices report",
        "meters_by_share": "devices report whether they are well, not how they answer",
        "shadow": "a device runs one revision; try another one on other devices, by a ring",
        "sticky": "a device's place never changes, so whoever asks it is answered by the same revision",
        "cancel": "a deployment that is published cannot be stopped; publish the table that you want instead",
        "meters": "devices report whether their modules run, not how they answer",
        "logs": "logs stay on the devices; the portal and az iot hub invoke-module-method read them",
        "self_test": "the runtime has one container of a module: one that fails its self-test answers nobody until it is taken back",
        "batch": "devices predict; score tables on another backend",
    },
)
