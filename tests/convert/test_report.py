"""The report is a file of the bundle, is read back as it was, and shows itself."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from modeldeploy import Model
from modeldeploy.convert.cpu import describe, saturates
from modeldeploy.convert.report import Check, Cpu, Output, ParityReport, Side
from modeldeploy.errors import IntegrityError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.manifest import PARITY
from modeldeploy.values.tolerance import Tolerance

pytestmark = pytest.mark.filterwarnings("ignore:.*is slower")

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8)
SHARES = st.floats(0, 1e6)
OUTPUTS = st.builds(
    Output,
    name=TEXTS,
    labels=st.booleans(),
    rows=st.integers(1, 99),
    differing=st.integers(0, 1),
    largest=st.none() | SHARES,
)
CHECKS = st.builds(
    Check, what=TEXTS, rows=st.integers(1, 99), outputs=st.lists(OUTPUTS, max_size=3).map(tuple), gaps=st.lists(TEXTS).map(tuple),
    binding=st.booleans(), failure=TEXTS,
)  # fmt: skip
SIDES = st.builds(
    Side, what=TEXTS, size=st.integers(0, 9), one_row_ms=SHARES, batch_ms=SHARES, score=st.none() | SHARES
)
REPORTS = st.builds(
    ParityReport, source=TEXTS, kind=TEXTS, settings=st.dictionaries(TEXTS, TEXTS), tolerance=st.just(Tolerance()),
    checks=st.lists(CHECKS, max_size=3).map(tuple), before=SIDES, after=SIDES, batch_rows=st.integers(1, 1000),
    cpu=st.builds(Cpu, machine=TEXTS, model=TEXTS, features=st.lists(TEXTS, max_size=2).map(tuple)),
    versions=st.dictionaries(TEXTS, TEXTS), notes=st.lists(TEXTS, max_size=2).map(tuple),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(REPORTS)
def test_a_report_is_read_back_as_it_was(report):
    again = ParityReport.from_bytes(report.to_bytes())
    assert again == report
    assert again.passed == (not any(check.binding and not check.passed for check in report.checks))
    assert again.passed == (again.problem == "")


@settings(max_examples=30, deadline=None)
@given(REPORTS)
def test_a_report_shows_itself_whatever_it_holds(report):
    shown = report._repr_html_()
    assert ("passed" in shown) or ("failed" in shown)
    assert "<script" not in shown
    assert str(report).startswith(f"parity of {report.kind}: {'passed' if report.passed else 'failed'}")


def test_bytes_that_are_no_report_are_refused():
    with pytest.raises(IntegrityError, match="parity report cannot be read"):
        ParityReport.from_bytes(b"[]")


def test_the_report_lies_in_the_bundle_and_travels_with_its_archive(iris, model, tmp_path):
    table, target = iris
    converted = model(LogisticRegression(max_iter=500).fit(table, target), table.head()).to_onnx(sample=table)
    assert (converted.bundle.path / PARITY).is_file()
    archive = converted.archive(tmp_path / "model.tar.gz")
    copy = Model.from_path(archive, home=tmp_path / "elsewhere")
    assert (copy.digest, copy.parity) == (converted.digest, converted.parity)
    assert "accuracy" not in copy.parity._repr_html_()
    assert "0.0001" not in copy.parity.problem


def test_a_changed_report_is_noticed(iris, model):
    table, target = iris
    converted = model(LogisticRegression(max_iter=500).fit(table, target), table.head()).to_onnx(sample=table)
    path = converted.bundle.path / PARITY
    path.chmod(0o600)
    path.write_bytes(attrs.evolve(converted.parity, checks=()).to_bytes())
    with pytest.raises(IntegrityError, match="parity"):
        Bundle.open(converted.bundle.path).verify()


def test_a_model_that_was_not_converted_has_no_report(iris, model):
    table, target = iris
    assert model(LogisticRegression(max_iter=500).fit(table, target), table.head()).parity is None


INTEL = "processor : 0\nmodel name : A Xeon\nflags : fpu avx2 avx512f avx512_vnni\n\nprocessor : 1\nflags : none\n"
PI = "processor : 0\nFeatures : fp asimd crc32 asimddp\nCPU part : 0xd0b\n"


@pytest.mark.parametrize(
    ("text", "model_name", "features", "cut_off"),
    [
        (INTEL, "A Xeon", ("avx2", "avx512_vnni", "avx512f"), False),
        (INTEL.replace("avx512_vnni", ""), "A Xeon", ("avx2", "avx512f"), True),
        (PI, "0xd0b", ("asimd", "asimddp"), False),
    ],
    ids=["with VNNI", "without VNNI", "Raspberry Pi 4"],
)
def test_the_processor_is_described_by_what_decides_how_8_bits_are_multiplied(
    text, model_name, features, cut_off, tmp_path
):
    info = tmp_path / "cpuinfo"
    info.write_text(text, encoding="utf-8")
    found = describe(info)
    assert (found.model, found.features, saturates(found)) == (model_name, features, cut_off)


def test_a_system_that_says_nothing_has_no_features(tmp_path):
    assert describe(tmp_path / "absent").features == ()
