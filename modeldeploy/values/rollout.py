"""How a new revision takes over, and what must hold while it does."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import attrs

from modeldeploy.errors import ConfigurationError
from modeldeploy.values.analysis import Analysis, Method
from modeldeploy.values.gate import Gate, Metric
from modeldeploy.values.serving import WHOLE

if TYPE_CHECKING:
    from modeldeploy.values.forecast import Forecast

DEFAULT_SAMPLE = 50
"""Answers of the new revision in a step, below which no gate passes."""
_PATIENCE_S = 600.0
_BLIND_LIMIT_S = 300.0
_INTERVAL_S = 1.0
_SEQUENTIAL = Analysis()
_SOURCES = ("header", "field")
_RISING = "use rising whole percentages from 1 to 100, for example (5, 25, 50)"

T = TypeVar("T", bound=enum.StrEnum)
GateLike: TypeAlias = "str | Gate | Callable[..., Any]"
"""What a policy takes for a gate: ``"error_rate <= 1%"``, a Gate, or a function of a Look."""


class Strategy(enum.StrEnum):
    """The shapes of a rollout."""

    ALL_AT_ONCE = "all-at-once"
    CANARY = "canary"
    LINEAR = "linear"
    BLUE_GREEN = "blue-green"
    AB_TEST = "ab-test"
    SHADOW = "shadow"
    RINGS = "rings"


class OnInconclusive(enum.StrEnum):
    """What happens when a step's time is up and the evidence does not suffice."""

    HOLD = "hold"
    PROMOTE = "promote"
    ROLLBACK = "rollback"


class OnFailure(enum.StrEnum):
    """What happens when the provider fails in mid-rollout, after the retries."""

    ROLLBACK = "rollback"
    HOLD = "hold"
    HALT = "halt"
    """Of rings: stop there, when the provider or too many devices failed; nothing spreads until a user says what then."""


def _gates(gates: Iterable[GateLike]) -> tuple[Gate, ...]:
    if isinstance(gates, str):
        message = f"gates is one string: {gates!r}"
        raise ConfigurationError(message, hint=f"pass a list: [{gates!r}]")
    if not isinstance(gates, Iterable):
        message = f"gates is {gates!r}"  # type: ignore[unreachable]  # not everybody asks a type checker
        raise ConfigurationError(message, hint="pass a list, for example ['error_rate <= 1%']; [] asks nothing")
    return tuple(_gate(gate) for gate in gates)


def _gate(gate: GateLike) -> Gate:
    if isinstance(gate, Gate):
        return gate
    return Gate.parse(gate) if isinstance(gate, str) else Gate.custom(gate)


def _key(text: str) -> str:
    """Complete a key: a bare word is a field of the request."""
    if not text:
        return ""
    source, colon, name = (text if ":" in str(text) else f"field:{text}").partition(":")
    # Names of headers are ASCII.
    flags = re.ASCII if source == "header" else re.NOFLAG
    if not isinstance(text, str) or source not in _SOURCES or not re.fullmatch(r"[\w.-]+", name, flags):
        message = f"key is {text!r}"
        raise ConfigurationError(message, hint="use 'header:<name>' or 'field:<name>', for example 'header:x-user-id'")
    return f"{source}{colon}{name.lower() if source == 'header' else name}"


def _choice(kind: type[T], name: str, word: str) -> T:
    try:
        return kind(word)
    except ValueError as error:
        message = f"{name} is {word!r}"
        raise ConfigurationError(message, hint=f"one of {[each.value for each in kind]}") from error


def _analysis(given: str | Analysis) -> Analysis:
    # mypy takes no classmethod for a converter.
    return Analysis.of(given)


def _on_inconclusive(word: str) -> OnInconclusive:
    return _choice(OnInconclusive, "on_inconclusive", word)


def _on_failure(word: str) -> OnFailure:
    return _choice(OnFailure, "on_failure", word)


@attrs.frozen
class RolloutPolicy:
    """How a new revision takes over: the percentages it walks through, how long each lasts, and the gates that must hold.

    Use the constructors ``all_at_once``, ``canary``, ``linear``, ``blue_green``, ``ab_test`` and ``shadow``; for devices ``rings``.
    Durations are seconds.
    """

    strategy: Strategy
    steps: tuple[int, ...]
    """Percentages of the new revision in order; the last is 100, or 0 for a shadow that is not promoted."""
    soak: float = 0.0
    """How long each step lasts at least before its gates decide."""
    bake: float = 0.0
    """How long the gates still watch at 100 %."""
    gates: tuple[Gate, ...] = attrs.field(default=(), converter=_gates)
    min_sample: int = DEFAULT_SAMPLE
    max_soak: float = _PATIENCE_S
    """How long a step may wait for enough evidence; then ``on_inconclusive`` decides."""
    on_inconclusive: OnInconclusive = attrs.field(default=OnInconclusive.HOLD, converter=_on_inconclusive)
    interval: float = _INTERVAL_S
    """How often the gates look."""
    copies: int = 0
    """Percentage of the requests that is copied to the new revision while it has no share of the traffic."""
    key: str = attrs.field(default="", converter=_key)
    """What assignment sticks to: ``"header:<name>"`` or ``"field:<name>"``; empty draws anew for each request."""
    analysis: Analysis = attrs.field(default=_SEQUENTIAL, converter=_analysis)
    blind_limit: float = _BLIND_LIMIT_S
    """How long the metrics may be unreadable before traffic goes back to stable."""
    on_failure: OnFailure = attrs.field(default=OnFailure.ROLLBACK, converter=_on_failure)
    min_devices: int = 0
    """Of rings: how many devices must have answered before a step is over."""
    max_failed: int = 0
    """Of rings: how many devices may fail before the rollout is stopped."""

    def __attrs_post_init__(self) -> None:
        _check_steps(self.steps, copied=self.copies > 0)
        _check_percent("copies", self.copies, least=0)
        for name in ("soak", "bake", "max_soak", "blind_limit"):
            _check_seconds(name, getattr(self, name))
        _check_seconds("interval", self.interval, above=0)
        if isinstance(self.min_sample, bool) or not isinstance(self.min_sample, int) or self.min_sample < 1:
            message = f"min_sample is {self.min_sample!r}"
            raise ConfigurationError(message, hint="use 1 or more requests")
        if self.analysis.method is not Method.SEQUENTIAL and any(gate.metric is Metric.LATENCY for gate in self.gates):
            message = f"a gate on latency cannot be decided by {self.analysis.method.value}"
            raise ConfigurationError(message, hint="use a quantile such as p95_latency, or the sequential analysis")
        strict = next((gate for gate in self.gates if gate.relative and gate.limit < 1), None)
        if self.analysis.method is Method.SEQUENTIAL and strict is not None:
            message = f"gate '{strict}' asks for less than stable's, which the sequential analysis does not show"
            hint = "say how much worse is tolerated, 1x or more; RolloutPolicy.ab_test(...) shows that a revision is better"
            raise ConfigurationError(message, hint=hint)
        if not self.copies and any(gate.metric is Metric.DISAGREEMENT for gate in self.gates):
            message = f"policy {self.strategy.value} has a gate on disagreement and copies no requests"
            raise ConfigurationError(message, hint="RolloutPolicy.shadow(...) compares the answers to the same request")
        if self.on_failure is OnFailure.HALT and not self.asks_devices:
            message = f"on_failure='halt' is of rings, and this is a {self.strategy.value} rollout"
            raise ConfigurationError(message, hint="use 'hold' or 'rollback'")

    @classmethod
    def all_at_once(cls) -> RolloutPolicy:
        """Switch everything at once when the new revision is ready and reproduces its golden outputs."""
        return cls(Strategy.ALL_AT_ONCE, (WHOLE,))

    @classmethod
    def canary(  # noqa: PLR0913 - the whole of a canary, all of it optional and named
        cls,
        steps: int | Iterable[int] = (5, 25, 50),
        *,
        soak: float = 60.0,
        gates: Iterable[GateLike] = (),
        key: str = "",
        min_sample: int = DEFAULT_SAMPLE,
        max_soak: float | None = None,
        on_inconclusive: str = "hold",
        on_failure: str = "rollback",
        blind_limit: float = _BLIND_LIMIT_S,
        analysis: str | Analysis = "sequential",
        interval: float = _INTERVAL_S,
    ) -> RolloutPolicy:
        """Walk through ``steps`` (percent), each for at least ``soak`` seconds and until its gates pass; 100 follows by itself.

        With a ``key`` whoever was answered by the new revision once is not sent back to stable while its share grows.
        """
        walk = _percentages(steps)
        return cls(
            Strategy.CANARY,
            _up(walk) if walk else walk,
            soak=soak,
            gates=gates,
            min_sample=min_sample,
            max_soak=_patience(soak, max_soak),
            on_inconclusive=on_inconclusive,
            interval=interval,
            key=key,
            analysis=analysis,
            blind_limit=blind_limit,
            on_failure=on_failure,
        )

    @classmethod
    def linear(  # noqa: PLR0913 - likewise
        cls,
        step: int = 10,
        *,
        every: float = 60.0,
        gates: Iterable[GateLike] = (),
        key: str = "",
        min_sample: int = DEFAULT_SAMPLE,
        max_soak: float | None = None,
        on_inconclusive: str = "hold",
        on_failure: str = "rollback",
        blind_limit: float = _BLIND_LIMIT_S,
        analysis: str | Analysis = "sequential",
        interval: float = _INTERVAL_S,
    ) -> RolloutPolicy:
        """Add ``step`` percent every ``every`` seconds while the gates pass."""
        _check_percent("step", step, least=1)
        return cls(
            Strategy.LINEAR,
            _up(tuple(range(step, WHOLE, step))),
            soak=every,
            gates=gates,
            min_sample=min_sample,
            max_soak=_patience(every, max_soak),
            on_inconclusive=on_inconclusive,
            interval=interval,
            key=key,
            analysis=analysis,
            blind_limit=blind_limit,
            on_failure=on_failure,
        )

    @classmethod
    def blue_green(
        cls,
        *,
        bake: float = 300.0,
        gates: Iterable[GateLike] = (),
        min_sample: int = DEFAULT_SAMPLE,
        on_failure: str = "rollback",
        blind_limit: float = _BLIND_LIMIT_S,
        analysis: str | Analysis = "sequential",
        interval: float = _INTERVAL_S,
    ) -> RolloutPolicy:
        """Switch everything at once, keep the old revision warm, and go back when a gate fails within ``bake`` seconds."""
        return cls(
            Strategy.BLUE_GREEN,
            (WHOLE,),
            bake=bake,
            gates=gates,
            min_sample=min_sample,
            interval=interval,
            analysis=analysis,
            blind_limit=blind_limit,
            on_failure=on_failure,
        )

    @classmethod
    def ab_test(  # noqa: PLR0913 - likewise
        cls,
        split: int = 50,
        *,
        key: str,
        until: float,
        soak: float = 0.0,
        gates: Iterable[GateLike] = (),
        min_sample: int = DEFAULT_SAMPLE,
        on_inconclusive: str = "hold",
        on_failure: str = "rollback",
        blind_limit: float = _BLIND_LIMIT_S,
        analysis: str | Analysis = "sequential",
        interval: float = _INTERVAL_S,
    ) -> RolloutPolicy:
        """Give ``split`` percent of the keys to the new revision until the outcomes say whose answers are better, or ``until`` seconds are over.

        Outcomes are what you report by ``Rollout.score``. When the new revision is better it takes all traffic; when stable is, it gets
        everything back; when neither is shown by the end, ``on_inconclusive`` decides. Not before ``soak`` seconds.
        """
        _check_percent("split", split, least=1, most=WHOLE - 1)
        _check_seconds("until", until, above=0)
        if not key:
            message = "an A/B test has no key"
            raise ConfigurationError(message, hint="name what stays with its revision, for example 'header:x-user-id'")
        return cls(
            Strategy.AB_TEST,
            _up((split,)),
            soak=soak,
            gates=(Gate(Metric.OUTCOME, 1.0, relative=True), *_gates(gates)),
            min_sample=min_sample,
            max_soak=until,
            on_inconclusive=on_inconclusive,
            interval=interval,
            key=key,
            analysis=analysis,
            blind_limit=blind_limit,
            on_failure=on_failure,
        )

    @classmethod
    def shadow(  # noqa: PLR0913 - likewise
        cls,
        percent: int = 100,
        *,
        soak: float = 60.0,
        gates: Iterable[GateLike] = (),
        then: int | Iterable[int] = (),
        min_sample: int = DEFAULT_SAMPLE,
        max_soak: float | None = None,
        on_inconclusive: str = "hold",
        on_failure: str = "rollback",
        blind_limit: float = _BLIND_LIMIT_S,
        analysis: str | Analysis = "sequential",
        interval: float = _INTERVAL_S,
    ) -> RolloutPolicy:
        """Copy ``percent`` of the requests to the new revision, whose answers nobody sees, for ``soak`` seconds and until its gates pass.

        ``then`` are the steps of a canary that follows. Without them the revision stays warm and without traffic: roll it out when you like.
        """
        _check_percent("percent", percent, least=1)
        after = _percentages(then)
        return cls(
            Strategy.SHADOW,
            (0, *(_up(after) if after else ())),
            soak=soak,
            gates=gates,
            min_sample=min_sample,
            max_soak=_patience(soak, max_soak),
            on_inconclusive=on_inconclusive,
            interval=interval,
            copies=percent,
            analysis=analysis,
            blind_limit=blind_limit,
            on_failure=on_failure,
        )

    @classmethod
    def rings(
        cls,
        steps: int | Iterable[int] = (10, 50, 100),
        *,
        min_devices: int = 2,
        max_failed: int = 0,
        patience: float = _PATIENCE_S,
        soak: float = 60.0,
        on_failure: str = "halt",
        interval: float = _INTERVAL_S,
    ) -> RolloutPolicy:
        """Reach ``steps`` (percent of a fleet's devices), each until its devices are well for ``soak`` seconds; 100 follows by itself.

        A step is raised until its ring holds ``min_devices`` reachable devices, and over when every reachable device of it has answered and at
        least so many have. Devices that are offline are not waited for. When more than ``max_failed`` devices failed their self-test or are not
        well, the rollout halts where it is (``on_failure="halt"``: ``resume()`` looks again, ``abort()`` takes it back) or goes back by itself
        (``"rollback"``). After ``patience`` seconds without enough answers it waits for a user.
        """
        _check_count("min_devices", min_devices, least=1)
        _check_count("max_failed", max_failed)
        walk = _percentages(steps)
        if on_failure == OnFailure.HOLD:
            message = f"on_failure is {on_failure!r}"
            raise ConfigurationError(message, hint="of rings: 'halt' or 'rollback'")
        return cls(
            Strategy.RINGS,
            _up(walk) if walk else walk,
            soak=soak,
            bake=soak,
            max_soak=patience,
            interval=interval,
            on_failure=on_failure,
            min_devices=min_devices,
            max_failed=max_failed,
        )

    @property
    def asks_devices(self) -> bool:
        """Whether devices decide how far it goes."""
        return self.strategy is Strategy.RINGS

    @property
    def promotes(self) -> bool:
        """Whether the new revision has everything at the end."""
        return self.steps[-1] == WHOLE

    def forecast(self, *, rps: float, base_rate: float = 0.01) -> Forecast:
        """Say how long the gates need until they know: to take a worse revision back, and to let a good one pass.

        ``rps`` is the requests a second of the whole endpoint (new keys a second, where assignment sticks to a key), ``base_rate`` the share
        (0-1) of stable's answers that fail. Warns where a step's time runs out before a verdict can come, and says what would help.

        >>> print(RolloutPolicy.canary((5, 50), gates=["error_rate <= 1x"]).forecast(rps=200, base_rate=0.01))
        at 200 requests/s of which 1 % are bad
        share  gate              2 times as bad: back after  as good: passes after
        5 %    error_rate <= 1x  16,565 requests, 83 s       26,102 requests, 2 min
        50 %   error_rate <= 1x  3,526 requests, 18 s        6,264 requests, 31 s
        in all 3 min for a revision as good as stable
        """
        from modeldeploy.values.forecast import expect

        return expect(self, rps=rps, base_rate=base_rate)

    def __str__(self) -> str:
        walk = " > ".join(f"{step} %" if step else f"copies of {self.copies} %" for step in self.steps)
        gates = f", gates: {'; '.join(str(gate) for gate in self.gates)}" if self.gates else ""
        sticky = f", sticky by {self.key}" if self.key else ""
        votes = f", {self.min_devices} devices or more, {self.max_failed} may fail" if self.asks_devices else ""
        return f"{self.strategy.value} {walk}{sticky}{votes}{gates}"


def _percentages(steps: int | Iterable[int]) -> tuple[int, ...]:
    if isinstance(steps, int):
        return (steps,)
    given: object = steps
    if isinstance(given, str) or not isinstance(given, Iterable):
        message = f"steps are {steps!r}"
        raise ConfigurationError(message, hint=_RISING)
    return tuple(steps)


def _up(steps: tuple[int, ...]) -> tuple[int, ...]:
    """End with everything."""
    return steps if steps[-1:] == (WHOLE,) else (*steps, WHOLE)


def _patience(soak: float, given: float | None) -> float:
    _check_seconds("soak", soak)
    return max(10 * soak, _PATIENCE_S) if given is None else given


def _check_percent(name: str, value: object, *, least: int, most: int = WHOLE) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        message = f"{name} is {value!r}"
        raise ConfigurationError(message, hint=f"use a whole number from {least} to {most} percent")


def _check_count(name: str, value: object, *, least: int = 0) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        message = f"{name} is {value!r}"
        raise ConfigurationError(message, hint=f"use a whole number of devices, {least} or more")


def _check_steps(steps: tuple[int, ...], *, copied: bool) -> None:
    least = 0 if copied else 1
    whole = all(isinstance(step, int) and not isinstance(step, bool) and least <= step <= WHOLE for step in steps)
    rising = whole and list(steps) == sorted(set(steps))
    if not (steps and rising):
        message = f"steps are {steps!r}"
        raise ConfigurationError(message, hint=_RISING)


def _check_seconds(name: str, value: float, *, above: float | None = None) -> None:
    number = not isinstance(value, bool) and isinstance(value, int | float)
    if not number or not 0 <= value < float("inf") or (above is not None and value <= above):
        message = f"{name} is {value!r}"
        least = "0 or more" if above is None else f"above {above:g}"
        raise ConfigurationError(message, hint=f"use a number of seconds, {least}")
