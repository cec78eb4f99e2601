"""What is measured: how right both models are, and which of them is slower."""

from __future__ import annotations

import numpy as np
import pytest

from modeldeploy.convert import timing
from modeldeploy.convert.measuring import read_labels, score, sides
from modeldeploy.convert.timing import Times, batch_rows, first_rows
from modeldeploy.errors import ConfigurationError


@pytest.mark.parametrize(
    ("answers", "truth", "labels", "expected"),
    [
        ({"prediction": ["a", "b", "b", "a"]}, ["a", "b", "a", "a"], {"prediction"}, ("accuracy", 0.75)),
        ({"prediction": [1.0, 0.0]}, [1, 0], {"prediction"}, ("accuracy", 1.0)),
        ({"prediction": [1.0, 3.0]}, [1.0, 0.0], set(), ("rmse", np.sqrt(4.5))),
        ({"probability": [[0.9, 0.1], [0.2, 0.8]]}, [0, 0], set(), ("accuracy", 0.5)),
        ({"probability": [[0.9, 0.1], [0.2, 0.8]]}, ["x", "y"], set(), ("", None)),
    ],
    ids=["text", "labels that are numbers", "numbers", "likeliest class", "names of classes nobody knows"],
)
def test_the_score_follows_what_is_answered(answers, truth, labels, expected):
    held = {
        name: np.array(values, dtype=object if isinstance(values[0], str) else None) for name, values in answers.items()
    }
    assert score(held, np.array(truth), labels) == (expected[0], pytest.approx(expected[1]) if expected[1] else None)


def test_labels_of_another_length_are_refused():
    assert read_labels(None, 3) is None
    with pytest.raises(ConfigurationError, match=r"shape \(2,\) for 3 rows"):
        read_labels([1, 2], 3)


class Clock:
    """Time that passes by being told, a fixed part of a second for each call."""

    def __init__(self, seconds):
        self.now, self.seconds, self.calls = 0.0, seconds, 0

    def perf_counter(self):
        return self.now

    def ask(self, _columns):
        self.calls += 1
        self.now += self.seconds


@pytest.mark.parametrize(("seconds", "calls"), [(1e-6, 201), (0.04, 4), (5.0, 1)], ids=["quick", "slower", "very slow"])
def test_a_model_is_asked_often_enough_for_a_median_and_not_for_longer(seconds, calls, monkeypatch, budget):
    budget(0.1)
    clock = Clock(seconds)
    monkeypatch.setattr(timing, "time", clock)
    found = Times.of(clock.ask, {"x": np.ones(2)})
    assert found.median == pytest.approx(1e3 * seconds, rel=1e-6)
    assert clock.calls == calls


@pytest.mark.parametrize(("ratio", "told"), [(0.5, 0), (1.9, 0), (30.0, 2)])
def test_only_what_takes_twice_as_long_is_told(ratio, told, monkeypatch):
    clock = Clock(0)
    monkeypatch.setattr(timing, "time", clock)

    def asked(seconds):
        def ask(_columns):
            clock.now += seconds

        return ask

    before, after, notes = sides(
        ("sklearn", 9, asked(0.001)), ("onnx", 3, asked(0.001 * ratio)), {"x": np.ones(5)}, (None, None)
    )
    assert len(notes) == told
    assert all("30 times as long" in note for note in notes)
    assert (before.size, after.size, after.one_row_ms) == (9, 3, pytest.approx(ratio))


def test_a_batch_is_a_thousand_rows_unless_a_row_is_large():
    assert batch_rows({"x": np.ones(3), "y": np.ones((3, 4))}) == 1_000
    assert batch_rows({"x": np.ones((1, 100, 100))}) == 100
    assert first_rows({"x": np.arange(3)}, 5)["x"].tolist() == [0, 1, 2, 0, 1]
