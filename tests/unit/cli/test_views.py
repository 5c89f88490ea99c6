"""What a terminal and a pipe show, letter by letter."""

import json
import re
from dataclasses import fields, replace
from operator import attrgetter
from pathlib import Path

import pytest
from builders.status import NOW_S, facts, recent, report
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType

from clipper_agents.cli.status_view import COLUMNS, application_parts, json_line, lines, page, show, trial_line
from clipper_agents.status.build import StatusBuilder
from clipper_agents.status.deployment_view import DeploymentView
from clipper_agents.status.model import (
    ApplicationStatus,
    Latency,
    Loss,
    ModelStatus,
    Status,
    TrialStatus,
    VersionStatus,
    WorkerMetrics,
)
from clipper_agents.status.traffic_window import TrafficWindow
from clipper_agents.status.watch import SILENT, take_snapshot

APPLICATION = """\
application digits: exp3, objective 100 ms, revision 4
last 10 s: 10.0 queries/s; 5.0 feedback/s; p50 59 ms; p99 108 ms; defaults: late 3
p50, p99 ms by stage: wait 52, 108; models 6.6, 12
version  stage         weight  share  loss to date, 95 %   hosts    batch  p50 ms  p99 ms  lag
svm:1    live            98 %   62 %  0.100 [0.055 0.174]  2/2         64     1.5      20    7
knn:1    live             2 %   30 %  0.500 [0.404 0.596]  routers      -     9.6      11    -
rf:2     canary 5 %         -    5 %  0.100 [0.035 0.256]  0/1          -      11      12    -
nn:3     shadow 100 %       -  100 %  -                    1/1          -      80      80    -
old:1    retired            -    0 %  0.900 [0.596 0.982]  -            -       -       -    -
host host.rf.2.0 failed: no module named shop
trial rf:2: loss 0.100 of 30 feedbacks, models 0.300 of 200: -0.200; in [-0.293 -0.033] by these
totals; waits: the steward's next report of its evidence
trial nn:3 waits: somebody to decide, it is not automatic; the steward's next report of its evidence
"""
CHANGES = """\
revision  changed at            by       what          why
4         2023-11-14T22:12:20Z  rollout  canary rf:2   upper end -0.010 below 0.02
3         2023-11-14T21:53:20Z  ada      shadow nn:3
2         2023-11-14T20:13:20Z  ada      retire old:1  worst of three
"""
KEYS_OF: dict[type, str] = {
    Status: "the deployment",
    ApplicationStatus: "each of `applications`, by name",
    VersionStatus: "each of its `versions`",
    TrialStatus: "each of its `trials`",
}
WORKERS = WorkerMetrics(
    batch_limits={"svm:1": 64.0},
    batches={"svm:1": Latency(p50_ms=1.5, p99_ms=20.0, source="metrics")},
    lag={"svm:1": 7},
)


def status(workers: WorkerMetrics = WORKERS, window_s: int = 10) -> ApplicationStatus:
    looking = StatusBuilder(facts=facts(), recent=recent(), now_s=NOW_S, window_s=window_s, workers=workers)
    return looking.applications()["digits"]


def shown(*parts: RenderableType) -> str:
    """As in a pipe, without the blanks at the ends of lines."""
    console = Console(width=COLUMNS, force_terminal=False, color_system=None)
    with console.capture() as said:
        console.print(Group(*parts))
    return "".join(f"{line.rstrip()}\n" for line in said.get().splitlines())


def test_an_application_is_a_table_of_its_versions_with_its_trials_and_changes() -> None:
    assert shown(*application_parts("digits", status())) == APPLICATION + CHANGES


def test_with_the_longest_names_nothing_is_lost_or_over_100_columns_wide() -> None:
    ref = f"{'long-name-' * 6}abcd:{'9' * 32}"
    version = VersionStatus(
        model=ref,
        stage="canary",
        declared_share=0.025,
        weight=0.0049,
        share=1.0,
        loss=status().versions[0].loss,
        hosts=256,
        replicas=256,
        batch_limit=65536,
        latency=Latency(p50_ms=12345.0, p99_ms=123456.0, source="predictions"),
        lag=1234567,
    )
    trial = TrialStatus(model=ref, feedbacks=0, difference=0, lower=-1, upper=1, source="totals", waits_for="you " * 40)
    found = shown(*application_parts("a" * 64, replace(status(), versions=(version,), trials=(trial,))))
    assert max(map(cell_len, found.splitlines())) <= COLUMNS
    assert "256/256" in found
    assert "1234567" in found
    assert "0.5 %" in found
    column = "".join(line[:20].split(" ")[0] for line in found.splitlines()[3:])
    assert ref in column


def test_a_trial_says_by_which_queries_it_is_compared() -> None:
    told = TrialStatus(
        model="rf:2", feedbacks=9, difference=-0.122, lower=-0.2, upper=0.01, source="steward", scores=80, waiting=3,
        from_s=1_700_000_000, upto_s=1_700_000_060, waits_for="it may lose 0.0100 more than the answers",
        loss=Loss(count=61, mean=0.0, lower=0.0, upper=0.1), answers=Loss(count=61, mean=0.122, lower=0.1, upper=0.2),
    )  # fmt: skip
    assert trial_line(told) == (
        "trial rf:2: loss 0.000 of 61 feedbacks, models 0.122 of 61: -0.122; in [-0.200 +0.010] for all 80 queries "
        "(3 wait for feedback) from 22:13:20Z to 22:14:20Z; waits: it may lose 0.0100 more than the answers"
    )
    unheard = trial_line(replace(told, loss=None, upto_s=1_700_100_000))
    assert "loss - of 0 feedbacks, models 0.122 of 61; in [" in unheard
    assert "from 2023-11-14T22:13:20Z to 2023-11-16T02:00:00Z" in unheard


def test_the_reference_shows_an_application_as_the_program_does() -> None:
    page = (Path(__file__).parents[3] / "docs/reference/status.md").read_text()
    assert "".join(f"    {line}\n" for line in (APPLICATION + CHANGES).splitlines()) in page
    assert "".join(f"    {line}\n" for line in LINES.splitlines()[:1]) in page


@pytest.mark.parametrize("record", [Status, ApplicationStatus, VersionStatus, TrialStatus], ids=attrgetter("__name__"))
def test_the_reference_names_every_key_of_the_status_as_json(record: type) -> None:
    page = (Path(__file__).parents[3] / "docs/reference/status.md").read_text()
    (told,) = re.findall(rf"^- {re.escape(KEYS_OF[record])}: ([^.]*)\.$", page, re.MULTILINE)
    named = set(re.findall("`([a-z0-9_]+)`", told))
    assert named == {one.name for one in fields(record)} | ({"reasons"} if record is Status else set())


def test_contexts_that_may_be_more_are_told_as_the_least() -> None:
    few = replace(status(), contexts=12, contexts_whole=False)
    assert "contexts with weights of their own: at least 12\n" in shown(*application_parts("digits", few))
    named = replace(status(), contexts=12, context="ada")
    found = shown(*application_parts("digits", named))
    assert "revision 4, context ada\n" in found
    assert "contexts with weights of their own: 12\n" in found


def test_the_status_shows_groups_then_applications_then_unnamed_models() -> None:
    models = [ModelStatus(ref=ref, colocated=False, replicas=0, live=0, retired=ref != "a:1") for ref in ("a:1", "b:1")]
    whole = Status(prefix="clipper", at_s=NOW_S, applications={"digits": status()}, models=tuple(models))
    console = Console(width=COLUMNS, force_terminal=False, color_system=None)
    with console.capture() as said:
        show(console, whole, ["host h failed"])
    found = "".join(f"{line.rstrip()}\n" for line in said.get().splitlines())
    assert found.startswith("clipper at 2023-11-14T22:13:20Z\n")
    assert APPLICATION + CHANGES in found
    others = "models of no application: a:1\n"
    assert found.endswith(f"{others}dead letters within the last hour: 0\nwrong: host h failed\n")


WATCHED = """\
clipper at 22:13:20Z; Ctrl-C ends it

application digits: exp3, objective 100 ms, revision 4
"""
EVENTS = """\

20:13:20Z event: digits revision 2: retire old:1 by ada: worst of three
21:53:20Z event: digits revision 3: shadow nn:3 by ada
22:12:20Z event: digits revision 4: canary rf:2 by rollout: upper end -0.010 below 0.02
22:12:50Z event: host host.svm.1.0 of svm:1 is ready
22:12:50Z event: host host.svm.1.1 of svm:1 is ready
22:12:50Z event: host host.rf.2.0 of rf:2 is failed: no module named shop
22:12:50Z event: host host.nn.3.0 of nn:3 is ready
wrong: host host.rf.2.0 of model rf:2 failed: no module named shop: correct the model or its
manifest, then `clipper-stream apply`, or look at the host's log
wrong: application digits: trial nn:3 got no feedback for 20 min: send labels with the ids of its
queries, or abort it
"""
LINES = """\
22:12:50Z event: host host.nn.3.0 of nn:3 is draining
22:13:20Z wrong: application digits: trial nn:3 got no feedback for 20 min: send labels with the ids of its queries, \
or abort it
22:13:20Z digits 10.0 q/s p50=59ms p99=108ms default:late=3 | svm:1 live share=62% weight=0.98 loss=0.100 | \
knn:1 live share=30% weight=0.02 loss=0.500 | rf:2 canary@5% share=5% loss=0.100 | nn:3 shadow@100% share=100%
"""


def test_a_page_of_watch_has_the_same_table_the_last_events_and_what_is_wrong() -> None:
    found = shown(page(take_snapshot(facts(), recent(), NOW_S, 0), "clipper", {}))
    assert found.startswith(WATCHED)
    assert found.endswith(EVENTS)
    assert CHANGES not in found
    assert "version  stage         weight  share  loss to date, 95 %   hosts    p50 ms  p99 ms\n" in found
    assert "rf:2     canary 5 %         -    5 %  0.100 [0.035 0.256]  0/1          11      12\n" in found


def test_a_terminal_of_eighty_columns_shows_every_column() -> None:
    console = Console(width=80, force_terminal=False, color_system=None)
    with console.capture() as said:
        console.print(page(take_snapshot(facts(), recent(), NOW_S, 0), "clipper", {}))
    found = "".join(f"{line.rstrip()}\n" for line in said.get().splitlines())
    assert "svm:1   live           98 %  62 % 0.100 [0.055 0.174] 2/2        5.0    8.1\n" in found
    assert max(map(cell_len, found.splitlines())) <= 80
    assert "0.100 [0.055 0.174]" in found


def drained() -> tuple[DeploymentView, int]:
    """The deployment, and how many events there were before its shadow began to end."""
    found = facts()
    seen = found.seen
    report(found, "nn:3", "host.nn.3.0", "draining")
    report(found, "rf:2", "host.rf.2.0", "ready")
    found.events.pop()  # that another one is ready is told elsewhere
    found.seen -= 1
    return found, seen


def test_in_a_pipe_an_application_is_a_line_and_only_what_is_new_is_told_besides() -> None:
    found, seen = drained()
    look = take_snapshot(found, recent(), NOW_S, seen)
    told = [reason for reason in look.reasons if "none of 1 hosts is ready" in reason]
    assert len(told) == 1
    assert "".join(f"{line}\n" for line in lines(look, told)) == LINES
    assert len([*lines(take_snapshot(found, recent(), NOW_S, found.seen), look.reasons)]) == 1


def test_an_object_has_what_the_page_has_with_new_events_alone() -> None:
    found, seen = drained()
    said = json_line(take_snapshot(found, recent(), NOW_S, seen))
    assert "\n" not in said
    content = json.loads(said)
    assert set(content) == {"at_s", "applications", "events", "reasons"}
    assert [event["text"] for event in content["events"]] == ["host host.nn.3.0 of nn:3 is draining"]
    assert content["applications"]["digits"]["versions"][3]["starting"] == ["host.nn.3.0"]


def test_an_application_that_is_asked_for_and_not_there_is_told() -> None:
    look = take_snapshot(facts(), recent(), NOW_S, 0, application="letters")
    assert look.applications == {}
    assert look.reasons == ["application letters is not declared: run `clipper-stream apply`, or correct the name"]
    assert all(event.application is None for event in look.events)


@pytest.mark.parametrize(("silent_s", "answers"), [(1.0, True), (3.5, False)])
def test_a_broker_that_is_silent_for_three_seconds_is_told(silent_s: float, answers: bool) -> None:
    look = take_snapshot(facts(), recent(), NOW_S, 0, heard_s=NOW_S - silent_s)
    assert look.kafka_answers is answers
    assert (look.reasons[0] == SILENT) is not answers


def test_topics_that_may_not_be_read_are_told() -> None:
    (first, *_) = take_snapshot(facts(), TrafficWindow(), NOW_S, 0, refused={"clipper.audits"}).reasons
    assert first.startswith("topic clipper.audits: this user may not read it")


@pytest.mark.parametrize(("window_s", "rate"), [(10, "10.0 queries/s"), (60, "1.7 queries/s")])
def test_rates_are_of_the_window_that_is_told(window_s: int, rate: str) -> None:
    found = shown(*application_parts("digits", status(window_s=window_s)))
    assert f"last {window_s} s: {rate};" in found
