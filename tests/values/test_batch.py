"""Jobs: what is refused before anything is read."""

from __future__ import annotations

import pytest

from modeldeploy.errors import ConfigurationError
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.ticket import Phase


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"chunk_rows": 0}, "chunk_rows is 0"),
        ({"workers": -1}, "workers is -1"),
        ({"max_bad_rows": -1}, "max_bad_rows is -1"),
        ({"name": "A"}, "job name 'A'"),
    ],
)
def test_a_wrong_option_is_refused_and_named(model, options, part):
    with pytest.raises(ConfigurationError, match=part):
        BatchSpec(**{"name": "job-1", "model": model, "source": ("in",), "output": "out", **options})


def test_any_number_of_bad_rows_may_be_allowed(model):
    assert BatchSpec("job-1", model, ("in",), "out", max_bad_rows=None).max_bad_rows is None


def test_work_ended_unless_it_runs():
    assert [phase for phase in Phase if not phase.ended] == [Phase.RUNNING]
