import json
import re
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from textwrap import indent

import msgspec
import pytest
from builders.status import CLUSTER, NOW_S, compared, digits
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType

from clipper_agents.cli.status import show_status
from clipper_agents.cli.status_view import application_parts, page, trial_line
from clipper_agents.status.model import (
    ApplicationStatus,
    BrokerStatus,
    ClusterStatus,
    GroupStatus,
    Latency,
    MemberStatus,
    ModelStatus,
    Status,
    TopicStatus,
    VersionStatus,
)
from clipper_agents.status.processes import ServedMetrics

GOLDEN = Path(__file__).parents[2] / "golden"
COLUMNS = 100
REFERENCE = (Path(__file__).parents[3] / "docs/reference/status.md").read_text()
BATCHES = {"svm:1": Latency(p50_ms=1.5, p99_ms=20.0)}
BUSY = replace(
    CLUSTER,
    groups=tuple(replace(each, lag={"requests": 7} if each.model == "svm:1" else {}) for each in CLUSTER.groups),
)
STATUS = digits(metrics=ServedMetrics(batch_limits={"svm:1": 64.0}, batches=BATCHES), cluster=BUSY)


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


def whole(width: int = COLUMNS) -> str:
    """What `status` shows; of models without an application, the one that is in force is named."""
    models = {ref: ModelStatus(ref=ref, retired=ref != "a:1") for ref in ("a:1", "b:1")}
    topic, away = "clipper.queries", BrokerStatus(node_id=2, address="10.0.0.9:9092", reachable=False)
    members = (
        MemberStatus(instance="router-0", host="10.0.0.1", partitions={topic: (0, 2)}),
        MemberStatus(instance="router-1", host="10.0.0.2", partitions={topic: (1,)}),
    )
    cluster = ClusterStatus(
        at_s=NOW_S,
        brokers=(away,),
        topics=(TopicStatus(name=topic, partitions=3, leaderless=(1,)),),
        groups=(GroupStatus(group="router", state="Stable", members=members, inputs={topic: 3}, lag={topic: 7}),),
        dead_letters=4,
    )
    status = Status(prefix="clipper", at_s=NOW_S, applications={"digits": STATUS}, models=models, cluster=cluster)
    console = screen(width)
    with console.capture() as said:
        console.print(page(status, ["host h failed"]), crop=False)
    return trimmed(said.get())


VIEWS = {"status": whole, "status-narrow": partial(whole, 80)}


@pytest.mark.parametrize(("name", "view"), VIEWS.items(), ids=VIEWS)
def test_a_view_is_that_of_the_golden_text(name: str, view: Callable[[], str]) -> None:
    assert view() == (GOLDEN / f"{name}.txt").read_text()


def test_the_reference_shows_an_application_as_the_program_does() -> None:
    text = shown(*application_parts("digits", STATUS))
    assert text in whole()
    assert indent(text, "    ") in REFERENCE


def test_the_reference_names_every_key_of_the_status_as_json() -> None:
    for record, what, more in (
        (Status, "the deployment", {"reasons"}),
        (ClusterStatus, "its `cluster`", set()),
        (ApplicationStatus, "each of `applications`, by name", set()),
        (VersionStatus, "each of its `versions`", set()),
        (ModelStatus, "each of `models`, and `declared` of a version", set()),
    ):
        (told,) = re.findall(rf"^- {re.escape(what)}: ([^.]*)\.$", REFERENCE, re.MULTILINE)
        assert set(re.findall("`([a-z0-9_]+)`", told)) == {one.name for one in fields(record)} | more, what


def test_with_the_longest_names_nothing_is_lost_or_over_100_columns_wide() -> None:
    ref = f"{'long-name-' * 6}abcd:{'9' * 32}"
    latency = Latency(p50_ms=12345.0, p99_ms=123456.0)
    version = VersionStatus(
        model=ref, stage="canary", declared_share=0.025, weight=0.0049, share=1.0, loss=STATUS.versions[0].loss,
        latency=latency, declared=ModelStatus(ref=ref, hosts=256, replicas=256, batch_limit=65536, lag=1234567),
        waits_for="you " * 40,
    )  # fmt: skip
    found = shown(*application_parts("a" * 64, replace(STATUS, versions=(version,))))
    assert max(map(cell_len, found.splitlines())) <= COLUMNS
    assert [text for text in ("256/256", "1234567", "0.5 %") if text not in found] == []
    assert ref in "".join(line[:20].split(" ")[0] for line in found.splitlines()[3:])


def test_a_trial_says_by_which_queries_it_is_compared() -> None:
    of = compared(
        "rf:2", feedbacks=9, difference=-0.122, lower=-0.2, upper=0.01, since_s=1_700_000_000, upto_s=1_700_000_060,
        trial_loss=0.0, trial_feedbacks=61, answer_loss=0.122, answer_feedbacks=61,
    )  # fmt: skip
    waits_for = "it may lose 0.0100 more than the answers"
    told = VersionStatus(model="rf:2", stage="canary", compared=of, waits_for=waits_for)
    assert trial_line(told) == (
        "trial rf:2: loss 0.000 of 61 feedbacks, models 0.122 of 61: -0.122; in [-0.200 +0.010] for all 80 queries "
        "(3 wait for feedback) from 22:13:20Z to 22:14:20Z; waits: it may lose 0.0100 more than the answers"
    )
    later = {"trial_loss": None, "trial_feedbacks": 0, "difference": None, "upto_s": 1_700_100_000}
    unheard = trial_line(replace(told, compared=msgspec.structs.replace(of, **later)))
    assert "loss - of 0 feedbacks, models 0.122 of 61; in [" in unheard
    assert "from 2023-11-14 22:13:20Z to 2023-11-16 02:00:00Z" in unheard
    assert trial_line(replace(told, compared=None)) == f"trial rf:2 waits: {waits_for}"


def test_an_application_says_of_which_seconds_it_is() -> None:
    assert "last 10 s: 10.0 queries/s;" in shown(*application_parts("digits", digits()))


WIDE = "svm:1   live           98 %  62 % 0.100 [0.055 0.174] 2/2       64  5.0  8.1   7"


def test_a_terminal_of_80_columns_has_a_version_a_line_and_who_watches_is_told_what_does_not_fit(
    capsys, monkeypatch
) -> None:
    status = Status(prefix="clipper", at_s=NOW_S, cluster=CLUSTER, applications={"digits": STATUS})
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    for lines, application, cut in (("24", None, True), ("60", None, False), ("24", "digits", False)):
        monkeypatch.setenv("LINES", lines)
        show_status(status, application, 10_000, as_json=False, is_watched=True)
        said = capsys.readouterr().out
        assert ("do not fit into this terminal: --application NAME" in said) == cut, (lines, application)
        assert ("router-0" in said, "dead letters" in said) == (application is None, application is None)
        assert [*map(str.rstrip, said.splitlines())].count(WIDE) == 1, said


def test_one_application_can_be_shown_alone_and_a_name_that_is_not_declared_is_told(capsys) -> None:
    status = Status(prefix="clipper", at_s=NOW_S, cluster=CLUSTER, applications={"digits": STATUS})
    for name, lines in (("digits", 0), ("letters", 1)):
        reasons = show_status(status, name, 10_000, as_json=True)
        told = [line for line in reasons if "letters is not declared" in line]
        shown = json.loads(capsys.readouterr().out)
        assert (len(told), [*shown["applications"]]) == (lines, [] if lines else ["digits"])
