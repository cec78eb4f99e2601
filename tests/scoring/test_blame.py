"""From dead processes to the row that kills them; a process killed from outside accuses nobody for long."""

from __future__ import annotations

import itertools

import pytest

from modeldeploy.errors import OperationFailed
from modeldeploy.scoring.blame import IDLE_DEATHS, POISON, Blame
from modeldeploy.scoring.formats import Format
from modeldeploy.scoring.partwork import Order
from modeldeploy.scoring.plan import InputFile, Part, Plan
from modeldeploy.scoring.pool import Died, Hand
from modeldeploy.scoring.predict import Caution

FORM = Format("parquet")
PLAN = Plan(
    (InputFile("/in.parquet", 1, 1),),
    (Part(0, 0, 100_000),),
    "",
    FORM,
    FORM,
    directory=False,
    rows=1,
    chunk_rows=65_536,
)


def _deaths_until_found(guilty, rows=65_536):
    blame, deaths = Blame("run"), 0
    while True:
        order = blame.order(0, None)
        if str(guilty) in order.poison:
            return deaths, order
        caution = order.caution
        edges = caution.edges(0, rows)
        piece = next((a, b) for a, b in itertools.pairwise(edges) if a <= guilty < b)
        blame.died(Died((Hand(0, order, piece),), "SIGSEGV"), PLAN)
        deaths += 1


@pytest.mark.parametrize("guilty", [0, 1, 255, 256, 40_000, 65_535])
def test_one_row_in_a_whole_chunk_is_found_after_four_deaths(guilty):
    deaths, order = _deaths_until_found(guilty)
    assert deaths == 4
    assert order.poison == {str(guilty): "the process that scored it died (SIGSEGV)"}


def test_a_row_whose_process_died_once_is_not_guilty():
    blame = Blame("run")
    blame.died(Died((Hand(0, Order(0), (5, 6)),), "SIGKILL"), PLAN)
    assert not blame.order(0, None).poison
    blame.died(Died((Hand(0, Order(0), (7, 8)),), "SIGKILL"), PLAN)
    assert not blame.order(0, None).poison


def test_rows_of_two_threads_are_both_suspects_and_neither_is_guilty():
    blame = Blame("run")
    for _death in range(2):
        blame.died(Died((Hand(0, Order(0), (5, 6)), Hand(1, Order(1), (8, 9)), Hand(2, Order(2))), "SIGSEGV"), PLAN)
    assert [blame.order(part, None).suspects for part in range(3)] == [((5, 6),), ((8, 9),), ()]
    assert not any(blame.order(part, None).poison for part in range(3))


def test_deaths_outside_the_model_end_the_job_when_nothing_is_scored_between():
    blame = Blame("run")
    for _death in range(IDLE_DEATHS - 1):
        blame.died(Died((), "SIGKILL"), PLAN)
    blame.finished()
    for _death in range(IDLE_DEATHS - 1):
        blame.died(Died((Hand(0, Order(0)),), "SIGKILL"), PLAN)
    with pytest.raises(OperationFailed, match=r"died 3 times while reading '/in\.parquet' \(SIGKILL\)"):
        blame.died(Died((Hand(0, Order(0)),), "SIGKILL"), PLAN)


def test_many_rows_that_kill_are_a_broken_model():
    blame = Blame("run")
    for row in range(POISON):
        for _strike in range(2):
            blame.died(Died((Hand(0, Order(0), (row, row + 1)),), "SIGSEGV"), PLAN)
    one_more = Died((Hand(0, Order(0), (POISON, POISON + 1)),), "SIGSEGV")
    blame.died(one_more, PLAN)
    with pytest.raises(OperationFailed, match="killed the process"):
        blame.died(one_more, PLAN)


def test_suspect_stretches_are_cut_and_the_rest_is_not():
    assert Caution().edges(0, 10) == [0, 10]
    assert Caution(((3, 6),)).edges(0, 10) == [0, 3, 4, 5, 6, 10]
    assert Caution(((3, 6),)).edges(20, 30) == [20, 30]
