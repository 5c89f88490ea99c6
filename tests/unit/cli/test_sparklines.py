"""Curves of the last minutes below an application, in a terminal."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from builders.status import NOW_S, facts, recent
from rich.cells import cell_len
from rich.console import Console

from clipper_agents.cli.sparklines import HEADINGS, SLOT_S, SLOTS, RecentCurves, sparkline
from clipper_agents.cli.status import view_of
from clipper_agents.cli.status_view import page
from clipper_agents.status.model import ApplicationStatus, Latency, VersionStatus
from clipper_agents.status.watch import Snapshot, take_snapshot


def application(rate: int, p99_ms: float | None, **weights: float | None) -> ApplicationStatus:
    """One with so many queries a second, and versions 1 of these models."""
    latency = None if p99_ms is None else Latency(p50_ms=1.0, p99_ms=p99_ms, source="predictions")
    versions = tuple(VersionStatus(model=f"{name}:1", stage="live", weight=one) for name, one in weights.items())
    return ApplicationStatus(models=("svm:1",), window_s=10, queries=10 * rate, latency=latency, versions=versions)


def look(slot: float, status: ApplicationStatus, *, kafka_answers: bool = True) -> Snapshot:
    return Snapshot(at_s=NOW_S + slot * SLOT_S, applications={"digits": status}, kafka_answers=kafka_answers)


def drawn(*looks: Snapshot, width: int = 100) -> list[list[str]]:
    """The cells of the table, without its headings."""
    curves, screen = RecentCurves(), Console(width=width, force_terminal=False)
    for one in looks:
        curves.add(one)
    return [[cell.plain for cell in row] for row in curves.tables(screen)["digits"].rows]


@pytest.mark.parametrize(
    ("values", "top", "blocks"),
    [
        ([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 7.0, "▁▂▃▄▅▆▇█"),
        ([0.0, None, 0.0], 0.0, "▁ ▁"),
        ([1.2], 1.0, "█"),
    ],
    ids=["each height", "nothing flows", "rounded above the top"],
)
def test_a_value_is_a_block_as_high_as_its_part_of_the_scale(
    values: list[float | None], top: float, blocks: str
) -> None:
    assert sparkline(values, top) == blocks


def test_rate_and_latency_end_at_their_largest_value_and_a_weight_at_one() -> None:
    found = drawn(look(0, application(2, 50.0, svm=0.5)), look(1, application(4, 9.0, svm=0.25)))
    assert found == [["queries/s", "0 to 4.0", "▅█"], ["p99 ms", "0 to 50", "█▂"], ["weight svm:1", "0 to 1", "▅▃"]]


CURVES = """\
figure        scale     5 s each, newest last
queries/s     0 to 12   ▁▃▄▅▆▆  ▁▃▆█▇▇
p99 ms        0 to 108   ▄▃▃▃▄   █▅▄▃▃
weight svm:1  0 to 1    ▅▅▅▅▅▆  ▆▆▇▇▇▇
weight knn:1  0 to 1    ▅▄▄▄▄▃  ▃▃▂▂▂▂
"""


def test_the_reference_shows_curves_as_the_program_does() -> None:
    rates, weights = (0, 4, 5, 7, 8, 9, None, None, 0, 3, 8, 12, 11, 11), [0.5 + 0.03 * at for at in range(14)]
    p99s_ms = (None, 40.0, 36.0, 33.0, 36.0, 40.0, None, None, None, 108.0, 66.0, 45.0, 38.0, 36.0)
    curves, screen = RecentCurves(), Console(width=100, force_terminal=False)
    for at, (rate, p99_ms, weight) in enumerate(zip(rates, p99s_ms, weights, strict=True)):
        if rate is not None:
            curves.add(look(at, application(rate, p99_ms, svm=weight, knn=1 - weight)))
    with screen.capture() as said:
        screen.print(curves.tables(screen)["digits"])
    assert said.get() == CURVES
    shown = (Path(__file__).parents[3] / "docs/reference/status.md").read_text()
    assert "".join(f"    {line}\n" for line in CURVES.splitlines()) in shown


def test_a_slot_shows_the_last_value_that_was_seen_in_it() -> None:
    assert drawn(*(look(at, application(rate, None)) for at, rate in ((0, 9), (0.2, 3), (0.8, 6), (1, 6)))) == [
        ["queries/s", "0 to 6.0", "██"]
    ]


def test_what_is_not_known_is_a_gap() -> None:
    unread = replace(application(0, None), window_s=0)
    silent = look(6, application(0, None, svm=0.5), kafka_answers=False)
    found = drawn(look(0, application(5, 7.0)), look(1, unread), look(4, application(5, None, svm=1.0)), silent)
    assert found == [
        ["queries/s", "0 to 5.0", "█   █  "],
        ["p99 ms", "0 to 7.0", "█      "],
        ["weight svm:1", "0 to 1", "    █  "],
    ]


def test_an_application_of_which_nothing_is_known_has_no_curves() -> None:
    curves = RecentCurves()
    curves.add(look(0, replace(application(0, None), window_s=0)))
    assert curves.tables(Console(width=100)) == {}


def test_the_newest_sixty_are_kept_and_a_narrow_terminal_shows_fewer() -> None:
    looks = [look(at, application(1 if at < SLOTS else 2, None)) for at in range(SLOTS + 9)]
    assert drawn(*looks) == [["queries/s", "0 to 2.0", "▅" * (SLOTS - 9) + "█" * 9]]
    assert drawn(*looks, width=80) == [["queries/s", "0 to 2.0", "▅" * 35 + "█" * 9]]
    assert drawn(looks[0], look(10 * SLOTS, application(1, None))) == [["queries/s", "0 to 1.0", " " * 59 + "█"]]


def test_a_clock_that_goes_back_writes_into_the_newest_slot() -> None:
    looks = (look(3, application(1, None)), look(0, application(2, None)), look(4, application(2, None)))
    assert drawn(*looks) == [["queries/s", "0 to 2.0", "██"]]


@pytest.mark.parametrize("width", [80, 100])
def test_with_the_longest_names_every_curve_is_one_line_of_the_terminal(width: int) -> None:
    name = "long-name-" * 6
    curves, screen = RecentCurves(), Console(width=width, file=io.StringIO(), force_terminal=False)
    for at in range(SLOTS):
        curves.add(look(at, application(123_456, 123_456.0, **{name: 0.5})))
    with screen.capture() as said:
        screen.print(curves.tables(screen)["digits"])
    lines = said.get().splitlines()
    assert max(map(cell_len, lines)) <= width
    assert [line.count("█") for line in lines[1:3]] == [min(SLOTS, width - 36)] * 2
    assert "".join(line.split("  ")[0] for line in lines[3:]).replace(" ", "") == f"weight{name}:1"


def test_the_page_has_the_curves_below_their_application() -> None:
    seen, screen = take_snapshot(facts(), recent(), NOW_S, 0), Console(width=100, force_terminal=False)
    curves = RecentCurves()
    curves.add(seen)
    with screen.capture() as said:
        screen.print(page(seen, "clipper", curves.tables(screen)))
    _, below = said.get().split(HEADINGS[2])
    assert [line.split() for line in below.splitlines()[1:5]] == [
        ["queries/s", "0", "to", "10", "█"],
        ["p99", "ms", "0", "to", "108", "█"],
        ["weight", "svm:1", "0", "to", "1", "█"],
        ["weight", "knn:1", "0", "to", "1", "▁"],
    ]


def test_more_applications_than_a_screen_can_hold_have_no_curves() -> None:
    curves = RecentCurves()
    curves.add(Snapshot(at_s=NOW_S, applications={f"app-{number}": application(1, None) for number in range(5)}))
    assert curves.tables(Console(width=100, height=29)) == {}
    assert len(curves.tables(Console(width=100, height=30))) == 5


@pytest.mark.parametrize(
    ("settings", "has"),
    [
        ({"FORCE_COLOR": "1", "LINES": "10"}, True),
        ({"FORCE_COLOR": "1", "LINES": "9"}, False),
        ({}, False),
    ],
    ids=["ten lines", "nine lines", "a pipe"],
)
def test_the_view_has_curves_in_a_terminal_that_can_hold_the_page(
    settings: dict[str, str], has: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items() | {("COLUMNS", "100")}:
        monkeypatch.setenv(name, value)
    view, show = view_of(as_json=False, prefix="clipper")
    with view:
        show(look(0, application(1, None, svm=0.5)))
    said = capsys.readouterr().out
    assert "svm:1" in said
    assert (HEADINGS[2] in said) is has


@pytest.mark.parametrize(("encoding", "has"), [("utf-8", True), ("cp437", False), ("ascii", False), ("no-such", False)])
def test_an_encoding_without_blocks_has_no_curves(encoding: str, has: bool) -> None:
    curves, file = RecentCurves(), io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    screen = Console(file=file, width=100)
    curves.add(look(0, application(1, None)))

    class Named(Console):
        @property
        def encoding(self) -> str:
            return encoding

    assert bool(curves.tables(Named(file=file, width=100))) is has
    assert curves.tables(screen) == {}
