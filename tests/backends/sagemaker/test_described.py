"""What the service says, as values: weights to whole percents, configurations to names and back."""

from __future__ import annotations

import datetime as dt

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeldeploy.backends.cloud.steps import Step
from modeldeploy.backends.sagemaker import names
from modeldeploy.backends.sagemaker.described import Config, Seen, Variant, table
from modeldeploy.backends.sagemaker.translate import weights
from modeldeploy.values.model import DType, Field, ModelVersion, Signature
from modeldeploy.values.serving import Revision, Traffic
from modeldeploy.values.ticket import Action, Ticket

AT = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
CONFIG = Config(
    (
        Variant("v1", "m1", 90.0, {"InstanceType": "ml.m5.large"}),
        Variant("v2", "m2", 10.0, {"InstanceType": "ml.m5.large"}),
    ),
    extras={"KmsKeyId": "key"},
)


def described(**more):
    return {
        "EndpointName": "iris",
        "EndpointArn": "arn",
        "EndpointStatus": "InService",
        "EndpointConfigName": "c",
        "CreationTime": AT,
        "LastModifiedTime": AT,
        **more,
    }


def slot(name, current, desired=None):
    return {"VariantName": name, "CurrentWeight": current, "DesiredWeight": current if desired is None else desired}


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 100), min_size=1))
def test_whole_percents_come_back_as_they_were_sent(weights):
    total = sum(weights.values())
    found = table({name: float(weight) for name, weight in weights.items()}, {})
    if total == 100:
        assert found.weights == weights
    assert sum(found.weights.values()) == (100 if total else 0)


@pytest.mark.parametrize("factor", [0.01, 1.0, 3.0])
def test_weights_are_relative_and_kept_as_short_floats(factor):
    import struct

    short = {name: struct.unpack("f", struct.pack("f", weight * factor))[0] for name, weight in (("a", 33), ("b", 67))}
    assert table(short, {}).weights == {"a": 33, "b": 67}


def test_thirds_are_told_in_whole_percents():
    assert table({"a": 1.0, "b": 1.0, "c": 1.0}, {}).weights == {"a": 34, "b": 33, "c": 33}


def test_the_table_that_holds_and_the_one_that_is_coming_are_two():
    seen = Seen.of(described(ProductionVariants=[slot("v1", 100.0, 0.0), slot("v2", 0.0, 100.0)]))
    assert (seen.traffic.live, seen.aimed.live) == ({"v1": 100}, {"v2": 100})


def test_a_shadows_weight_is_relative_to_productions():
    seen = Seen.of(described(ProductionVariants=[slot("v1", 100.0)], ShadowProductionVariants=[slot("v2", 25.0)]))
    assert seen.traffic == Traffic({"v1": 100}, {"v2": 25})


def test_an_endpoint_without_any_members_but_the_required_is_read():
    seen = Seen.of({key: value for key, value in described().items() if key != "EndpointConfigName"})
    assert (seen.config, seen.production, seen.traffic) == ("", (), Traffic())


def test_the_version_moves_with_weights_and_configuration_and_not_with_scaling():
    plain = Seen.of(described(ProductionVariants=[slot("v1", 100.0)]))
    scaled = attrs.evolve(plain, changed=5.0, production=(attrs.evolve(plain.production[0], count=9),))
    assert plain.version == scaled.version
    others = [
        attrs.evolve(plain, config="d"),
        attrs.evolve(plain, production=(attrs.evolve(plain.production[0], weight=50.0),)),
        attrs.evolve(plain, created=7.0),
        attrs.evolve(plain, pending="e"),
    ]
    assert len({plain.version, *(each.version for each in others)}) == 5


def test_a_configuration_goes_there_and_back():
    request = CONFIG.request("iris", {"team": "a"})
    assert Config.of(request) == CONFIG
    assert Config.of(request).name("iris") == request["EndpointConfigName"]
    assert {each["Key"] for each in request["Tags"]} == {"team", names.TAG_ENDPOINT, names.TAG_SPEC}


def test_another_content_has_another_name():
    changed = [
        CONFIG.with_traffic(Traffic({"v1": 50, "v2": 50})),
        CONFIG.without("v2"),
        attrs.evolve(CONFIG, extras={}),
    ]
    assert len({each.name("iris") for each in (CONFIG, *changed)}) == 4
    assert all(names.may_be_config(each.name("iris"), "iris") for each in changed)


def test_copies_make_a_shadow_variant_and_their_end_unmakes_it():
    copying = CONFIG.with_traffic(Traffic({"v1": 100}, {"v2": 20}))
    assert [each.name for each in copying.production] == ["v1"]
    assert [(each.name, each.weight) for each in copying.shadow] == [("v2", 20.0)]
    back = copying.with_traffic(Traffic({"v1": 100, "v2": 0}))
    assert ([each.weight for each in back.production], back.shadow) == ([100.0, 0.0], ())


def test_every_weight_is_written():
    assert weights(CONFIG, Traffic({"v2": 100})) == [
        {"VariantName": "v1", "DesiredWeight": 0.0},
        {"VariantName": "v2", "DesiredWeight": 100.0},
    ]


# ---------------------------------------------------------------- names


def revision(version="1.0.0", **changes):
    signature = Signature((Field("x", DType.FLOAT64),), (Field("y", DType.FLOAT64),))
    made = Revision.of(ModelVersion("iris", version, "sha256:" + "0" * 64, "/bundles/iris", "function", signature))
    return attrs.evolve(made, **changes)


def test_names_fit_the_service_however_long_ours_are():
    long = "e" + "n" * 31
    wide = revision(id="v" + "1" * 31)
    assert len(names.model_name(long, wide)) <= 63
    assert len(names.config_name(long, {})) <= 63


def test_a_models_name_depends_on_endpoint_revision_and_content():
    one, other = revision(), revision(options={"image": "mine"})
    made = {names.model_name("iris", one), names.model_name("rose", one), names.model_name("iris", other)}
    assert len(made) == 3
    assert names.may_be_model(names.model_name("iris", one), "iris", one.id)
    assert not names.may_be_model(names.model_name("iris", one), "iri", one.id)


def test_a_name_of_another_endpoint_is_no_name_of_ours():
    assert not names.may_be_config("iris-0123456789ab", "ris")
    assert not names.may_be_config("iris-0123456789ab-0123456789ab", "iris")
    assert names.may_be_config("iris-0123456789ab-0123456789ab", "iris-0123456789ab")


@pytest.mark.parametrize(
    "step", [Step("start"), Step("asked", "iris-0", 12.5), Step("ship", '["a b", 1]'), Step("prepare", at=3.0)]
)
def test_a_step_is_read_as_it_was_written(step):
    assert Step.of(Ticket(Action.PUT_REVISION, "iris", step=str(step))) == step
