from __future__ import annotations

import json
import logging

import pytest

from modeldeploy.errors import ConfigurationError
from modeldeploy.observe import log
from modeldeploy.values.events import Level, Name

FAILED = 'log.sink(event(Name.OPERATION_FAILED, Level.ERROR, error="quota is used up", api_key="k", percent=5))\n'


def test_nothing_is_written_unless_asked(program):
    assert program(FAILED) == ("", "")


def test_structlog_is_not_even_imported_for_a_line_that_nobody_reads(program):
    out, _ = program('log.sink(event(Name.OPERATION_STARTED)); import sys; print("structlog" in sys.modules)')
    assert out == "False\n"


def test_structlog_imported_but_not_configured_does_not_print(program):
    assert program("import structlog\n" + FAILED) == ("", "")


def test_a_structlog_that_another_thread_is_just_importing_is_not_asked(program):
    """Its module stands in the table half made."""
    half = "import sys, types; sys.modules['structlog'] = types.ModuleType('structlog')\n"
    assert program(half + "log.sink(event(Name.OPERATION_STARTED))") == ("", "")


def test_the_applications_own_logging_gets_the_lines(program):
    setup = 'import logging; logging.basicConfig(level="INFO", format="%(levelname)s %(name)s %(message)s")\n'
    out, err = program(setup + FAILED)
    assert out == ""
    line = "operation.failed operation=op-1 error='quota is used up' api_key=[redacted] percent=5"
    assert err == f"ERROR modeldeploy {line}\n"


def test_a_structlog_that_the_application_configured_gets_the_lines(program):
    setup = "import structlog; structlog.configure(processors=[structlog.processors.JSONRenderer(sort_keys=True)])\n"
    out, err = program(setup + FAILED)
    assert err == ""
    assert json.loads(out) == {
        "event": "operation.failed",
        "operation": "op-1",
        "error": "quota is used up",
        "api_key": "[redacted]",
        "percent": 5,
    }


def test_a_structlog_over_standard_logging_gets_the_levels_right(program):
    setup = (
        "import logging, structlog; logging.basicConfig(level='INFO', format='%(levelname)s %(name)s %(message)s')\n"
        "structlog.configure(wrapper_class=structlog.stdlib.BoundLogger, logger_factory=structlog.stdlib.LoggerFactory(),"
        " processors=[structlog.stdlib.filter_by_level, structlog.processors.LogfmtRenderer(key_order=['event'])])\n"
    )
    debug = "log.sink(event(Name.OPERATION_PROGRESS, Level.DEBUG))\n"
    out, err = program(setup + debug + "log.sink(event(Name.OPERATION_RETRY, Level.WARNING, attempt=2))")
    assert (out, err) == ("", "WARNING modeldeploy event=operation.retry operation=op-1 attempt=2\n")


def test_a_field_called_event_does_not_clash_with_structlog(program):
    setup = "import structlog; structlog.configure(processors=[structlog.processors.JSONRenderer()])\n"
    out, _ = program(setup + 'log.write("x.y", Level.INFO, {"event": "e", "level": "l", "exc_info": True})')
    assert json.loads(out) == {"event": "x.y", "event_": "e", "level_": "l", "exc_info_": True}


def test_log_to_console_writes_readable_lines_to_stderr(program):
    out, err = program("log.log_to_console()\n" + FAILED, TZ="UTC")
    assert out == ""
    assert (
        err
        == "22:13:20 error   operation.failed operation=op-1 error='quota is used up' api_key=[redacted] percent=5\n"
    )


def test_log_to_console_writes_json_lines(program):
    _, err = program("log.log_to_console(json=True)\n" + FAILED)
    assert json.loads(err) == {
        "at": "2023-11-14T22:13:20+00:00",
        "level": "error",
        "event": "operation.failed",
        "operation": "op-1",
        "error": "quota is used up",
        "api_key": "[redacted]",
        "percent": 5,
    }


def test_a_second_log_to_console_replaces_the_first_and_obeys_its_level(program):
    code = "log.log_to_console()\nlog.log_to_console(level='error')\nlog.sink(event(Name.OPERATION_STARTED))\n"
    _, err = program(code + FAILED)
    assert err.count("\n") == 1
    assert "operation.failed" in err


def test_log_to_console_leaves_the_root_logger_alone(program):
    code = "import logging; root = logging.getLogger(); before = (root.level, root.handlers[:])\nlog.log_to_console()\n"
    out, _ = program(code + "print(before == (root.level, root.handlers))")
    assert out == "True\n"


def test_log_to_console_survives_a_program_without_stderr(program):
    program("import sys; log.log_to_console(); keep = sys.stderr; sys.stderr = None\n" + FAILED + "sys.stderr = keep")


def test_log_to_console_refuses_a_level_that_does_not_exist():
    with pytest.raises(ConfigurationError, match="'loud'"):
        log.log_to_console(level="loud")


def test_the_record_holds_the_parts_for_the_applications_formatter(event, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="modeldeploy"):
        log.sink(event(Name.TRAFFIC_CHANGED, traffic={"a": 90, "b": 10}, note="100% sure"))
    (record,) = caplog.records
    assert record.modeldeploy == {
        "event": "traffic.changed",
        "at": 1_700_000_000.0,
        "operation": "op-1",
        "traffic": {"a": 90, "b": 10},
        "note": "100% sure",
    }
    assert record.getMessage().endswith("note='100% sure'")


def test_a_line_break_in_a_field_cannot_forge_a_second_line(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="modeldeploy"):
        log.write("x.y", Level.INFO, {"note": "fine\noperation.succeeded", "empty": ""})
    assert caplog.records[0].getMessage() == "x.y note='fine\\noperation.succeeded' empty=''"
