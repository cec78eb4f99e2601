"""What devices say of themselves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeldeploy.edge.layout import check_device, report_path
from modeldeploy.edge.reports import Health, Report
from modeldeploy.errors import ConfigurationError, IntegrityError

# A small alphabet: to draw from all of Unicode takes seconds of preparation.
texts = st.text('aZ0 \n"\\é€😀\x00', max_size=50)


@settings(max_examples=30)
@given(
    running=st.none() | texts,
    sequence=st.integers(0, 2**40),
    health=st.sampled_from(Health),
    note=texts,
)
def test_a_report_is_read_as_it_was_written(running, sequence, health, note):
    report = Report("a", "cameras", running, sequence, health, note=note, at=1.5)
    assert Report.from_bytes(report.to_bytes()) == report


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"schema": 1, "body": {"device": "../x"}}', b"\x00"])
def test_what_is_no_report_is_refused(data):
    with pytest.raises(IntegrityError, match="report"):
        Report.from_bytes(data)


def test_a_report_of_a_device_with_an_impossible_name_is_refused():
    data = Report("a", "cameras", None, 0, Health.OK).to_bytes().replace(b'"a"', b'"../../desired"')
    with pytest.raises(IntegrityError):
        Report.from_bytes(data)


@pytest.mark.parametrize("device", ["", ".", "..", "a/b", "-a", "a b", "ü", "a" * 64, None])
def test_a_name_that_cannot_be_a_file_is_refused(device):
    with pytest.raises(ConfigurationError, match="device id"):
        check_device(device)


def test_reports_lie_by_the_name_of_their_device():
    assert report_path("line-3.camera_12") == "reports/line-3.camera_12.json"
