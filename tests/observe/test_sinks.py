from __future__ import annotations

import logging
import threading

import pytest

from modeldeploy.observe.sinks import Sinks
from modeldeploy.values.events import Name


def broken(_event):
    message = "no such dashboard"
    raise RuntimeError(message)


def test_every_sink_gets_every_event_in_order_of_subscription(event):
    seen = []
    sinks = Sinks(lambda each: seen.append(("first", each.name)))
    sinks.subscribe(lambda each: seen.append(("second", each.name)))
    sinks(event(Name.OPERATION_STARTED))
    assert seen == [("first", Name.OPERATION_STARTED), ("second", Name.OPERATION_STARTED)]


def test_an_unsubscribed_sink_gets_nothing_more(event):
    seen = []
    sinks = Sinks()
    unsubscribe = sinks.subscribe(seen.append)
    unsubscribe()
    unsubscribe()
    sinks(event(Name.OPERATION_STARTED))
    assert seen == []


def test_a_sink_that_raises_is_dropped_and_the_others_go_on(event):
    seen, calls = [], []

    def fails(each):
        calls.append(each)
        broken(each)

    sinks = Sinks(fails, seen.append)
    for _ in range(3):
        sinks(event(Name.OPERATION_PROGRESS))
    assert (len(calls), len(seen)) == (1, 3)


def test_a_sink_that_raises_is_logged_once_by_name(event, caplog: pytest.LogCaptureFixture):
    sinks = Sinks(broken)
    with caplog.at_level(logging.WARNING, logger="modeldeploy"):
        sinks(event(Name.OPERATION_PROGRESS))
        sinks(event(Name.OPERATION_PROGRESS))
    (record,) = caplog.records
    assert "sink=broken" in record.getMessage()
    assert "no such dashboard" in record.getMessage()


def test_a_keyboard_interrupt_in_a_sink_is_not_swallowed(event):
    def interrupted(_event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Sinks(interrupted)(event(Name.OPERATION_PROGRESS))


def test_one_failure_seen_by_many_threads_is_reported_once(event, caplog: pytest.LogCaptureFixture):
    together = threading.Barrier(4)

    def fails(each):
        together.wait(10)
        broken(each)

    sinks = Sinks(fails)
    threads = [threading.Thread(target=sinks, args=(event(Name.OPERATION_PROGRESS),)) for _ in range(4)]
    with caplog.at_level(logging.WARNING, logger="modeldeploy"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(caplog.records) == 1
