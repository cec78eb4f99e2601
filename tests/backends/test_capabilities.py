"""The tables of capabilities in the documents are the ones that the backends declare."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from modeldeploy.backends.azureml.capabilities import CAPABILITIES as AZUREML
from modeldeploy.backends.fleet.backend import FleetBackend
from modeldeploy.backends.greengrass.capabilities import CAPABILITIES as GREENGRASS
from modeldeploy.backends.iotedge.capabilities import CAPABILITIES as IOTEDGE
from modeldeploy.backends.local.backend import LocalBackend
from modeldeploy.backends.memory import EVERYTHING
from modeldeploy.backends.sagemaker.capabilities import CAPABILITIES
from modeldeploy.backends.vertex.capabilities import CAPABILITIES as VERTEX
from modeldeploy.values.capability import Capabilities

PAGES = Path(__file__).resolve().parents[2] / "docs" / "backends"
TABLES = {
    "../edge.md": {"fleet": FleetBackend.capabilities, "local": LocalBackend.capabilities},
    "azureml.md": {"azureml": AZUREML, "local": LocalBackend.capabilities},
    "greengrass.md": {"greengrass": GREENGRASS, "iotedge": IOTEDGE},
    "iotedge.md": {"iotedge": IOTEDGE, "greengrass": GREENGRASS},
    "local.md": {"local": LocalBackend.capabilities, "memory": EVERYTHING},
    "sagemaker.md": {"sagemaker": CAPABILITIES, "local": LocalBackend.capabilities},
    "vertex.md": {"vertex": VERTEX, "local": LocalBackend.capabilities},
}


_NUMBERS = {"why_not", "max_request_bytes", "meter_resolution", "meter_delay"}


def _cell(declared: Capabilities, name: str) -> str:
    value = getattr(declared, name)
    if value is False or value is None:
        return "no"
    if type(value) is float:
        return f"{value:g} s" if value else {"meter_delay": "none"}.get(name, "any")
    return f"{value:,}" if type(value) is int else "yes"


def _table(backends: dict[str, Capabilities]) -> str:
    names = [field.name for field in attrs.fields(Capabilities) if field.name != "why_not"]
    head = "".join(f" `{backend}` |" for backend in backends)
    rows = [f"| `{name}` |" + "".join(f" {_cell(each, name)} |" for each in backends.values()) for name in names]
    return "\n".join([f"| capability |{head}", "|" + "---|" * (1 + len(backends)), *rows])


@pytest.mark.parametrize("page", TABLES)
def test_the_page_has_the_capabilities_that_are_declared(page):
    table = _table(TABLES[page])
    assert table in (PAGES / page).read_text(encoding="utf-8"), f"put this table into {page}:\n{table}"


@pytest.mark.parametrize(
    "declared",
    [AZUREML, CAPABILITIES, VERTEX, IOTEDGE, GREENGRASS],
    ids=["azureml", "sagemaker", "vertex", "iotedge", "greengrass"],
)
def test_what_a_cloud_refuses_is_refused_with_a_reason(declared):
    # Who can name a revision in a call needs no staging.
    plain = {*_NUMBERS, *(["staging"] if declared.pinned_invoke else [])}
    refused = [
        field.name
        for field in attrs.fields(Capabilities)
        if not getattr(declared, field.name) and field.name not in plain
    ]
    assert [name for name in refused if name not in declared.why_not] == []
