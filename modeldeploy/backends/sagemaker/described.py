"""What the service says of an endpoint and of its configuration, as values; pure, and tolerant of members that are not there."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from modeldeploy.backends.sagemaker import names
from modeldeploy.values.serving import WHOLE, Traffic


class Status(enum.StrEnum):
    """EndpointStatus of the service; one that is not known here is in transit."""

    CREATING = "Creating"
    UPDATING = "Updating"
    SYSTEM_UPDATING = "SystemUpdating"
    ROLLING_BACK = "RollingBack"
    IN_SERVICE = "InService"
    OUT_OF_SERVICE = "OutOfService"
    DELETING = "Deleting"
    FAILED = "Failed"
    UPDATE_ROLLBACK_FAILED = "UpdateRollbackFailed"

    @classmethod
    def of(cls, text: str) -> Status:
        """Read it; a word that came up later counts as a change under way."""
        return cls(text) if text in set(cls) else cls.SYSTEM_UPDATING

    @property
    def settled(self) -> bool:
        """Whether nothing is in flight."""
        return self in {self.IN_SERVICE, self.OUT_OF_SERVICE, self.FAILED, self.UPDATE_ROLLBACK_FAILED}

    @property
    def serves(self) -> bool:
        """Whether the old or the new configuration answers requests."""
        return self in {
            self.IN_SERVICE,
            self.UPDATING,
            self.SYSTEM_UPDATING,
            self.ROLLING_BACK,
            self.UPDATE_ROLLBACK_FAILED,
        }


@attrs.frozen
class Slot:
    """A variant as DescribeEndpoint shows it."""

    name: str
    weight: float
    """The one that holds now."""
    desired: float
    count: int = 0


@attrs.frozen
class Seen:
    """An endpoint as DescribeEndpoint shows it."""

    name: str
    arn: str
    status: Status
    config: str
    created: float
    changed: float
    production: tuple[Slot, ...] = ()
    shadow: tuple[Slot, ...] = ()
    pending: str = ""
    """The configuration that an update under way brings."""
    stage: str = ""
    """Where that update stands, in the service's words."""
    reason: str = ""

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Seen:
        """Read the answer of DescribeEndpoint."""
        pending = described.get("PendingDeploymentSummary") or {}
        return cls(
            name=described["EndpointName"],
            arn=described["EndpointArn"],
            status=Status.of(described["EndpointStatus"]),
            config=described.get("EndpointConfigName", ""),
            created=described["CreationTime"].timestamp(),
            changed=described["LastModifiedTime"].timestamp(),
            production=_slots(described.get("ProductionVariants")),
            shadow=_slots(described.get("ShadowProductionVariants")),
            pending=pending.get("EndpointConfigName", ""),
            stage=_stage(pending.get("ProductionVariants")),
            reason=described.get("FailureReason", ""),
        )

    @property
    def traffic(self) -> Traffic:
        """The table that holds now."""
        return table({slot.name: slot.weight for slot in self.production}, _copies(self.shadow, self.production))

    @property
    def aimed(self) -> Traffic:
        """The table that holds once a change of weights has landed."""
        return table({slot.name: slot.desired for slot in self.production}, _copies(self.shadow, self.production))

    @property
    def version(self) -> str:
        """Another one after every change of ours; scaling by the service does not change it."""
        weights = [[slot.name, slot.weight] for slot in (*self.production, *self.shadow)]
        return names.digest([self.created, self.config, weights, self.pending])[:16]


def _slots(summaries: Iterable[Mapping[str, Any]] | None) -> tuple[Slot, ...]:
    return tuple(
        Slot(
            each["VariantName"],
            float(each.get("CurrentWeight", each.get("DesiredWeight", 1.0))),
            float(each.get("DesiredWeight", each.get("CurrentWeight", 1.0))),
            int(each.get("CurrentInstanceCount", 0)),
        )
        for each in summaries or ()
    )


def _stage(summaries: Iterable[Mapping[str, Any]] | None) -> str:
    words = [
        status.get("StatusMessage") or status.get("Status", "")
        for each in summaries or ()
        for status in each.get("VariantStatus", ())
    ]
    return "; ".join(dict.fromkeys(word for word in words if word))


def table(weights: Mapping[str, float], copies: Mapping[str, int]) -> Traffic:
    """Make whole percents of relative weights by largest remainder; ours are whole percents already."""
    total = sum(weights.values())
    if total <= 0:
        return Traffic(shadow=copies)
    exact = {name: WHOLE * weight / total for name, weight in weights.items()}
    floors = {name: int(share + _ROUNDING) for name, share in exact.items()}
    by_rest = sorted(exact, key=lambda name: (floors[name] - exact[name], name))
    topped_up = set(by_rest[: WHOLE - sum(floors.values())])
    return Traffic({name: floor + (name in topped_up) for name, floor in floors.items()}, copies)


# The service keeps weights as 32-bit floats.
_ROUNDING = 1e-4


def _copies(shadow: Iterable[Slot], production: Iterable[Slot]) -> dict[str, int]:
    """Read how much is copied: the weight of a shadow variant is relative to that of the production variant."""
    whole = sum(slot.weight for slot in production)
    return {slot.name: min(WHOLE, round(WHOLE * slot.weight / whole)) for slot in shadow} if whole else {}


@attrs.frozen
class Variant:
    """A variant as a configuration has it; its name is the revision's id."""

    name: str
    model: str
    weight: float
    settings: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    """The other members of ProductionVariant: instance type and count, or the serverless configuration."""

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Variant:
        """Read a ProductionVariant."""
        rest = {key: value for key, value in described.items() if key not in _VARIANT_OWN}
        weight = float(described.get("InitialVariantWeight", 1.0))
        return cls(described["VariantName"], described.get("ModelName", ""), weight, rest)

    def request(self) -> dict[str, Any]:
        """Write a ProductionVariant; a weight of 0 is written, for left out it would be 1."""
        own = {"VariantName": self.name, "ModelName": self.model, "InitialVariantWeight": float(self.weight)}
        return {**self.settings, **own}


_VARIANT_OWN = frozenset({"VariantName", "ModelName", "InitialVariantWeight"})
_EXTRAS = ("DataCaptureConfig", "AsyncInferenceConfig", "KmsKeyId", "MetricsConfig")


@attrs.frozen
class Config:
    """An EndpointConfig: immutable at the service, named by its content."""

    production: tuple[Variant, ...]
    shadow: tuple[Variant, ...] = ()
    extras: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    """What belongs to the endpoint as a whole: data capture, the asynchronous queue, the key of its volumes."""

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Config:
        """Read the answer of DescribeEndpointConfig."""
        return cls(
            tuple(Variant.of(each) for each in described["ProductionVariants"]),
            tuple(Variant.of(each) for each in described.get("ShadowProductionVariants", ())),
            {key: described[key] for key in _EXTRAS if described.get(key)},
        )

    @property
    def variants(self) -> tuple[Variant, ...]:
        """All of them."""
        return (*self.production, *self.shadow)

    def find(self, revision: str) -> Variant | None:
        """Find the variant of a revision, or None."""
        return next((each for each in self.variants if each.name == revision), None)

    @property
    def asynchronous(self) -> bool:
        """Whether requests wait in a queue."""
        return "AsyncInferenceConfig" in self.extras

    @property
    def serverless(self) -> bool:
        """Whether any variant has no instances."""
        return any("ServerlessConfig" in each.settings for each in self.variants)

    def name(self, endpoint: str) -> str:
        """Derive its name."""
        return names.config_name(endpoint, self._content())

    def _content(self) -> dict[str, Any]:
        found: dict[str, Any] = {"ProductionVariants": [each.request() for each in self.production], **self.extras}
        if self.shadow:
            found["ShadowProductionVariants"] = [each.request() for each in self.shadow]
        return found

    def request(self, endpoint: str, tags: Mapping[str, str]) -> dict[str, Any]:
        """Write the parameters of CreateEndpointConfig."""
        all_tags = {**tags, names.TAG_ENDPOINT: endpoint, names.TAG_SPEC: names.digest(self._content())}
        return {"EndpointConfigName": self.name(endpoint), **self._content(), "Tags": tag_list(all_tags)}

    def with_traffic(self, traffic: Traffic) -> Config:
        """Give the same revisions with this table as their first weights; those that are sent copies become shadow variants."""
        copied = [each for each in self.variants if traffic.copies.get(each.name)]
        others = [each for each in self.variants if not traffic.copies.get(each.name)]
        return attrs.evolve(
            self,
            production=tuple(attrs.evolve(each, weight=float(traffic.share(each.name))) for each in others),
            shadow=tuple(attrs.evolve(each, weight=float(traffic.copies[each.name])) for each in copied),
        )

    def with_variant(self, variant: Variant) -> Config:
        """Add a variant."""
        return attrs.evolve(self, production=(*self.production, variant))

    def without(self, revision: str) -> Config:
        """Take a variant away."""
        return attrs.evolve(
            self,
            production=tuple(each for each in self.production if each.name != revision),
            shadow=tuple(each for each in self.shadow if each.name != revision),
        )


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Write tags as the service takes them."""
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]
