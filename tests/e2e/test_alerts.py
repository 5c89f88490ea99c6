"""Each alert fires when what it is about happens, and ends when that is mended; each panel of the board shows data.

A real Prometheus evaluates deploy/observe/alerts.yml with windows that are 60 times shorter, on a real pipeline. Two
causes cannot be had in seconds, a clock that is wrong and a disk that is full: a target of the test's own tells of
them.
"""

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

import pytest
import yaml
from e2e.observed import FACTOR, Observed, observed, shows_data
from e2e.programs import descendants, environment, until

from deploy.observe.servers import RULES

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus: apt install prometheus"),
]

PAGE = Path(__file__).parents[2] / "benchmarks/results/alerts.md"
SICK = """
clipper_clock_skew_seconds 0.5
clipper_disk_used_bytes{folder="/data"} 5e9
clipper_disk_free_bytes{folder="/data"} 4e9
"""
FIRES_S, RESOLVES_S = 120.0, 900.0
POLL_S = 0.1


@dataclass(frozen=True)
class Cause:
    """What goes wrong, and the alerts that say so, each with labels that it has; they end by themselves after it."""

    title: str
    happens: Callable[[Observed], AbstractContextManager[None]]
    alerts: Mapping[str, Mapping[str, str]]


QUICK = (
    Cause(
        "three records on the queries topic that are no queries",
        Observed.unreadable_records,
        {"ClipperDeadLetters": {"topic": "clipper.queries", "reason": "undecodable"}},
    ),
    Cause(
        "a model that takes 6 s a batch, with an objective of 5 s",
        lambda pipeline: pipeline.mood("is late"),
        {"ClipperLatencyObjectiveBurnsFast": {"application": "late"}},
    ),
    Cause(
        "the only host of a model is killed, and ends at each start",
        Observed.dead_host,
        {
            "ClipperProcessDown": {"instance": "host.mortal.1.0"},
            "ClipperNoReadyHosts": {"model": "mortal:1"},
            "ClipperRestarts": {"instance": "supervisor", "role": "host"},
            "ClipperProcessesMissing": {"instance": "supervisor", "role": "host"},
        },
    ),
    Cause(
        "metrics of a process that there is not: its clock is 0.5 s ahead, its disk has 4 GB left for 5 GB of data",
        lambda pipeline: pipeline.told_by_nobody(SICK),
        {"ClipperClockSkew": {"instance": "nobody"}, "ClipperDiskAlmostFull": {"instance": "nobody"}},
    ),
)
EVENTS = (
    Cause(
        "a canary that is always wrong, aborted by its rule",
        Observed.bad_trial,
        {"ClipperTrialAborted": {"application": "tried"}},
    ),
    Cause(
        "a model's outputs are off by one from now on",
        lambda pipeline: pipeline.mood("drifts"),
        {"ClipperDrift": {"application": "drifting", "model": "drifting:1"}},
    ),
)
"""These count for half an hour and an hour."""
REST = (
    Cause(
        "Kafka stands still",
        Observed.frozen_broker,
        {"ClipperBrokerUnreachable": {"instance": "router-0"}, "ClipperGatewayErrors": {}},
    ),
    Cause(
        "4,000 queries at once to a model that answers 20 a second",
        Observed.backlog,
        {"ClipperConsumerLag": {}},
    ),
    Cause(
        "a model that fails on every batch",
        lambda pipeline: pipeline.mood("raises"),
        {
            "ClipperDefaultsBurnFast": {"application": "raising"},
            "ClipperDefaultsBurnSlowly": {"application": "raising"},
        },
    ),
    Cause(
        "six callers at a gateway that lets two wait, for a model that is always late",
        Observed.crowd,
        {
            "ClipperGatewayOverload": {"application": "crowded"},
            "ClipperLatencyObjectiveBurnsSlowly": {"application": "crowded"},
        },
    ),
)
"""The two that burn slowly come last: a further miss would begin their six hours, six minutes here, anew."""


@dataclass
class Course:
    """What became of an alert, in seconds: after its cause began, and after it was mended."""

    cause: Cause
    alert: str
    began_s: float
    fires_s: float = 0.0
    mended_s: float = 0.0
    resolves_s: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)


def caused(pipeline: Observed, causes: Iterable[Cause]) -> list[Course]:
    """Have things go wrong together until every alert fires, then mend them; none of them fires before."""
    courses, causes = list[Course](), [*causes]
    early = [Course(cause, name, 0.0, labels=labels) for cause in causes for name, labels in cause.alerts.items()]
    resolved(pipeline, early)
    with ExitStack() as stack:
        for cause in causes:
            began_s = time.monotonic()
            stack.enter_context(cause.happens(pipeline))
            courses += (Course(cause, name, began_s, labels=labels) for name, labels in cause.alerts.items())
        for course, at_s in changes(pipeline, [*courses], FIRES_S, fires=True):
            course.fires_s = at_s - course.began_s
    for course in courses:
        course.mended_s = time.monotonic()
    return courses


def resolved(pipeline: Observed, courses: Iterable[Course]) -> None:
    """Wait until none of these alerts fires any more."""
    for course, at_s in changes(pipeline, [*courses], RESOLVES_S, fires=False):
        course.resolves_s = at_s - course.mended_s


def changes(
    pipeline: Observed, waiting: list[Course], within_s: float, *, fires: bool
) -> Iterator[tuple[Course, float]]:
    """Each of the alerts when it fires, or when it does not any more."""
    end_s = time.monotonic() + within_s
    while waiting:
        firing, now_s = pipeline.firing(), time.monotonic()
        for course in [one for one in waiting if is_among(one, firing) is fires]:
            waiting.remove(course)
            yield course, now_s
        names = [course.alert for course in waiting]
        assert now_s < end_s, f"not within {within_s:.0f} s: {names} {'fire' if fires else 'end'}; {firing}"
        time.sleep(POLL_S)


def is_among(course: Course, firing: Iterable[Mapping[str, str]]) -> bool:
    wanted = {"alertname": course.alert, **course.labels}
    return any(wanted.items() <= labels.items() for labels in firing)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_alerts_fire_and_end_and_every_panel_of_the_board_shows_data(tmp_path: Path):
    with observed(tmp_path) as pipeline:
        until("no alert, for nothing is wrong yet", lambda: not pipeline.firing())
        quick = caused(pipeline, [*EVENTS, *QUICK])
        soon = [one for one in quick if one.cause in QUICK and not one.alert.endswith("Fast")]  # whose windows are 30 s
        resolved(pipeline, soon)
        shows_data(pipeline.url, 30)


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_every_alert_fires_and_ends_and_the_table_says_after_how_long(tmp_path: Path):
    with observed(tmp_path) as pipeline:
        courses = list[Course]()
        for cause in (*QUICK, *EVENTS, *REST):
            courses += (fresh := caused(pipeline, [cause]))
            resolved(pipeline, [one for one in fresh if not one.alert.endswith("Slowly")])
        resolved(pipeline, [one for one in courses if one.alert.endswith("Slowly")])
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert {one.alert for one in courses} == {rule["alert"] for rule in rules if "alert" in rule}
    PAGE.write_text(page(courses))
    print(page(courses))  # noqa: T201 - the table


@pytest.mark.long
@pytest.mark.timeout(600)
def test_make_observe_shows_data_in_every_panel_and_ends_with_ctrl_c(tmp_path: Path):
    command = [sys.executable, RULES.with_name("run.py"), "--faster", "60"]
    environ = environment(CLIPPER_GATEWAY_ENABLED="true", TMPDIR=str(tmp_path))
    with (
        (tmp_path / "err").open("wb") as err,
        subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=err, text=True) as process,
    ):
        assert process.stdout is not None
        said = "".join(takewhile(lambda line: line != "Ctrl-C ends it\n", process.stdout))
        found = re.search(r"^prometheus  (\S+)/alerts$", said, re.MULTILINE)
        assert found, (tmp_path / "err").read_text()
        shows_data(found[1], 240)
        started = descendants(process.pid)
        assert len(started) >= 8
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        until("the end of all that it started", lambda: not any(one.runs for one in started), 30)
    assert [path.name for path in tmp_path.iterdir()] == ["err"]
    assert "Traceback" not in (tmp_path / "err").read_text()


PAGE_HEAD = """# Alerts: from cause to alert, and from mending to its end

<!-- Written by pytest -m long tests/e2e/test_alerts.py -->

A real Prometheus on a real pipeline; {cores} cores, {machine}. The rules are those of
[alerts.yml](../../deploy/observe/alerts.yml), their windows and waits {factor} times shorter: five minutes are five
seconds. Scrapes and evaluations are a second apart. The clock and the disk are told by a target of the test's own;
everything else happens.

| cause | alert | fires after, s | ends after, s |
|---|---|---|---|
"""


def page(courses: Iterable[Course]) -> str:
    head = PAGE_HEAD.format(cores=len(os.sched_getaffinity(0)), machine=platform.machine(), factor=FACTOR)
    rows = [f"| {one.cause.title} | `{one.alert}` | {one.fires_s:.1f} | {one.resolves_s:.1f} |" for one in courses]
    return head + "\n".join([*rows, ""])
