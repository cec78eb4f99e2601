"""What a device is told to run."""

from __future__ import annotations

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.backends.iotedge import IoTEdgeOptions, manifest
from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.simulate.iothub.schema import faults
from modeldeploy.values.model import DType, Field, Signature
from modeldeploy.values.serving import Revision

HERE = manifest.Defaults(image="registry.example/{model}:{version}-{digest}")
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)


def agent_of(content):
    return content["modulesContent"]["$edgeAgent"]["properties.desired"]


def test_a_manifest_is_whole_and_right(revisions):
    content = manifest.content("plant", revisions[0], HERE)
    assert faults(content) == []
    agent = agent_of(content)
    images = [each["settings"]["image"] for each in agent["systemModules"].values()]
    assert images == ["mcr.microsoft.com/azureiotedge-agent:1.6", "mcr.microsoft.com/azureiotedge-hub:1.6"]
    module = agent["modules"]["plant"]
    digest = revisions[0].model.digest
    assert module["settings"]["image"] == f"registry.example/iris:1.0.0-{digest[7:19]}"
    assert module["version"] == revisions[0].id
    env = {name: each["value"] for name, each in module["env"].items()}
    assert (env["MODELDEPLOY_REVISION"], env["MODELDEPLOY_DIGEST"]) == (revisions[0].id, digest)


def test_a_layer_is_right_and_brings_no_system_modules(revisions):
    content = manifest.content("plant", revisions[0], attrs.evolve(HERE, layered=True))
    assert faults(content) == []
    assert list(content["modulesContent"]["$edgeAgent"]) == ["properties.desired.modules.plant"]
    assert "$edgeHub" not in content["modulesContent"]


def test_the_port_is_published_on_the_devices_loopback_alone(revisions):
    revision = Revision.of(revisions[0].model, options=IoTEdgeOptions(port=9000))
    settings = agent_of(manifest.content("plant", revision, HERE))["modules"]["plant"]["settings"]
    bindings = manifest.create_options(settings)["HostConfig"]["PortBindings"]
    assert bindings == {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "9000"}]}


@pytest.mark.parametrize("layered", [False, True])
def test_the_revision_rides_along_and_is_read_back_whole(revisions, layered):
    content = manifest.content("plant", revisions[1], attrs.evolve(HERE, layered=layered))
    assert manifest.record(json.loads(json.dumps(content))) == revisions[1]


def test_a_record_that_somebody_changed_is_refused(revisions):
    content = manifest.content("plant", revisions[1], HERE)
    parts = content["modulesContent"]["plant"]["properties.desired"]["modeldeploy"]["record"]
    parts["00"] = "A" * len(parts["00"])
    with pytest.raises(IntegrityError, match="no readable record"):
        manifest.record(content)
    del content["modulesContent"]["plant"]
    with pytest.raises(IntegrityError, match="no module has one"):
        manifest.record(content)


def test_a_signature_that_no_twin_can_hold_is_refused(revisions):
    """Values of a twin are limited; what would be cut off by the service is refused before it is sent."""
    # Names that do not compress: 2,000 columns of hexadecimal digits.
    import hashlib

    names = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(2_000)]
    wide = Signature(tuple(Field(name, DType.FLOAT32) for name in names), (Field("y", DType.INT64),))
    revision = Revision.of(attrs.evolve(revisions[0].model, signature=wide))
    with pytest.raises(ConfigurationError, match="too large for the twin"):
        manifest.content("plant", revision, HERE)


@given(st.dictionaries(TEXTS, st.one_of(TEXTS, st.integers(), st.lists(TEXTS, max_size=5)), max_size=30))
def test_create_options_are_cut_at_512_characters_and_put_together_again(options):
    try:
        found = manifest.settings("server:1", options)
    except ConfigurationError:
        assert len(json.dumps(options, separators=(",", ":"))) > 4096
        return
    pieces = {name: text for name, text in found.items() if name != "image"}
    assert all(len(text) <= 512 for text in pieces.values())
    assert list(pieces) == ["createOptions", *(f"createOptions{number:02d}" for number in range(1, len(pieces)))]
    assert manifest.create_options(found) == options


def test_create_options_of_600_characters_take_two_values():
    found = manifest.settings("server:1", {"Labels": {"a": "x" * 600}})
    assert [len(found[name]) for name in ("createOptions", "createOptions01")] == [512, 107]


def test_create_options_that_are_too_long_are_refused():
    with pytest.raises(ConfigurationError, match="have 5015 characters"):
        manifest.settings("server:1", {"Label": "x" * 5_003})


@pytest.mark.parametrize(
    ("image", "said"),
    [("", "needs the image"), ("server:{tag}", "field that is not known"), ("server:{0}", "field that is not known"), ("server:{", "field that is not known")],
)  # fmt: skip
def test_an_image_that_is_none_is_refused(revisions, image, said):
    with pytest.raises(ConfigurationError, match=said):
        manifest.content("plant", revisions[0], manifest.Defaults(image=image))


def test_registries_and_environment_go_along(revisions):
    registry = {"username": "u", "password": "p", "address": "registry.example"}
    defaults = attrs.evolve(HERE, registries={"own": registry}, environment={"LOG": "debug"})
    content = manifest.content("plant", revisions[0], defaults)
    assert faults(content) == []
    assert agent_of(content)["runtime"]["settings"]["registryCredentials"] == {"own": registry}
    assert agent_of(content)["modules"]["plant"]["env"]["LOG"] == {"value": "debug"}


@pytest.mark.parametrize(
    "options",
    [{"restart_policy": "sometimes"}, {"port": "0"}, {"create_options": "[]"}, {"create_options": "{"}, {"startup_order": "-1"}, {"imagee": "x"}],
)  # fmt: skip
def test_options_that_are_wrong_are_refused_by_name(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        IoTEdgeOptions.read(options, "revision")
