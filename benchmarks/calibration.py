"""How often each way of judging a rollout errs, and how soon it sees what is wrong: simulated, seeded, printed as Markdown.

``python benchmarks/calibration.py`` takes about half a minute; ``python benchmarks/calibration.py 200`` runs fewer rollouts of each kind. The
evidence is that of ``modeldeploy.stats``, over arrays; ``tests/stats/test_calibration.py`` holds the two together, and the figures to bands.
Columns of what is wrong give the share of rollouts that were taken back and the median minutes until then.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from statistics import NormalDist

import attrs
import numpy as np

from modeldeploy.stats.eprocess import BETTER, RARER, WORSE

RPS = 20
LOOK_S = 30
SHARES = (0.05, 0.25, 0.5)
SEED = 20260401
ALPHA = BETA = 0.05
LIMIT = 0.01
OUTAGE_LOOKS = 4

Z_ONCE = NormalDist().inv_cdf(1 - ALPHA)


def z_for(looks: int) -> float:
    """The bound of a one-sided 5 % test at each of so many looks (Bonferroni)."""
    return NormalDist().inv_cdf(1 - ALPHA / looks)


# ---------------------------------------------------------------- evidence, over arrays whose last axis is the looks


def log_ratio(new_bad, stable_bad, share, base: float, bets=WORSE):
    """Ln of the evidence about the ratio after each look: log_fail_ratio, and log_pass_ratio with ``BETTER``."""
    logs = []
    for k in bets:
        growth = np.log1p((k - 1) * base * share / (base * share + 1 - share))
        logs.append(np.cumsum(new_bad * (np.log(k) - growth) - stable_bad * growth, axis=-1))
    return log_mean(logs)


def log_fail_rate(new_seen, new_bad, limit: float):
    return _log_rate(new_seen, new_bad, limit, [k for k in WORSE if k * limit < 1] or [(1 + limit) / 2 / limit])


def log_pass_rate(new_seen, new_bad, limit: float):
    return _log_rate(new_seen, new_bad, limit, RARER)


def _log_rate(new_seen, new_bad, limit, bets):
    bad = np.cumsum(new_bad, axis=-1)
    good = np.cumsum(new_seen, axis=-1) - bad
    return log_mean([bad * np.log(k) + good * (np.log1p(-k * limit) - np.log1p(-limit)) for k in bets])


def log_mean(logs):
    return np.logaddexp.reduce(logs, axis=0) - np.log(len(logs))


# ---------------------------------------------------------------- error rates


@attrs.frozen
class Counts:
    """Counts of each run (first axis) and look (second), and the new revision's share at each look."""

    share: np.ndarray
    new_seen: np.ndarray
    new_bad: np.ndarray
    stable_seen: np.ndarray
    stable_bad: np.ndarray

    def over(self, looks: int) -> tuple[np.ndarray, ...]:
        """The four counts in windows of so many looks, ending at each."""
        counts = (self.new_seen, self.new_bad, self.stable_seen, self.stable_bad)
        totals = [np.cumsum(each, axis=1) for each in counts]
        return tuple(total - np.pad(total, ((0, 0), (looks, 0)))[:, :-looks] for total in totals)


@attrs.frozen
class Truth:
    """What is so: stable's rate of errors, the new revision's, and how both move together over the 30 minutes."""

    stable: float
    new: float
    moves: str = ""

    def factor(self, rng: np.random.Generator, runs: int, looks: int) -> np.ndarray:
        """An outage of two minutes falls anywhere; a drift goes from half to three times the rate."""
        look = np.arange(looks)
        if self.moves == "outage":
            began = rng.integers(0, looks - OUTAGE_LOOKS + 1, (runs, 1))
            return np.where((look >= began) & (look < began + OUTAGE_LOOKS), 10.0, 1.0)
        return 0.5 + 2.5 * look / (looks - 1) if self.moves == "drift" else np.ones(looks)


def simulate(truth: Truth, runs: int, seed: int = SEED, minutes: int = 30, cluster: int = 1) -> Counts:
    """Count rollouts of three steps of equal length; ``cluster`` requests of a user fail together and go to one revision."""
    rng = np.random.default_rng(seed)
    looks = minutes * 60 // LOOK_S
    share = np.repeat(SHARES, looks // len(SHARES))
    seen = rng.poisson(RPS * LOOK_S / cluster, (runs, looks))
    new_seen = rng.binomial(seen, share)
    factor = truth.factor(rng, runs, looks)
    new_bad, stable_bad = (
        rng.binomial(new_seen, factor * truth.new),
        rng.binomial(seen - new_seen, factor * truth.stable),
    )
    return Counts(share, new_seen, new_bad, seen - new_seen, stable_bad)


def rate_above(limit: float) -> Callable[[Counts], np.ndarray]:
    """More than the limit in the last minute."""

    def breach(counts: Counts) -> np.ndarray:
        new_seen, new_bad, _, _ = counts.over(2)
        return new_bad > limit * new_seen

    return breach


def ratio_above(limit: float) -> Callable[[Counts], np.ndarray]:
    """More than so many times stable's rate in the last minute."""

    def breach(counts: Counts) -> np.ndarray:
        new_seen, new_bad, stable_seen, stable_bad = counts.over(2)
        return new_bad * stable_seen > limit * stable_bad * new_seen

    return breach


def failed_checks(rule: Callable[[Counts], np.ndarray], most: int) -> Callable[[Counts], np.ndarray]:
    """The rule was broken so many times, which is never forgiven (as Flagger counts)."""
    return lambda counts: np.cumsum(rule(counts), axis=1) >= most


def pooled_z(bound: float) -> Callable[[Counts], np.ndarray]:
    """A two-proportion z-test on all counts so far."""

    def breach(counts: Counts) -> np.ndarray:
        n, x, m, y = (np.cumsum(each, axis=1) for each in counts.over(1))
        rate = (x + y) / np.maximum(1, n + m)
        spread = np.sqrt(rate * (1 - rate) * (1 / np.maximum(1, n) + 1 / np.maximum(1, m)))
        return x / np.maximum(1, n) - y / np.maximum(1, m) > bound * np.where(spread > 0, spread, np.inf)

    return breach


def only_at_the_end(rule: Callable[[Counts], np.ndarray]) -> Callable[[Counts], np.ndarray]:
    def breach(counts: Counts) -> np.ndarray:
        known = rule(counts)
        known[:, :-1] = False
        return known

    return breach


def mantel_haenszel(bound: float) -> Callable[[Counts], np.ndarray]:
    """A z-test stratified by the share."""

    def breach(counts: Counts) -> np.ndarray:
        above, variance = 0.0, 0.0
        for share in SHARES:
            n, x, m, y = (np.cumsum(each * (counts.share == share), axis=1) for each in counts.over(1))
            total, bad = n + m, x + y
            above = above + x - n * bad / np.maximum(1, total)
            variance = variance + n * m * bad * (total - bad) / np.maximum(1.0, total**2.0 * (total - 1))
        return above > bound * np.where(variance > 0, np.sqrt(variance), np.inf)

    return breach


def kayenta(counts: Counts) -> np.ndarray:
    """Kayenta's judge on the two series of rates: the 98 % bound of the shift, and the ratio of the means."""
    new = counts.new_bad / np.maximum(1, counts.new_seen)
    stable = counts.stable_bad / np.maximum(1, counts.stable_seen)
    return judge(new, stable) & (np.cumsum(new, axis=1) > np.cumsum(stable, axis=1))


def judge(new: np.ndarray, stable: np.ndarray) -> np.ndarray:
    """``rank_test(...).is_high()`` after each look, for all runs at once."""
    high = np.zeros(new.shape, bool)
    for looks in range(1, new.shape[1] + 1):
        pairs = looks * looks
        cut = int(np.floor(pairs / 2 - NormalDist().inv_cdf(0.99) * np.sqrt(pairs * (2 * looks + 1) / 12)))
        if cut >= 1:
            differences = (new[:, :looks, None] - stable[:, None, :looks]).reshape(-1, pairs)
            middle = [(pairs - 1) // 2, pairs // 2]
            differences.partition([cut - 1, *middle], axis=1)
            high[:, looks - 1] = differences[:, cut - 1] > 0.25 * abs(differences[:, middle].mean(axis=1))
    return high


def eprocess(alpha: float = ALPHA, tolerance: float = 1.0) -> Callable[[Counts], np.ndarray]:
    return lambda counts: log_ratio(counts.new_bad, counts.stable_bad, counts.share, tolerance) >= -np.log(alpha)


ERROR_RULES: dict[str, Callable[[Counts], np.ndarray]] = {
    "rate > 2 % in 1 min, first breach": rate_above(0.02),
    "same, 5 failed checks": failed_checks(rate_above(0.02), 5),
    "> 1.5 x stable in 1 min, first breach": ratio_above(1.5),
    "same, 5 failed checks ": failed_checks(ratio_above(1.5), 5),
    "pooled z-test 5 %, every look": pooled_z(Z_ONCE),
    "pooled z, Bonferroni/60": pooled_z(z_for(60)),
    "pooled z, once at the end": only_at_the_end(pooled_z(Z_ONCE)),
    "Mann-Whitney (Kayenta's judge), every look": kayenta,
    "Mantel-Haenszel z (stratified), Bonferroni/60": mantel_haenszel(z_for(60)),
    "**bad-event e-process, alpha .05**": eprocess(),
    "same, alpha .01": eprocess(alpha=0.01),
    "same, alpha .05, tolerance 1.25x": eprocess(tolerance=1.25),
}
FALSE = {
    "1 %": Truth(0.01, 0.01),
    "0.1 %": Truth(0.001, 0.001),
    "outage": Truth(0.01, 0.01, "outage"),
    "drift": Truth(0.01, 0.01, "drift"),
}
WORSENED = {"1->2 %": Truth(0.01, 0.02), "1->5 %": Truth(0.01, 0.05), "0.1->1 %": Truth(0.001, 0.01)}


def first(breach: np.ndarray) -> np.ndarray:
    """The look (from 1) of each run's first breach; 0 where there is none."""
    return np.where(breach.any(axis=1), breach.argmax(axis=1) + 1, 0)


def detected(breach: np.ndarray) -> tuple[float, float]:
    """The share of runs that were taken back (0-1), and the median minutes of those until they were (nan where none was)."""
    looks = first(breach)
    caught = looks[looks > 0]
    return caught.size / looks.size, float(np.median(caught)) * LOOK_S / 60 if caught.size else float("nan")


# ---------------------------------------------------------------- from the start to the end


def decide(counts: Counts, against: np.ndarray, favour: np.ndarray) -> dict[str, float]:
    """Shares of runs taken back, promoted and left open, and the median of the new revision's errors until then."""
    back = first(against >= -np.log(ALPHA))
    passed = (back == 0) & (favour >= -np.log(BETA)).any(axis=1)
    errors = np.cumsum(counts.new_bad, axis=1)
    served = errors[np.arange(len(back)), back - 1]
    return {
        "rolled back": float((back > 0).mean()),
        "promoted": float(passed.mean()),
        "inconclusive": float(((back == 0) & ~passed).mean()),
        "errors": float(np.median(served)),
    }


def favour_of(counts: Counts, max_ratio: float = 2.0) -> np.ndarray:
    relative = log_ratio(counts.new_bad, counts.stable_bad, counts.share, max_ratio, np.array(BETTER))
    return log_mean([relative, log_pass_rate(counts.new_seen, counts.new_bad, LIMIT)])


def no_worse(counts: Counts) -> dict[str, float]:
    """No gate but "no worse than stable"."""
    return decide(counts, log_ratio(counts.new_bad, counts.stable_bad, counts.share, 1.0), favour_of(counts))


def within_limit(counts: Counts) -> dict[str, float]:
    """The gate ``error_rate <= 1%``: taken back when worse than stable and above the limit."""
    relative = log_ratio(counts.new_bad, counts.stable_bad, counts.share, 1.0)
    against = np.minimum(relative, log_fail_rate(counts.new_seen, counts.new_bad, LIMIT))
    return decide(counts, against, favour_of(counts))


def within_ratio(counts: Counts) -> dict[str, float]:
    """The gate ``error_rate <= 1.5x``."""
    return decide(counts, log_ratio(counts.new_bad, counts.stable_bad, counts.share, 1.5), favour_of(counts))


GATES = {"no worse than stable": no_worse, "`error_rate <= 1%`": within_limit, "`error_rate <= 1.5x`": within_ratio}
TRUTHS = {f"same {name}" if name[0].isdigit() else f"same 1 %, {name}": truth for name, truth in FALSE.items()} | {
    "1->1.25 %": Truth(0.01, 0.0125),
    "1->1.5 %": Truth(0.01, 0.015),
    "1->2 %": Truth(0.01, 0.02),
    "1->3 %": Truth(0.01, 0.03),
    "1->5 %": Truth(0.01, 0.05),
    "0.1->1 %": Truth(0.001, 0.01),
    "0.1->5 %": Truth(0.001, 0.05),
}


# ---------------------------------------------------------------- latencies

MEDIAN_S, SPREAD, SLOW, SLOW_S = 0.05, 0.4, 0.02, 0.2
LATENCY_LOOKS = 30
QUANTILES = (0.5, 0.9, 0.99)
LATENCIES = {"same": (1.0, 0.0), "same, load": (1.0, 0.0), "x1.1": (1.1, 0.0), "x1.3": (1.3, 0.0), "tail": (1.0, 0.05)}


def latencies(rng: np.random.Generator, count: int, slower: float, tail: float) -> np.ndarray:
    """Seconds: lognormal around 50 ms, 2 % of the requests with an exponential 200 ms more, ``tail`` of them with 150 ms more."""
    body = MEDIAN_S * np.exp(SPREAD * rng.standard_normal(count))
    slow = (rng.random(count) < SLOW) * rng.exponential(SLOW_S, count)
    return slower * (body + slow) + (rng.random(count) < tail) * 0.15


def look_by_look(name: str, seed: int) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """Share, new and stable latencies of each look of one rollout; the first is stable alone, before it."""
    rng = np.random.default_rng([SEED, seed, *name.encode()])
    slower, tail = LATENCIES[name]
    yield 0.0, np.array([]), latencies(rng, RPS * LOOK_S, 1.0, 0.0)
    for look in range(LATENCY_LOOKS):
        share = SHARES[look * len(SHARES) // LATENCY_LOOKS]
        load = 1 + max(0.0, 1 - abs(look + 0.5 - LATENCY_LOOKS / 2) / 10) if name.endswith("load") else 1.0
        seen = rng.poisson(RPS * LOOK_S)
        new = rng.binomial(seen, share)
        yield share, latencies(rng, new, load * slower, tail), latencies(rng, seen - new, load, 0.0)


def judge_latencies(name: str, seed: int) -> dict[str, np.ndarray]:
    """Whether each rule says "worse" at each look of one rollout."""
    looks = list(look_by_look(name, seed))
    above = p95_above(looks)
    raw, interval = rank_z(looks)
    share = np.array([each[0] for each in looks[1:]])
    exceeded = np.array([exceedances(before[2], now) for before, now in itertools.pairwise(looks)])
    new, stable = exceeded[:, 0].T, exceeded[:, 1].T
    whole = log_mean(list(log_ratio(new[:-1], stable[:-1], share, 1.0)))
    seen = np.array([each[1].size for each in looks[1:]])
    gate = np.minimum(log_ratio(new[-1], stable[-1], share, 1.0), log_fail_rate(seen, new[-1], 0.05))
    in_a_row = above & np.roll(above, 1) & np.roll(above, 2)
    in_a_row[:2] = False
    return {
        "p95 > 1.2x stable, 1 min, first breach": above,
        "same, 3 in a row": in_a_row,
        "Mann-Whitney on raw latencies 5 %, every look": raw > Z_ONCE,
        "Mann-Whitney per interval, Bonferroni/30": interval > z_for(LATENCY_LOOKS),
        "**e-process on exceedances of stable's p50/p90/p99, averaged**": whole >= -np.log(ALPHA),
        "**gate `p95_latency <= 1.2x`**": gate >= -np.log(ALPHA),
    }


def p95_above(looks: list[tuple[float, np.ndarray, np.ndarray]]) -> np.ndarray:
    """More than 1.2 times stable's p95 in the last minute."""
    minutes = [(np.concatenate([a[1], b[1]]), np.concatenate([a[2], b[2]])) for a, b in itertools.pairwise(looks)]
    return np.array([np.quantile(new, 0.95) > 1.2 * np.quantile(stable, 0.95) for new, stable in minutes])


def exceedances(before: np.ndarray, now: tuple[float, np.ndarray, np.ndarray]) -> list[list[int]]:
    """How many of each exceed what is known beforehand: quantiles of stable's last interval, and 1.2 times its p95."""
    thresholds = [*np.quantile(before, QUANTILES), 1.2 * np.quantile(before, 0.95)]
    return [[int((arm > threshold).sum()) for threshold in thresholds] for arm in now[1:]]


def rank_z(looks: list[tuple[float, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The rank test's z after each look: on all requests so far, and on each interval's alone."""
    all_new = all_stable = np.array([])
    wins, raw, interval = 0, [], []
    for _, new, stable in looks[1:]:
        new, stable = np.sort(new), np.sort(stable)  # noqa: PLW2901 - sorted once, used twice
        here = np.searchsorted(stable, new).sum()
        wins += here + np.searchsorted(all_stable, new).sum() + pairs_won(all_new, stable)
        all_new, all_stable = merged(all_new, new), merged(all_stable, stable)
        raw.append(z_of(wins, all_new.size, all_stable.size))
        interval.append(z_of(here, new.size, stable.size))
    return np.array(raw), np.array(interval)


def pairs_won(new: np.ndarray, stable: np.ndarray) -> int:
    return new.size * stable.size - int(np.searchsorted(new, stable, side="right").sum())


def merged(some: np.ndarray, more: np.ndarray) -> np.ndarray:
    return np.sort(np.concatenate([some, more]), kind="stable")


def z_of(wins: int, n: int, m: int) -> float:
    return (wins - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12)


def latency_runs(name: str, runs: int) -> dict[str, np.ndarray]:
    """Each rule's breaches, runs by looks."""
    judged = [judge_latencies(name, seed) for seed in range(runs)]
    return {rule: np.array([each[rule] for each in judged]) for rule in judged[0]}


# ---------------------------------------------------------------- tables


def row(*cells: str) -> None:
    sys.stdout.write("| " + " | ".join(cells) + " |\n")
    sys.stdout.flush()


def table(title: str, *columns: str) -> None:
    sys.stdout.write(f"\n{title}\n\n")
    row(*columns)
    row(*("---" for _ in columns))


def percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.0995 else f"{100 * share:.0f} %"


def found(breach: np.ndarray) -> str:
    share, minutes = detected(breach)
    return f"{percent(share)}, {minutes:g}" if share else percent(share)


def error_table(runs: int) -> None:
    table(f"Error rate: {runs} rollouts", "Rule", *(f"false: {name}" for name in FALSE), *WORSENED)
    known = [simulate(truth, runs) for truth in FALSE.values()]
    worse = [simulate(truth, runs) for truth in WORSENED.values()]
    for name, rule in ERROR_RULES.items():
        row(name.strip(), *(percent(detected(rule(each))[0]) for each in known), *(found(rule(each)) for each in worse))


def latency_table(runs: int) -> None:
    known = {name: latency_runs(name, runs) for name in LATENCIES}
    table(f"Latency: {runs} rollouts", "Rule", "false", "false, load", "x1.1", "x1.3", "tail")
    for rule in known["same"]:
        row(
            rule,
            *(
                percent(detected(each[rule])[0]) if name.startswith("same") else found(each[rule])
                for name, each in known.items()
            ),
        )


def end_table(runs: int) -> None:
    for gate, judged in GATES.items():
        table(
            f"From start to end, {gate}: {runs} rollouts",
            "truth",
            "rolled back",
            "promoted",
            "inconclusive",
            "canary errors (median)",
        )
        for name, truth in TRUTHS.items():
            ended = judged(simulate(truth, runs))
            row(
                name,
                *(percent(ended[each]) for each in ("rolled back", "promoted", "inconclusive")),
                f"{ended['errors']:g}",
            )


def unit_table(runs: int) -> None:
    table(f"Unit of analysis, users whose 5 requests fail together: {runs} rollouts", "counted", "false")
    for name, times in (("requests", 5), ("users", 1)):
        row(name, percent(detected(clustered(runs, times))[0]))


def clustered(runs: int, times: int) -> np.ndarray:
    """The e-process where users of five requests fail as one, each failure counted so many times."""
    users = simulate(Truth(0.01, 0.01), runs, cluster=5)
    return log_ratio(times * users.new_bad, times * users.stable_bad, users.share, 1.0) >= -np.log(ALPHA)


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    error_table(min(runs, 2000))
    latency_table(max(1, runs // 10))
    end_table(runs)
    unit_table(runs)


if __name__ == "__main__":
    main()
