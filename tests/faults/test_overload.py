"""Row 9: ten times more requests than the model can answer, whether or not those before are answered."""

from __future__ import annotations

import pytest

PER_ROW_S = 0.02
"""One worker of this model answers at most 50 requests per second."""
RATE = 10 / PER_ROW_S


@pytest.mark.row(9)
@pytest.mark.parametrize(
    "limits",
    [
        # The queue is full long before anybody waits too long.
        (20, 2.0),
        # The queue has room for 20 seconds of work: those whose time would be over are told so.
        pytest.param((1_000, 2.0), marks=pytest.mark.slow),
    ],
)
def test_ten_times_too_many_requests_are_turned_away_in_time_and_the_others_are_answered_in_time(
    ground, peak, seconds_until, measured, limits
):
    queue, deadline = limits
    ground.deploy(seconds=PER_ROW_S, queue=str(queue), deadline=str(deadline), max_batch="8")
    ground.paced(RATE, deadline).sent()  # the first thousand requests cost memory that is used again
    front, worker = (peak(pid) for pid in (ground.front, *ground.workers))
    sent = ground.paced(RATE, 4.0).sent()
    recovered = seconds_until(lambda: ground.ask(1.0).status == 200)
    assert sent.statuses <= {200, 429, 503, 504}
    assert sent.without_retry_after == []
    assert sent.count(429, 503) > 0.6 * len(sent.results)
    assert sent.count(200) > 0.5 * 4.0 / PER_ROW_S, "what the model can do, it does"
    assert sent.quantile(0.99) <= deadline
    assert recovered < 1
    assert front.growth < 0.1 * front.before
    assert worker.growth < 0.1 * worker.before
    measured("accepted p50, p99, s", [sent.quantile(0.5), sent.quantile(0.99)])
    measured("recovery, s", recovered)
