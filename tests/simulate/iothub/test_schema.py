"""What a deployment manifest must hold."""

from __future__ import annotations

import pytest

from modeldeploy.simulate.iothub.schema import faults, is_layer

TUTORIAL = {
    "modulesContent": {
        "$edgeAgent": {
            "properties.desired": {"modules": {"scorer": {"settings": {"image": "scorer:1", "createOptions": "{}"}}}}
        }
    }
}


def test_the_manifest_of_the_tutorials_has_exactly_seven_faults():
    """It names an image and nothing of what the runtime asks for; each missing thing is told by its name."""
    found = faults(TUTORIAL)
    agent, module = (
        "modulesContent/$edgeAgent/properties.desired",
        "modulesContent/$edgeAgent/properties.desired/modules/scorer",
    )
    assert found == sorted(
        [
            "modulesContent: '$edgeHub' is a required property",
            f"{agent}: 'runtime' is a required property",
            f"{agent}: 'schemaVersion' is a required property",
            f"{agent}: 'systemModules' is a required property",
            f"{module}: 'restartPolicy' is a required property",
            f"{module}: 'status' is a required property",
            f"{module}: 'type' is a required property",
        ]
    )


def test_a_whole_manifest_and_a_layer_are_right(manifest_of):
    assert faults(manifest_of()) == []
    assert faults(manifest_of(layer=True)) == []
    assert is_layer(manifest_of(layer=True))
    assert not is_layer(manifest_of())


def _agent(manifest):
    return manifest["modulesContent"]["$edgeAgent"]["properties.desired"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda agent: agent["modules"]["scorer"].update(restartPolicy="sometimes"), "'sometimes' is not one of"),
        (lambda agent: agent["modules"]["scorer"].update(status="on"), "'on' is not one of"),
        (lambda agent: agent["modules"]["scorer"]["settings"].update(createOptions={"Env": []}), "is not of type 'string'"),
        (lambda agent: agent["modules"]["scorer"].update(env={"A": "1"}), "is not of type 'object'"),
        (lambda agent: agent["modules"].update({"sc.orer": {}}), "does not match any of the regexes"),
        (lambda agent: agent["modules"]["scorer"].update(startupOrder=-1), "is less than the minimum"),
        (lambda agent: agent["modules"]["scorer"].update(imagePullPolicy="always"), "'always' is not one of"),
        (lambda agent: agent["systemModules"].pop("edgeHub"), "'edgeHub' is a required property"),
        (lambda agent: agent.update(extra=1), "Additional properties are not allowed"),
    ],
    ids=["restart", "status", "options-as-object", "env", "name", "order", "pull", "hub", "unknown"],
)  # fmt: skip
def test_one_thing_wrong_is_one_fault(manifest_of, change, said):
    manifest = manifest_of()
    change(_agent(manifest))
    (found,) = faults(manifest)
    assert said in found


def test_a_layer_brings_no_system_modules(manifest_of):
    manifest = manifest_of(layer=True)
    manifest["modulesContent"]["$edgeAgent"]["properties.desired.systemModules.edgeAgent"] = {}
    assert faults(manifest) != []
