import io
import json
import logging
import os
import re
import subprocess
import sys
import warnings

import pytest

from clipper_agents.observability.logging import (
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

MENDED = StorageFailed("it has vanished: put the disk back")
FIELDS = {"s": 0.5, "calm": True, "worst": float("nan"), "why": None}


def logged(emit, formatter=KeyValueFormatter, clock=lambda: 0.0):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter())
    handler.addFilter(FloodFilter(clock))
    logger = logging.Logger("aiokafka.conn")  # noqa: LOG001 - one of its own, so that no test changes another's
    logger.addHandler(handler)
    emit(logger)
    return stream.getvalue().splitlines()


@pytest.mark.parametrize(
    ("emit", "text", "fields"),
    [
        (
            lambda logger: event(logger, "ended", child="r", line='a "b"\nc', **FIELDS),
            r'level=info logger=aiokafka.conn msg=ended child=r line="a \"b\"\nc" s=0.5 calm=True worst=nan why=None',
            {"level": "info", "msg": "ended", "child": "r", "line": 'a "b"\nc', **FIELDS, "worst": "nan"},
        ),
        (
            lambda logger: logger.error("agent crashed", exc_info=MENDED),  # an error of ours needs no traceback
            f'level=error logger=aiokafka.conn msg="agent crashed" error="{MENDED}"',
            {"level": "error", "msg": "agent crashed", "error": str(MENDED)},
        ),
    ],
    ids=["an event", "an error of ours that a library logs"],
)
def test_a_line_has_the_same_fields_as_text_and_as_json_with_the_time_as_rfc_3339_says(emit, text, fields):
    (line,) = logged(emit)
    assert line.split(" ", 1)[1] == text
    (written,) = logged(emit, JsonFormatter)
    found = json.loads(written)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("at"))
    assert [word.partition("=")[0] for word in re.findall(r"\w+=", text)] == list(found)
    assert found == fields | {"logger": "aiokafka.conn"}


def test_a_record_begins_one_line_whatever_is_in_it_and_no_terminal_obeys_it():
    def emit(logger):
        try:
            int("first\nsecond\x1b[31m\u2028\u202e")
        except ValueError:
            logger.exception("broke\r\n")

    first, *below = logged(emit)
    assert first.endswith(r'msg="broke\r\n"')
    assert below[0] == "    Traceback (most recent call last):"
    assert "    ValueError: invalid literal for int() with base 10: 'first\\nsecond" in below[-1]
    assert all(line.startswith("    ") and line.isprintable() for line in below)
    (text,) = logged(emit, JsonFormatter)
    assert text.isprintable()
    line = json.loads(text)
    assert (line["msg"], "ValueError" in line["traceback"]) == ("broke\r\n", True)


def test_a_library_that_repeats_itself_is_cut_short_and_the_count_is_told():
    now = iter([*(0.0 for _ in range(50)), PERIOD_S])
    lines = logged(
        lambda logger: [logger.error("no connection to %s", number) for number in range(51)], clock=lambda: next(now)
    )
    assert len(lines) == 2
    assert lines[-1].endswith("suppressed=49")


def test_what_passes_by_itself_after_a_topic_is_made_is_written_only_when_it_lasts():
    now = [0.0]
    flood = FloodFilter(lambda: now[0])
    record = logging.LogRecord("aiokafka.x", logging.ERROR, "", 0, "Failed: %s", ("NotLeaderForPartitionError",), None)
    written = []
    for now[0] in (0.0, PASSES_WITHIN_S, PASSES_WITHIN_S + 1.0, PASSES_WITHIN_S + 1.0 + 2 * PERIOD_S):
        written.append(bool(flood.filter(record)))
    assert written == [False, False, True, False]


# --- processes --------------------------------------------------------------------------------------------------------
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
        ('{"at":"T","route":"/readyz","ms":0.1}', {"at": "T", "route": "/readyz", "ms": 0.1}),
        *((line, {"msg": line}) for line in ("Traceback (most recent call last):", '{"half": ', "[1, 2]")),
    ],
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


@pytest.mark.parametrize(
    ("name", "level", "message"),
    [
        ("mode.timers", logging.WARNING, "Timer commit is overlapping"),
        ("uvicorn.error", logging.INFO, "Started server process [4711]"),
    ],
)
def test_what_nobody_can_act_on_is_told_at_debug_level_only(formats, capsys, name, level, message):
    formats("text")
    logging.getLogger(name).log(level, message)
    assert capsys.readouterr().err == ""
    LogOptions(level="debug").configure({})
    logging.getLogger(name).log(level, message)
    assert message in capsys.readouterr().err


def test_options_come_before_the_environment_and_an_unknown_format_is_refused(formats, capsys):
    for options in (LogOptions(format="text"), LogOptions()):
        options.configure({"CLIPPER_LOG_FORMAT": "json"})
        logging.getLogger("clipper").info("hello")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("level=info logger=clipper msg=hello")
    assert json.loads(second)["msg"] == "hello"
    with pytest.raises(InvalidSetting, match="log format 'xml': use one of text, json"):
        LogOptions(format="xml").configure({})


def test_a_command_that_writes_json_says_so_why_it_ends():
    worker = "-m clipper_agents.cli.main worker router --instance r --bootstrap 127.0.0.1:1 --log-format json"
    command = [sys.executable, *worker.split(), "--set", "router.metrics_port=1"]
    environ = {**os.environ, "CLIPPER_ROUTER_METRICS_ADDRESS": "192.0.2.1"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    (line,) = map(json.loads, done.stderr.splitlines())
    assert (line["level"], line["msg"][:34]) == ("error", "metrics_port 192.0.2.1:1: Cannot a")


def test_logs_and_warnings_may_go_to_another_stream(formats):
    lines = io.StringIO()
    LogOptions().configure({}, lines)
    logging.getLogger("clipper").info("hello")
    warnings.warn("be careful", stacklevel=1)
    first, second, *_ = lines.getvalue().splitlines()
    assert first.endswith("level=info logger=clipper msg=hello")
    assert "be careful" in second
