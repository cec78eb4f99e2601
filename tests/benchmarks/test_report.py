"""Tables and verdicts say what was measured, and what was not."""

import pytest


@pytest.fixture
def results(script):
    return script("results")


@pytest.fixture
def cell(results):
    """Give ``cell(server, ...)``: one measurement, by default of ONNX with one row at 64 connections."""

    def make(server, *, rate=1000.0, cpu_us=100.0, **more):
        requests = round(2 * rate)
        usual = {
            "model": "lr-onnx", "form": "json", "rows": 1, "connections": 64, "round": 1, "p50_ms": 1.0, "p99_ms": 2.0,
            "errors": 0, "foreign": 0.0, "requests": requests, "seconds": 2.0, "cpu_s": requests * cpu_us / 1e6,
        }  # fmt: skip
        return results.Cell(server, **{**usual, **more})

    return make


def judge(script, results, claim):
    found = [each for each in script("verdicts").of(results) if each.claim.startswith(claim)]
    assert len(found) == 1, claim
    return found[0]


@pytest.mark.parametrize(
    ("value", "written"), [(21912.4, "21,912"), (18.44, "18.4"), (0.2573, "0.26"), (0.0116, "0.012"), (0.0, "0")]
)
def test_a_number_has_the_figures_that_count(script, value, written):
    assert script("report").number(value) == written


def test_a_figure_is_the_median_of_the_quiet_rounds(script, cell):
    cells = [cell("x", rate=rate, foreign=foreign) for rate, foreign in ((10, 0.0), (20, 0.1), (30, 0.0), (900, 0.5))]
    assert script("report").middle(cells, lambda c: c.rate) == (20, "")


def test_a_figure_without_a_quiet_round_has_a_star(script, cell):
    cells = [cell("x", rate=rate, foreign=0.5) for rate in (10, 20, 90)]
    assert script("report").middle(cells, lambda c: c.rate) == (20, "*")


def test_a_row_shows_throughput_latencies_cpu_memory_and_start(script, results, cell):
    found = results.Results(
        cells=[cell("modeldeploy", rate=30_000, cpu_us=33, p50_ms=1.26, p99_ms=4.0)],
        starts=[results.Start("modeldeploy", "lr-onnx", 1, 0.25, 0.2, 70_000_000, 0.0)],
    )
    lines = script("report").serving(found).splitlines()
    assert lines[-1] == "| **modeldeploy** | 30,000 · 1.3 / 4.0 · 33 | 70 | 0.25 (0.20) | 0 |"


def test_a_tool_that_failed_is_named_and_has_no_figures(script, results):
    scores = [
        results.Score("pandas", "lr", 1_000_000, 1, 2.0, 2.5, 300_000_000, 0.0),
        results.Score("Spark", "lr", 1_000_000, 1, 0, 0, 0, 0, failed="Spark: no Java"),
    ]
    found = results.Results(scores=scores)
    text = script("report").markdown(found)
    assert "| pandas | 1,000,000 | 2.0 | 0.50 | 2.5 | 300 |" in text
    assert "- Spark: no Java" in text
    assert "| Spark |" not in text


def test_results_come_back_from_json(results, cell, tmp_path):
    before = results.Results(
        {"date": "2026-01-01"},
        [cell("x")],
        [results.Start("x", "lr", 1, 1.0, 1.0, 1, 0.0)],
        [],
        [results.Figure("f", 1.0, "s", 1, 0.0)],
    )
    before.save(tmp_path / "r.json")
    assert results.Results.load(tmp_path / "r.json") == before


def test_runs_of_different_parts_are_put_together(results, cell):
    one = results.Results({"commit": "a", "machine": "m"}, [cell("x")])
    two = results.Results({"commit": "b", "machine": "m"}, figures=[results.Figure("f", 1.0, "s", 1, 0.0)])
    both = results.together([one, two])
    assert results.together([one, two, one]).about == both.about
    assert both.about == {"commit": "a; then b", "machine": "m"}
    assert (both.cells, [each.name for each in both.figures]) == (one.cells, ["f"])


def test_rounds_of_a_second_run_follow_those_of_the_first(results, cell):
    one = results.Results({}, [cell("x", round=1), cell("x", round=2)])
    two = results.Results({}, [cell("x", round=1)], figures=[results.Figure("f", 1.0, "s", 2, 0.0)])
    both = results.together([one, two, one])
    assert [each.round for each in both.cells] == [1, 2, 3, 5, 6]
    assert [each.round for each in both.figures] == [4]


def test_the_rounds_that_are_told_are_those_that_were_measured(script, results, cell):
    found = results.Results({"rounds": "5"}, [cell("x", round=1), cell("y", round=1), cell("x", round=2)])
    assert script("report").about(found) == "- rounds: serving 2"


def test_the_tables_of_a_page_are_replaced_and_nothing_else(script, tmp_path):
    report = script("report")
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.put_into(page, "new\n")
    assert page.read_text() == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"


def test_a_page_without_the_marks_is_left_as_it_is(script, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="measured: begin"):
        script("report").put_into(page, "new")
    assert page.read_text() == "no marks"


# ---------------------------------------------------------------- verdicts

EIGHTFOLD = "ONNX, one row, 64 connections: at least 8x FastAPI"


@pytest.mark.parametrize(("rate", "kept"), [(8000, True), (7990, False)])
def test_a_ratio_is_kept_at_its_bound_and_not_below(script, results, cell, rate, kept):
    found = results.Results(cells=[cell("modeldeploy", rate=rate), cell("FastAPI, 2 workers", rate=1000)])
    assert judge(script, found, EIGHTFOLD).kept is kept


def test_a_ratio_says_both_figures(script, results, cell):
    found = results.Results(cells=[cell("modeldeploy", rate=30_000), cell("FastAPI, 2 workers", rate=2_000)])
    assert judge(script, found, EIGHTFOLD).measured == "15.0x (30,000 / 2,000 req/s)"


def test_what_was_not_measured_is_neither_kept_nor_broken(script, results, cell):
    for cells in ([], [cell("modeldeploy")], [cell("FastAPI, 2 workers")]):
        assert judge(script, results.Results(cells=cells), EIGHTFOLD).kept is None


def test_an_empty_run_breaks_no_promise(script, results):
    assert {each.kept for each in script("verdicts").of(results.Results())} == {None}


def test_the_best_framework_is_the_one_to_beat_and_limits_are_none(script, results, cell):
    cells = [
        cell("modeldeploy", connections=1, cpu_us=100),
        cell("LitServe", connections=1, cpu_us=400),
        cell("FastAPI, tutorial", connections=1, cpu_us=290),
        cell("bare HTTP (limit)", connections=1, cpu_us=1),
    ]
    verdict = judge(script, results.Results(cells=cells), "ONNX, one row, one connection: at most a third")
    assert verdict.kept is False
    assert "FastAPI, tutorial" in verdict.measured


def test_p99_must_be_lowest_at_every_count(script, results, cell):
    ours = [cell("modeldeploy", connections=level, p99_ms=1.0) for level in (1, 8, 64)]
    theirs = [cell("LitServe", connections=level, p99_ms=p99) for level, p99 in ((1, 2.0), (8, 0.9), (64, 2.0))]
    assert judge(script, results.Results(cells=ours + theirs), "ONNX, one row: p99").kept is False
    assert judge(script, results.Results(cells=ours + theirs[::2]), "ONNX, one row: p99").kept is None
    theirs[1] = cell("LitServe", connections=8, p99_ms=1.1)
    assert judge(script, results.Results(cells=ours + theirs), "ONNX, one row: p99").kept is True


def test_one_connection_is_compared_with_predict_and_http_alone(script, results, cell):
    cells = [
        cell("modeldeploy", model="lr", connections=1, p50_ms=0.65),
        cell("bare HTTP (limit)", connections=1, p50_ms=0.1),
    ]
    bare = results.Figure("bare predict, lr, 1 rows", 0.4, "ms", 1, 0.0)
    claim = "LogisticRegression, one row, one connection: within 1.3x"
    assert judge(script, results.Results(cells=cells, figures=[bare]), claim).measured.startswith("1.30x")
    assert judge(script, results.Results(cells=cells), claim).kept is None


def test_scoring_is_compared_with_the_loop_and_every_peer_at_the_largest_size(script, results):
    def score(tool, rows, seconds, megabytes=300):
        return results.Score(tool, "lr", rows, 1, seconds, seconds, megabytes * 1_000_000, 0.0)

    scores = [
        score("modeldeploy", 1000, 1.0),
        score("modeldeploy", 200, 1.0, megabytes=260),
        score("bare loop, a thread for each core (limit)", 1000, 0.91),
        score("pandas", 1000, 3.0),
        score("Polars, streaming", 1000, 0.95),
    ]
    found = results.Results(scores=scores)
    kept = {
        each.claim.partition(": ")[2][:15]: each.kept
        for each in script("verdicts").of(found)
        if each.claim.startswith("Batch, Logistic")
    }
    assert kept == {
        "at least 90 % o": True,
        "ahead of every ": False,
        "peak memory und": True,
        "peak memory ind": False,
    }
