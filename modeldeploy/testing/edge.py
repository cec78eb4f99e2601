"""The conformance suite of backends that put models on devices: subclass ``EdgeConformance`` and ``EdgeRolloutConformance``.

Their ``harness`` is an ``EdgeHarness``: it has devices, real ones or stand-ins, which act at every beat. For a backend that publishes signed
desired states of ``modeldeploy.edge``, ``StandIn`` is such a device and ``MemoryStore`` a place for them to meet.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs

from modeldeploy.edge import desired as desired_state
from modeldeploy.edge.desired import place, wanted
from modeldeploy.edge.keys import VerifyKey
from modeldeploy.edge.layout import DESIRED, report_path
from modeldeploy.edge.release import PURPOSE, SIGNATURES
from modeldeploy.edge.reports import Health, Report
from modeldeploy.edge.stores import Store, Tick
from modeldeploy.errors import IntegrityError, NotFoundError, UnavailableError, UnsupportedError
from modeldeploy.packaging.manifest import MANIFEST
from modeldeploy.spi import Edge
from modeldeploy.testing import expect, scenarios
from modeldeploy.testing.driving import Stage, Word
from modeldeploy.testing.harness import Harness
from modeldeploy.testing.rollable import NOWHERE, RollableConformance
from modeldeploy.testing.rollouts import RolloutConformance
from modeldeploy.testing.scenarios import STEPS, Scenario
from modeldeploy.engine.record import Kind, Verb
from modeldeploy.engine.rollout import RolloutCursor
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.edge import Device, DeviceHealth
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.serving import WHOLE, EndpointSpec, Traffic
from modeldeploy.values.ticket import Phase
