"""A log line is one line, of `key=value` or of JSON, with the same fields; a library floods nobody."""

import io
import json
import logging
import os
import re
import subprocess
import sys

import pytest

from clipper_agents.observability.logging import (
    BURST,
    PASSES_WITHIN_S,
    PERIOD_S,
    FloodFilter,
    JsonFormatter,
    KeyValueFormatter,
    LogOptions,
    child_line,
    error_line,
    event,
)
from clipper_agents.streaming.storage import StorageFailed
from clipper_stream.errors import InvalidSetting


def logged(emit, clock=lambda: 0.0, formatter=KeyValueFormatter):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter())
    handler.addFilter(FloodFilter(clock))
    logger = logging.Logger("aiokafka.conn")  # noqa: LOG001 - one of its own, so that no test changes another's
    logger.addHandler(handler)
    emit(logger)
    return stream.getvalue().splitlines()


def test_an_event_is_one_line_of_fields():
    (line,) = logged(lambda logger: event(logger, "child ended", child="router-0", line='a "b"\nc'))
    assert line.split(" ", 1)[1] == (
        r'level=info logger=aiokafka.conn msg="child ended" child=router-0 line="a \"b\"\nc"'
    )


def test_a_traceback_stays_on_the_line_of_its_event():
    def emit(logger):
        try:
            int("first\nsecond")
        except ValueError:
            logger.exception("broke")

    (line,) = logged(emit)
    assert "ValueError: invalid literal" in line


def test_an_error_of_ours_that_a_library_logs_says_what_to_do_and_has_no_traceback():
    error = StorageFailed("it has vanished: put the disk back")
    (line,) = logged(lambda logger: logger.error("agent crashed", exc_info=error))
    assert line.split(" ", 1)[1] == (
        'level=error logger=aiokafka.conn msg="agent crashed" error="it has vanished: put the disk back"'
    )


def test_a_library_that_repeats_itself_is_cut_short_and_the_count_is_told():
    now = iter([*(0.0 for _ in range(50)), PERIOD_S])

    def emit(logger):
        for number in range(51):
            logger.error("no connection to %s", number)

    lines = logged(emit, lambda: next(now))
    assert len(lines) == BURST + 1
    assert lines[-1].endswith(f"suppressed={50 - BURST}")


def test_what_passes_by_itself_after_a_topic_is_made_is_written_only_when_it_lasts():
    now = [0.0]
    flood = FloodFilter(lambda: now[0])
    record = logging.LogRecord("aiokafka.x", logging.ERROR, "", 0, "Failed: %s", ("NotLeaderForPartitionError",), None)
    assert not flood.filter(record)
    now[0] = PASSES_WITHIN_S
    assert not flood.filter(record)
    now[0] = PASSES_WITHIN_S + 1.0
    assert flood.filter(record)
    now[0] += 2 * PERIOD_S
    assert not flood.filter(record)


def logged_json(emit):
    return [json.loads(line) for line in logged(emit, formatter=JsonFormatter)]


def test_a_json_line_has_the_fields_of_a_text_line_and_the_time_as_rfc_3339_says():
    def emit(logger):
        fields = {"exit_code": -9, "seconds": 0.5, "calm": True, "worst": float("nan"), "why": None}
        event(logger, "child ended", child="router-0", **fields)

    (line,) = logged_json(emit)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("at"))
    assert line == {
        "level": "info",
        "logger": "aiokafka.conn",
        "msg": "child ended",
        "child": "router-0",
        "exit_code": -9,
        "seconds": 0.5,
        "calm": True,
        "worst": "nan",
        "why": None,
    }
    (text,) = logged(emit)
    assert re.findall(r"(\w+)=", text) == list(line)


def test_a_json_line_is_one_line_whatever_is_in_it_and_no_terminal_obeys_it():
    def emit(logger):
        try:
            int("first\nsecond\x1b[31m\u2028\u202e")
        except ValueError:
            logger.exception("broke\r\n")

    (text,) = logged(emit, formatter=JsonFormatter)
    assert text.isprintable()
    line = json.loads(text)
    assert line["msg"] == "broke\r\n"
    assert "ValueError: invalid literal" in line["traceback"]


def test_an_error_of_ours_in_json_has_no_traceback():
    error = StorageFailed("it has vanished: put the disk back")
    (line,) = logged_json(lambda logger: logger.error("agent crashed", exc_info=error))
    assert (line["error"], "traceback" in line) == ("it has vanished: put the disk back", False)


@pytest.fixture
def formats():
    """Have the logs of this process in a format, until the test ends."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield lambda name: LogOptions(format=name).configure({})
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ('{"at": "T", "level": "info", "msg": "hello"}', {"at": "T", "level": "info", "msg": "hello"}),
        (
            '{"at":"T","route":"/readyz","ms":0.1}',
            {"at": "T", "route": "/readyz", "ms": 0.1},
        ),
        ("Traceback (most recent call last):", {"msg": "Traceback (most recent call last):"}),
        ('{"half": ', {"msg": '{"half": '}),
        ("[1, 2]", {"msg": "[1, 2]"}),
    ],
    ids=["a log line", "an access line", "a line of Python", "half an object", "no object"],
)
def test_a_supervisor_that_writes_json_puts_the_name_of_a_child_into_its_lines(formats, line, fields):
    assert child_line("router-0", line) == f"child=router-0 {line}", "text is passed on as it is"
    formats("json")
    found = json.loads(child_line("router-0", line))
    assert list(found)[:2] == ["child", "at"]
    assert {**found, "at": fields.get("at", found["at"])} == {"child": "router-0", "at": found["at"], **fields}


def test_the_last_line_of_a_process_is_json_as_well(formats):
    formats("json")
    assert json.loads(error_line("no broker answers")).items() >= {"level": "error", "msg": "no broker answers"}.items()


def test_options_come_before_the_environment_and_an_unknown_format_is_refused(formats, capsys):
    LogOptions(format="text").configure({"CLIPPER_LOG_FORMAT": "json"})
    logging.getLogger("clipper").info("text")
    LogOptions().configure({"CLIPPER_LOG_FORMAT": "json"})
    logging.getLogger("clipper").info("json")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("level=info logger=clipper msg=text")
    assert json.loads(second)["msg"] == "json"
    with pytest.raises(InvalidSetting, match="log format 'xml': use one of text, json"):
        LogOptions(format="xml").configure({})


def test_a_command_that_writes_json_says_so_why_it_ends():
    command = [sys.executable, "-m", "clipper_agents.cli.main", "worker", "router", "--instance", "r"]
    done = subprocess.run(
        [*command, "--bootstrap", "127.0.0.1:1", "--set", "router.metrics_port=1", "--log-format", "json"],
        env={**os.environ, "CLIPPER_ROUTER_METRICS_ADDRESS": "192.0.2.1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 3
    (line,) = map(json.loads, done.stderr.splitlines())
    assert (line["level"], line["msg"][:34]) == ("error", "metrics_port 192.0.2.1:1: Cannot a")
