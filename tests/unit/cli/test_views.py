import io
import json
import re
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from textwrap import indent

import pytest
from builders.status import CLUSTER, NOW_S, digits, facts, recent, report
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType

from clipper_agents.cli.sparklines import HEADINGS, SLOT_S, SLOTS, RecentCurves, sparkline
from clipper_agents.cli.status import view_of
from clipper_agents.cli.status_view import COLUMNS, application_parts, json_line, lines, page, show, trial_line
from clipper_agents.status import watch
from clipper_agents.status.deployment_view import DeploymentView
from clipper_agents.status.model import (
    ApplicationStatus,
    BrokerStatus,
    GroupStatus,
    Latency,
    Loss,
    MemberStatus,
    ModelStatus,
    Status,
    TopicStatus,
    TrialStatus,
    VersionStatus,
    WorkerMetrics,
)
from clipper_agents.status.watch import SILENT, Snapshot

GOLDEN = Path(__file__).parents[2] / "golden"
REFERENCE = (Path(__file__).parents[3] / "docs/reference/status.md").read_text()
BATCHES = {"svm:1": Latency(p50_ms=1.5, p99_ms=20.0)}
WORKERS = WorkerMetrics(batch_limits={"svm:1": 64.0}, batches=BATCHES, lag={"svm:1": 7})
STATUS = digits(workers=WORKERS)
take_snapshot = partial(watch.take_snapshot, cluster=CLUSTER)


def screen(width: int = COLUMNS, **options: object) -> Console:
    """As in a pipe."""
    return Console(width=width, force_terminal=False, color_system=None, **options)


def trimmed(text: str) -> str:
    """Without the blanks at the ends of lines."""
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def shown(*parts: RenderableType, width: int = COLUMNS) -> str:
    console = screen(width)
    with console.capture() as said:
        console.print(Group(*parts))
    return trimmed(said.get())


def watched(width: int = COLUMNS, *, curves: bool = True) -> str:
    seen, drawn = take_snapshot(facts(), recent(), NOW_S, 0), RecentCurves()
    drawn.add(seen)
    return shown(page(seen, "clipper", drawn.tables(screen(width)) if curves else {}), width=width)


def whole() -> str:
    """What `status` shows; of models without an application, the one that is in force is named."""
    models = [ModelStatus(ref=ref, colocated=False, replicas=0, live=0, retired=ref != "a:1") for ref in ("a:1", "b:1")]
    topic, away = "clipper.queries", BrokerStatus(node_id=2, address="10.0.0.9:9092", reachable=False)
    members = (
        MemberStatus(instance="router-0", host="10.0.0.1", partitions={topic: (0, 2)}),
        MemberStatus(instance="router-1", host="10.0.0.2", partitions={topic: (1,)}),
    )
    status = Status(
        prefix="clipper", at_s=NOW_S, applications={"digits": STATUS}, models=tuple(models), brokers=(away,),
        topics=(TopicStatus(name=topic, partitions=3, leaderless=(1,)),), dead_letters=4,
        groups=(GroupStatus(group="router", state="Stable", members=members, inputs={topic: 3}, lag={topic: 7}),),
    )  # fmt: skip
    console = screen()
    with console.capture() as said:
        show(console, status, ["host h failed"])
    return trimmed(said.get())


def drained() -> tuple[DeploymentView, int]:
    """The deployment, and how many events there were before its shadow began to end."""
    found = facts()
    report(found, "rf:2", "host.rf.2.0", "ready")
    seen = found.seen
    report(found, "nn:3", "host.nn.3.0", "draining")
    return found, seen


def piped() -> str:
    """A line an application, and besides only what is new."""
    found, seen = drained()
    look = take_snapshot(found, recent(), NOW_S, seen)
    told = look.reasons[:-1]
    assert "model nn:3 has 0 of 1 hosts" in told[0]
    assert len([*lines(take_snapshot(found, recent(), NOW_S, found.seen), look.reasons)]) == 1
    return "".join(f"{line}\n" for line in lines(look, told))


NARROW = partial(watched, 80, curves=False)
VIEWS = {"watch": watched, "watch-narrow": NARROW, "status": whole, "watch-pipe": piped}


@pytest.mark.parametrize(("name", "view"), VIEWS.items(), ids=VIEWS)
def test_a_view_is_that_of_the_golden_text(name: str, view: Callable[[], str]) -> None:
    assert view() == (GOLDEN / f"{name}.txt").read_text()


def test_the_reference_shows_an_application_as_the_program_does() -> None:
    text = shown(*application_parts("digits", STATUS))
    assert text in whole()
    assert indent(text, "    ") in REFERENCE
    assert indent(piped().partition("\n")[0], "    ") in REFERENCE


def test_the_reference_names_every_key_of_the_status_as_json() -> None:
    for record, what, more in (
        (Status, "the deployment", {"reasons"}),
        (ApplicationStatus, "each of `applications`, by name", set()),
        (VersionStatus, "each of its `versions`", set()),
        (TrialStatus, "each of its `trials`", set()),
    ):
        (told,) = re.findall(rf"^- {re.escape(what)}: ([^.]*)\.$", REFERENCE, re.MULTILINE)
        assert set(re.findall("`([a-z0-9_]+)`", told)) == {one.name for one in fields(record)} | more, what


def test_with_the_longest_names_nothing_is_lost_or_over_100_columns_wide() -> None:
    ref = f"{'long-name-' * 6}abcd:{'9' * 32}"
    latency = Latency(p50_ms=12345.0, p99_ms=123456.0)
    version = VersionStatus(
        model=ref, stage="canary", declared_share=0.025, weight=0.0049, share=1.0, loss=STATUS.versions[0].loss,
        hosts=256, replicas=256, batch_limit=65536, latency=latency, lag=1234567,
    )  # fmt: skip
    trial = TrialStatus(model=ref, feedbacks=0, difference=0, lower=-1, upper=1, source="totals", waits_for="you " * 40)
    found = shown(*application_parts("a" * 64, replace(STATUS, versions=(version,), trials=(trial,))))
    assert max(map(cell_len, found.splitlines())) <= COLUMNS
    assert [text for text in ("256/256", "1234567", "0.5 %") if text not in found] == []
    assert ref in "".join(line[:20].split(" ")[0] for line in found.splitlines()[3:])


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


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (replace(STATUS, contexts=12, contexts_whole=False), "contexts with weights of their own: at least 12\n"),
        (replace(STATUS, contexts=12), "contexts with weights of their own: 12\n"),
        (replace(STATUS, context="ada"), "revision 4, context ada\n"),
        (digits(), "last 10 s: 10.0 queries/s;"),
        (digits(window_s=60), "last 60 s: 1.7 queries/s;"),
    ],
)
def test_an_application_says_of_which_contexts_and_seconds_it_is(status: ApplicationStatus, said: str) -> None:
    assert said in shown(*application_parts("digits", status))


def test_an_object_has_what_the_page_has_with_new_events_alone() -> None:
    found, seen = drained()
    said = json_line(take_snapshot(found, recent(), NOW_S, seen))
    assert "\n" not in said
    content = json.loads(said)
    assert set(content) == {"at_s", "applications", "events", "reasons"}
    assert [event["text"] for event in content["events"]] == ["host host.nn.3.0 of nn:3 is draining"]
    assert content["applications"]["digits"]["versions"][3]["starting"] == ["host.nn.3.0"]


@pytest.mark.parametrize(("silent_s", "answers"), [(1.0, True), (3.5, False)])
def test_what_is_not_there_not_to_be_read_or_silent_for_three_seconds_is_told(silent_s: float, answers: bool) -> None:
    missing = "application letters is not declared: run `clipper-stream apply`, or correct the name"
    refused = "topic clipper.audits: this user may not read it"
    seen = take_snapshot(
        facts(), recent(), NOW_S, 0, application="letters", heard_s=NOW_S - silent_s, refused={"clipper.audits"}
    )
    assert (seen.applications, seen.kafka_answers) == ({}, answers)
    told = [reason if reason in (SILENT, missing) else reason[: len(refused)] for reason in seen.reasons]
    assert told[:-1] == [*([] if answers else [SILENT]), missing, refused], "the last is about a host"
    assert all(event.application is None for event in seen.events)


# --- curves -----------------------------------------------------------------------------------------------------------
def flowing(rate: int, p99_ms: float | None = None, **weights: float | None) -> ApplicationStatus:
    """One with so many queries a second, and versions 1 of these models."""
    latency = None if p99_ms is None else Latency(p50_ms=1.0, p99_ms=p99_ms)
    versions = tuple(VersionStatus(model=f"{name}:1", stage="live", weight=one) for name, one in weights.items())
    return ApplicationStatus(models=("svm:1",), window_s=10, queries=10 * rate, latency=latency, versions=versions)


UNREAD = replace(flowing(0), window_s=0)


def look(slot: float, status: ApplicationStatus, *, kafka_answers: bool = True) -> Snapshot:
    return Snapshot(at_s=NOW_S + slot * SLOT_S, applications={"digits": status}, kafka_answers=kafka_answers)


def curves_of(*looks: Snapshot) -> RecentCurves:
    curves = RecentCurves()
    for one in looks:
        curves.add(one)
    return curves


def test_a_value_is_a_block_as_high_as_its_part_of_the_scale() -> None:
    assert sparkline([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 7.0) == "▁▂▃▄▅▆▇█"
    assert sparkline([0.0, None, 0.0], 0.0) == "▁ ▁", "nothing flows"
    assert sparkline([1.2], 1.0) == "█", "rounded above the top"


LONG = [look(at, flowing(1 if at < SLOTS else 2)) for at in range(SLOTS + 9)]
SCALED = [look(0, flowing(2, 50.0, svm=0.5)), look(1, flowing(4, 9.0, svm=0.25))]
GAPS = [look(0, flowing(5, 7.0)), look(1, UNREAD), look(4, flowing(5, svm=1.0))]
SILENT_AT_LAST = look(6, flowing(0, svm=0.5), kafka_answers=False)
BACK = [look(3, flowing(1)), look(0, flowing(2)), look(4, flowing(2))]
IN_ONE_SLOT = [look(at, flowing(rate)) for at, rate in ((0, 9), (0.2, 3), (0.8, 6), (1, 6))]
GAPPED = ["queries/s|0 to 5.0|█   █  ", "p99 ms|0 to 7.0|█      ", "weight svm:1|0 to 1|    █  "]
DRAWN = {
    "each has its scale": (SCALED, 100, ["queries/s|0 to 4.0|▅█", "p99 ms|0 to 50|█▂", "weight svm:1|0 to 1|▅▃"]),
    "the last of a slot counts": (IN_ONE_SLOT, 100, ["queries/s|0 to 6.0|██"]),
    "what is not known is a gap": ([*GAPS, SILENT_AT_LAST], 100, GAPPED),
    "sixty are kept": (LONG, 100, [f"queries/s|0 to 2.0|{'▅' * (SLOTS - 9)}{'█' * 9}"]),
    "a narrow terminal": (LONG, 80, [f"queries/s|0 to 2.0|{'▅' * 35}{'█' * 9}"]),
    "a long silence": ([LONG[0], look(10 * SLOTS, flowing(1))], 100, [f"queries/s|0 to 1.0|{' ' * 59}█"]),
    "a clock goes back": (BACK, 100, ["queries/s|0 to 2.0|██"]),
}


@pytest.mark.parametrize(("looks", "width", "rows"), DRAWN.values(), ids=DRAWN)
def test_each_figure_is_a_row_of_five_seconds_a_character(looks: list[Snapshot], width: int, rows: list[str]) -> None:
    table = curves_of(*looks).tables(screen(width))["digits"]
    assert ["|".join(cell.plain for cell in row) for row in table.rows] == rows


def test_the_reference_shows_curves_as_the_program_does() -> None:
    rates = (0, 4, 5, 7, 8, 9, None, None, 0, 3, 8, 12, 11, 11)
    p99s_ms = (None, 40.0, 36.0, 33.0, 36.0, 40.0, None, None, None, 108.0, 66.0, 45.0, 38.0, 36.0)
    looks = [
        look(at, flowing(rate, p99_ms, svm=0.5 + 0.03 * at, knn=0.5 - 0.03 * at))
        for at, (rate, p99_ms) in enumerate(zip(rates, p99s_ms, strict=True))
        if rate is not None
    ]
    text = shown(curves_of(*looks).tables(screen())["digits"])
    assert len(text.splitlines()) == 5
    assert indent(text, "    ") in REFERENCE


@pytest.mark.parametrize("width", [80, 100])
def test_with_the_longest_names_every_curve_is_one_line_of_the_terminal(width: int) -> None:
    name = "long-name-" * 6
    looks = [look(at, flowing(123_456, 123_456.0, **{name: 0.5})) for at in range(SLOTS)]
    found = shown(curves_of(*looks).tables(screen(width))["digits"], width=width).splitlines()
    assert max(map(cell_len, found)) <= width
    assert [line.count("█") for line in found[1:3]] == [min(SLOTS, width - 36)] * 2
    assert "".join(line.split("  ")[0] for line in found[3:]).replace(" ", "") == f"weight{name}:1"


def test_there_are_no_curves_of_what_is_not_known_or_of_more_than_a_screen_can_hold() -> None:
    assert curves_of(look(0, UNREAD)).tables(screen()) == {}
    five = curves_of(Snapshot(at_s=NOW_S, applications={f"app-{number}": flowing(1) for number in range(5)}))
    assert [len(five.tables(screen(height=height))) for height in (29, 30)] == [0, 5]


@pytest.mark.parametrize(
    ("settings", "has"),
    [({"FORCE_COLOR": "1", "LINES": "10"}, True), ({"FORCE_COLOR": "1", "LINES": "9"}, False), ({}, False)],
    ids=["ten lines", "nine lines", "a pipe"],
)
def test_the_view_has_curves_in_a_terminal_that_can_hold_the_page(settings, has, capsys, monkeypatch) -> None:
    for name, value in settings.items() | {("COLUMNS", "100")}:
        monkeypatch.setenv(name, value)
    view, tell = view_of(as_json=False, prefix="clipper")
    with view:
        tell(look(0, flowing(1, svm=0.5)))
    said = capsys.readouterr().out
    assert "svm:1" in said
    assert (HEADINGS[2] in said) is has


@pytest.mark.parametrize(("encoding", "has"), [("utf-8", True), ("cp437", False), ("ascii", False), ("no-such", False)])
def test_an_encoding_without_blocks_has_no_curves(encoding: str, has: bool) -> None:
    file = type("File", (io.StringIO,), {"encoding": encoding})()
    assert bool(curves_of(look(0, flowing(1))).tables(screen(file=file))) is has
