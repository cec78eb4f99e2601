"""Every value goes to JSON and comes back equal; what does not fit is refused at its place."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import typing

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeldeploy import values
from modeldeploy.engine.evidence import Evidence
from modeldeploy.engine.record import HistoryEntry, HistoryLine, Record
from modeldeploy.engine.rollback import RollbackCursor
from modeldeploy.engine.rollout import RolloutCursor
from modeldeploy.engine.single import SingleCursor
from modeldeploy.errors import ConfigurationError
from modeldeploy.stats.eprocess import Stratum
from modeldeploy.values.analysis import Analysis, Method
from modeldeploy.values.codec import from_document, from_json, to_document, to_json
from modeldeploy.values.gate import Gate, Metric
from modeldeploy.values.model import DType, Field, ModelVersion, Signature
from modeldeploy.values.names import check_name
from modeldeploy.values.rollout import RolloutPolicy, Strategy
from modeldeploy.values.schema import SCHEMA
from modeldeploy.values.serving import EndpointSpec, Payload, Scale, Traffic
from modeldeploy.values.ticket import Action, Phase, Ticket
from modeldeploy.values.tolerance import Tolerance

# Bytes stay in memory: a payload is never stored.
NOT_STORED = {Payload}
CLASSES = sorted(
    {
        cls
        for module in pkgutil.iter_modules(values.__path__)
        for cls in vars(importlib.import_module(f"modeldeploy.values.{module.name}")).values()
        if inspect.isclass(cls) and attrs.has(cls) and not cls.__name__.startswith("_")
    }
    - NOT_STORED
    | {Record, HistoryEntry, HistoryLine, RolloutCursor, RollbackCursor, SingleCursor},
    key=lambda cls: cls.__name__,
)

names = st.from_regex(r"[a-z][a-z0-9-]{1,10}[a-z0-9]", fullmatch=True)
digests = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)
texts = st.text(max_size=8)
numbers = st.floats(0, 1e6, allow_nan=False)
mappings = st.dictionaries(texts, texts, max_size=2)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | texts, lambda inner: st.dictionaries(texts, inner, max_size=2)
)
field = st.builds(Field, names, st.sampled_from(DType), st.tuples(st.none() | st.integers(0, 9)), st.booleans())
tables = st.builds(lambda a, b, share: Traffic({a: 100}, {b: share}), names, names, st.integers(0, 100))

st.register_type_strategy(Field, field)
st.register_type_strategy(Signature, st.builds(lambda one, two: Signature((one,), (two,)), field, field))
st.register_type_strategy(
    ModelVersion,
    st.builds(ModelVersion, names, st.just("1.0.0-rc.1"), digests, texts, texts, st.from_type(Signature)),
)
st.register_type_strategy(Traffic, tables)
st.register_type_strategy(Scale, st.builds(Scale, st.integers(1, 9)))
st.register_type_strategy(EndpointSpec, st.builds(EndpointSpec, names, mappings))
chances = st.floats(0.001, 0.999)
metrics = st.sampled_from([Metric.ERROR_RATE, Metric.P95_LATENCY])
absolute = st.builds(Gate, metrics, chances, st.just(value=False))
relative = st.builds(Gate, metrics, st.floats(1, 30), st.just(value=True))
gates = absolute | relative
pairs = st.tuples(numbers, numbers)
st.register_type_strategy(Gate, gates)
st.register_type_strategy(Tolerance, st.builds(Tolerance, pairs, pairs, pairs))
st.register_type_strategy(
    Analysis, st.builds(Analysis, st.sampled_from(Method), chances, chances, st.floats(1.1, 30), chances)
)
st.register_type_strategy(
    RolloutPolicy,
    st.builds(
        lambda steps, gates: RolloutPolicy(Strategy.CANARY, tuple(sorted(steps)), soak=1.5, gates=tuple(gates)),
        st.sets(st.integers(1, 100), min_size=1, max_size=3),
        st.lists(gates, max_size=2),
    ),
)


def _fields(cls: type) -> st.SearchStrategy:
    """Build any instance, field by field."""
    hints = typing.get_type_hints(cls)
    return st.builds(cls, **{each.name: _of(cls, each.name, hints[each.name]) for each in attrs.fields(cls)})


def _of(cls: type, name: str, hint: object) -> st.SearchStrategy:
    if (cls.__name__, name) == ("BatchSpec", "name"):
        return names
    plainer = {
        float: numbers,
        float | None: st.none() | numbers,
        int: st.integers(1, 10**9),
        int | None: st.integers(1, 9),
    }
    if hint in plainer:
        return plainer[hint]
    return st.dictionaries(texts, plain, max_size=2) if "Any" in str(hint) else st.from_type(hint)


counts = st.integers(0, 10**6)
strata = st.lists(st.builds(Stratum, *[counts] * 6), max_size=2).map(tuple)
st.register_type_strategy(
    Evidence,
    st.builds(Evidence, numbers, counts, st.dictionaries(texts, strata, max_size=2), strata, blind=st.none() | numbers),
)
BY_HAND = {Analysis, Tolerance, Field, Signature, ModelVersion, Traffic, Scale, EndpointSpec, Gate, RolloutPolicy}
for each in set(CLASSES) - BY_HAND:
    st.register_type_strategy(each, _fields)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_value_comes_back_equal(cls):
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.from_type(cls))
    def comes_back(value):
        assert from_json(cls, json.loads(json.dumps(to_json(value)))) == value
        assert from_document(cls, json.loads(json.dumps(to_document(value)))) == value

    comes_back()


def test_a_document_of_another_schema_is_refused():
    for document in ({**to_document(Scale()), "schema": SCHEMA + 1}, {}, None, []):
        with pytest.raises(ConfigurationError, match="stored Scale has schema"):
            from_document(Scale, document)


@pytest.mark.parametrize(
    ("cls", "data", "place"),
    [
        (Scale, {"workers": "2"}, "Scale.workers is '2', not int"),
        (Scale, {"workers": True}, "Scale.workers is True, not int"),
        (Scale, {"worker": 2}, r"Scale has unknown fields \['worker'\]"),
        (Scale, [], r"Scale is \[\], not dict"),
        (Traffic, {"weights": {"a": 100.0}}, r"Traffic.weights\['a'\] is 100.0, not int"),
        (
            Signature,
            {"inputs": [{"name": "x", "dtype": "double"}], "outputs": []},
            r"Signature.inputs\[0\].dtype is 'double'",
        ),
        (Ticket, {"action": "put-revision"}, "Ticket cannot be read"),
        (Ticket, {"action": "put-revision", "target": None}, "Ticket.target is None, not str"),
        (Ticket, {"action": "put-revision", "target": "x", "fraction": "half"}, "Ticket.fraction is 'half'"),
    ],
)
def test_what_does_not_fit_is_refused_at_its_place(cls, data, place):
    with pytest.raises(ConfigurationError, match=place):
        from_json(cls, data)


def test_a_whole_number_may_stand_for_a_float():
    ticket = from_json(Ticket, {"action": "set-traffic", "target": "x", "poll_after": 2})
    assert (ticket.poll_after, type(ticket.poll_after)) == (2.0, float)


def test_what_cannot_be_stored_is_refused():
    with pytest.raises(TypeError, match="bytes is not a value that can be stored"):
        to_json(Payload(b"x"))


def test_enums_are_stored_by_value():
    ticket = Ticket(Action.PUT_JOB, "job", phase=Phase.FAILED)
    assert to_json(ticket)["action"] == "put-job"
    assert check_name(to_json(ticket)["target"], "x") == "job"
