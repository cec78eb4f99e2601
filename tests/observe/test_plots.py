"""The picture of a rollout, looked at as matplotlib would draw it."""

from __future__ import annotations

import itertools
import math
import struct
import subprocess
import sys

import nbclient
import nbformat
import numpy as np
import pytest

from modeldeploy.observe import plot_style, plots
from modeldeploy.observe.timeline import Timeline
from modeldeploy.values.codec import to_json
from modeldeploy.values.events import Event, Level, Name
from modeldeploy.values.gate import GateResult, Verdict
from modeldeploy.values.rollout import RolloutPolicy

BEGAN = 1_700_000_000.0
GATES = ("error_rate <= 1%", "p95_latency <= 1.2x")
CANARY = RolloutPolicy.canary((5, 50), gates=GATES)
NEW, STABLE = "v1-2-0-8d1f33aa", "v1-1-0-3fa92c1e"


def seen(gate, at, **changes):
    fields = {"value": 0.01, "limit": 0.01, "sample": 10 * at, "stable_value": 0.008, "low": 0.1 / at, "high": 0.5 / at}
    fields |= {"against": 0.5 / at, "favour": 1.05**at}
    return GateResult(gate, Verdict.INCONCLUSIVE, **{**fields, **changes})


def told(*, gates=GATES, length=60, end=(), copies=(), **changes):
    """The timeline of a canary at 5 % that was looked at once a second."""
    looks = [[to_json(seen(gate, at, **changes)) for gate in gates] for at in range(1, length)]
    events = [
        (0.5, Name.TRAFFIC_CHANGED, {"traffic": {STABLE: 95, NEW: 5}, "copies": dict(copies)}),
        *((at, Name.ROLLOUT_LOOK, {"percent": 5, "gates": look}) for at, look in enumerate(looks, start=1)),
        *end,
    ]
    made = [Event(name, BEGAN + at, "op", Level.INFO, fields) for at, name, fields in events]
    return Timeline.of(made, began=BEGAN, until=BEGAN + length, before={STABLE: 100})


def draw(timeline, policy=CANARY):
    return plots.draw(timeline, title="rollout of iris 1.2.0", new=NEW, stable=STABLE, policy=policy)


def line(axes, colour):
    return next(each for each in axes.lines if each.get_color() == colour)


def titles(figure):
    return [axes.get_title(loc="left").strip() for axes in figure.axes]


TAKEN_BACK = [
    (60.0, Name.ROLLOUT_VERDICT, {"verdict": "fail"}),
    (60.1, Name.TRAFFIC_CHANGED, {"traffic": {STABLE: 100}, "copies": {}}),
    (60.2, Name.ROLLOUT_ROLLED_BACK, {}),
]


def test_there_is_a_panel_for_the_traffic_each_gate_and_the_evidence():
    figure = draw(told())
    assert titles(figure) == ["", *GATES, "evidence against the new revision", "evidence for the new revision"]
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "traffic (%)",
        "errors (%)",
        "slow (%)",
        "e-value",
        "e-value",
    ]
    assert figure.axes[-1].get_xlabel() == "time since 2023-11-14 22:13:20 UTC (s)"


def test_the_traffic_is_drawn_in_steps_up_to_the_end():
    traffic = draw(told(end=TAKEN_BACK)).axes[0]
    new = line(traffic, plot_style.NEW)
    assert new.get_drawstyle() == "steps-post"
    assert list(new.get_ydata()) == [0, 5, 0, 0]
    assert list(new.get_xdata()[:3]) == pytest.approx([0, 0.5, 60.1])
    assert new.get_xdata()[-1] == traffic.get_xlim()[1] > 60.2


def test_copies_are_dashed():
    figure = draw(told(copies={NEW: 20}))
    dashed = [each for each in figure.axes[0].lines if each.is_dashed()]
    assert [np.nanmax(each.get_ydata()) for each in dashed] == [20]
    assert any("copies to" in each.get_text() for each in figure.axes[0].texts)


def test_a_gate_shows_its_value_stables_the_limit_and_the_interval():
    errors = draw(told()).axes[1]
    assert line(errors, plot_style.NEW).get_ydata()[-1] == pytest.approx(1.0)
    assert line(errors, plot_style.STABLE).get_ydata()[-1] == pytest.approx(0.8)
    assert {each.get_text() for each in errors.texts} >= {"new 1.00 %", "stable 0.80 %", "limit 1.00 %"}
    (band,) = errors.collections
    assert band.get_paths()[0].get_extents().y1 == pytest.approx(50.0)


def test_a_limit_relative_to_stable_follows_stable():
    gate = "error_rate <= 1.5x"
    policy = RolloutPolicy.canary((5,), gates=[gate])
    errors = draw(told(gates=[gate], limit=None), policy).axes[1]
    assert "limit 1.20 %" in {each.get_text() for each in errors.texts}


def test_latencies_of_the_plain_analyses_are_drawn_in_milliseconds_and_without_evidence():
    gate = "p95_latency <= 80ms"
    policy = RolloutPolicy.canary((5,), gates=[gate], analysis="threshold")
    figure = draw(told(gates=[gate], value=0.05, limit=0.08, low=None, high=None, against=None, favour=None), policy)
    assert len(figure.axes) == 2
    assert figure.axes[1].get_ylabel() == "latency (ms)"
    assert line(figure.axes[1], plot_style.NEW).get_ydata()[0] == pytest.approx(50)


def test_the_interval_of_outcomes_is_laid_around_stables_mean():
    policy = RolloutPolicy.ab_test(key="user", until=60)
    gate = str(policy.gates[0])
    timeline = told(
        gates=[gate], value=0.3, stable_value=0.25, limit=0.25, low=0.01, high=0.09, against=None, favour=None
    )
    axes = draw(timeline, policy).axes[1]
    (band,) = axes.collections
    extents = band.get_paths()[0].get_extents()
    assert (extents.y0, extents.y1) == (pytest.approx(0.26), pytest.approx(0.34))
    assert axes.get_ylabel() == "mean outcome"
    low, high = axes.get_ylim()
    assert low < 0.25
    assert high > 0.34


def test_the_evidence_is_logarithmic_and_its_limits_are_the_policys():
    against, favour = draw(told()).axes[-2:]
    assert (against.get_yscale(), favour.get_yscale()) == ("log", "log")
    assert "taken back at 20" in {each.get_text() for each in against.texts}
    assert "passes at 20" in {each.get_text() for each in favour.texts}
    assert 20 in {each.get_ydata()[0] for each in against.lines}


def test_the_mean_of_the_evidence_decides_where_there_are_several_gates():
    assert "mean, which decides" in {each.get_text() for each in draw(told()).axes[-2].texts}
    assert "mean, which decides" not in {each.get_text() for each in draw(told(gates=GATES[:1])).axes[-2].texts}


def test_evidence_beyond_the_scale_is_drawn_at_its_edge():
    against, favour = draw(told(against=1e-300, favour=1e300)).axes[-2:]
    for axes in (against, favour):
        low, high = axes.get_ylim()
        assert all(low < y < high for each in axes.lines for y in each.get_ydata() if not math.isnan(y))


def test_a_gate_without_figures_has_no_panel():
    figure = draw(told(gates=["mine"], value=None, low=None, high=None, against=None, favour=None))
    assert len(figure.axes) == 1


def test_what_happened_is_marked_and_a_pause_is_shaded():
    end = [(30.0, Name.ROLLOUT_PAUSED, {"reason": "lunch"}), (40.0, Name.ROLLOUT_RESUMED, {}), *TAKEN_BACK]
    figure = draw(told(end=end))
    assert {each.get_text() for each in figure.axes[0].texts} >= {"paused", "resumed", "fail, taken back"}
    assert all(len(axes.patches) == 1 for axes in figure.axes)


@pytest.mark.parametrize(("length", "unit"), [(1, "ms"), (100, "s"), (1000, "min"), (20_000, "h"), (9e5, "days")])
def test_time_is_told_in_the_unit_that_suits_it(length, unit):
    figure = draw(Timeline(BEGAN, BEGAN + length))
    assert figure.axes[0].get_xlabel().endswith(f"({unit})")
    assert 0 < figure.axes[0].get_xlim()[1] < 1200


def test_nothing_that_happened_yet_is_a_picture_too():
    assert draw(Timeline(BEGAN, BEGAN)).axes[0].get_ylabel() == "traffic (%)"


def test_a_rollback_is_traffic_only():
    event = Event(Name.TRAFFIC_CHANGED, BEGAN + 0.02, "op", Level.INFO, {"traffic": {STABLE: 100}, "copies": {}})
    timeline = Timeline.of([event], began=BEGAN, until=BEGAN + 0.03)
    figure = plots.draw(timeline, title="rollback", new=STABLE, stable=None, policy=None)
    assert [each.get_text() for each in figure.axes[0].texts] == [f"back\n{STABLE}"]


@pytest.mark.parametrize("end", [(), TAKEN_BACK], ids=["running", "taken back"])
def test_no_words_lie_over_each_other_or_outside(end):
    figure = draw(told(end=end))
    figure.draw_without_rendering()
    page = figure.bbox
    for axes in figure.axes:
        words = [each for each in axes.texts if each.get_text() != "\N{BLACK SQUARE}"]
        boxes = [each.get_window_extent() for each in words]
        assert all(page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1 for box in boxes)
        for (one, a), (two, b) in itertools.combinations(zip(words, boxes, strict=True), 2):
            assert not a.overlaps(b), (one, two)


def test_the_users_style_does_not_hide_the_words():
    import matplotlib as mpl

    with mpl.rc_context({"figure.facecolor": "black", "axes.facecolor": "black"}):
        figure = draw(told())
    assert {figure.get_facecolor(), *(axes.get_facecolor() for axes in figure.axes)} == {(1.0, 1.0, 1.0, 1.0)}


def test_it_is_drawn_twice_as_sharp_as_it_is_large():
    drawn, size = draw(Timeline(BEGAN, BEGAN + 1))._repr_png_()
    assert drawn.startswith(b"\x89PNG")
    assert struct.unpack(">II", drawn[16:24]) == (2 * size["width"], 2 * size["height"])


def test_drawing_leaves_pyplot_alone():
    code = (
        "import sys\nfrom modeldeploy.observe import plots\nassert 'matplotlib' not in sys.modules\n"
        "from modeldeploy.observe.timeline import Timeline\n"
        "figure = plots.draw(Timeline(0.0, 1.0), title='', new='v1', stable=None, policy=None)\n"
        "figure.savefig('/dev/null', format='png')\nassert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


NOTEBOOK = """
from modeldeploy.observe import plot_style, plots
from modeldeploy.observe.timeline import Timeline
plots.draw(Timeline(0.0, 1.0), title="", new="v1", stable=None, policy=None)
"""


@pytest.mark.slow
@pytest.mark.parametrize("before", ["", "import matplotlib.pyplot"], ids=["alone", "with pyplot"])
def test_a_notebook_shows_the_picture_once(tmp_path, before):
    cells = [nbformat.v4.new_code_cell(before), nbformat.v4.new_code_cell(NOTEBOOK)]
    book = nbformat.v4.new_notebook(cells=cells)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=60, kernel_name="python3", resources=resources).execute()
    (output,) = book.cells[1].outputs
    assert output.output_type == "execute_result"
    assert output.data["image/png"]
