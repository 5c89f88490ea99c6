"""Does the history give back what was added, on any disk, and after anything that happened to its folder?"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import damage
import pytest

from clipper_gateway.console.history import FINEST, RETRY_S, RINGS, VERSION_VALUES, SeriesHistory

BEGAN_S = 1_700_000_400
"""The beginning of a step of each ring."""
SPANS = {"half an hour": (1_800, 10), "hours": (6 * 3_600, 60), "days": (48 * 3_600, 600)}


class Clock:
    """A time that a test moves."""

    def __init__(self, now_s: float = BEGAN_S) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def history(tmp_path: Path, clock: Clock) -> Iterator[SeriesHistory]:
    found = SeriesHistory.open(tmp_path / "history", clock)
    yield found
    found.close()


def fill(history: SeriesHistory, clock: Clock, steps: int, application: str = "digits") -> None:
    """Points of ten seconds each: a rate that counts up from 0."""
    for number in range(steps):
        history.add(application, clock.now_s, {"queries_per_s": number}, {"svm:1": {"weight": 0.5}})
        clock.now_s += FINEST.step_s


def rates(history: SeriesHistory, clock: Clock, span_s: float) -> list[float | None]:
    return history.series("digits", clock.now_s - span_s, clock.now_s).values.get("queries_per_s", [])


def test_figures_come_back_with_three_digits_where_they_are_known(history: SeriesHistory, clock: Clock) -> None:
    figures = {"weight": 0.12345, "difference": -0.0321, "batch_limit": 4096.0, "p99_ms": 3.6e6}
    history.add("digits", clock.now_s, {"queries_per_s": 1234.5, "p99_ms": 0.75}, {"svm:1": figures})
    clock.now_s += 20
    history.add("digits", clock.now_s, {"queries_per_s": 1e9}, {"nn:2": {"loss": 0.0}})
    found = history.series("digits", BEGAN_S, clock.now_s)
    assert (found.step_s, found.times_s) == (10, [BEGAN_S, BEGAN_S + 10, BEGAN_S + 20])
    assert found.values["queries_per_s"] == [pytest.approx(1234.5, rel=0.002), None, pytest.approx(4.186e6, rel=0.001)]
    assert found.values["p99_ms"] == [0.75, None, None]
    assert {name: one[0] for name, one in found.versions["svm:1"].items()} == pytest.approx(figures, rel=0.003)
    assert found.versions["nn:2"] == {"loss": [None, None, 0.0]}
    assert history.series("other", BEGAN_S, clock.now_s).values == {}


def test_a_reason_for_defaults_that_never_came_is_left_out(history: SeriesHistory, clock: Clock) -> None:
    history.add("digits", clock.now_s, {"default:late": 0.0, "default:errors": 0.25}, {})
    history.add("digits", clock.now_s + 10, {"default:late": 0.0, "default:errors": 0.0}, {})
    clock.now_s += 10
    assert history.series("digits", BEGAN_S, clock.now_s).values == {"default:errors": [0.25, 0.0]}


@pytest.mark.parametrize("span", SPANS)
def test_a_series_has_the_step_that_reaches_back_so_far(span: str, history: SeriesHistory, clock: Clock) -> None:
    span_s, step_s = SPANS[span]
    found = history.series("digits", clock.now_s - span_s, clock.now_s)
    assert found.step_s == step_s
    assert len(found.times_s) <= 1 + span_s // step_s


def test_coarser_points_are_means_and_the_last_one_is_of_what_there_is(history: SeriesHistory, clock: Clock) -> None:
    fill(history, clock, 8)
    assert rates(history, clock, 3_600)[-2:] == [2.5, 6.5]
    fill(history, clock, 60)
    clock.now_s = BEGAN_S + 660
    assert [one for one in rates(history, clock, 10 * 3_600) if one] == [pytest.approx(22.57, rel=0.002), 54.5]


def test_a_version_that_left_is_still_in_the_means(history: SeriesHistory, clock: Clock) -> None:
    history.add("digits", clock.now_s, {}, {"svm:1": {"weight": 1.0}})
    for number in range(1, 8):
        history.add("digits", clock.now_s + 10 * number, {}, {"nn:2": {"weight": 0.5}})
    clock.now_s += 70
    found = history.series("digits", clock.now_s - 3_600, clock.now_s).versions
    assert found["svm:1"]["weight"][-2:] == [1.0, None]
    assert found["nn:2"]["weight"][-2:] == [0.5, 0.5]


@pytest.mark.parametrize("steps", [3, 200], ids=["within a step", "in hours"])
def test_a_restart_loses_nothing(steps: int, tmp_path: Path, clock: Clock) -> None:
    one = SeriesHistory.open(tmp_path / "history", clock)
    fill(one, clock, steps)
    before = [rates(one, clock, span_s) for span_s, _ in SPANS.values()]
    one.close()
    other = SeriesHistory.open(tmp_path / "history", clock)
    assert [rates(other, clock, span_s) for span_s, _ in SPANS.values()] == before
    fill(other, clock, 12)
    assert rates(other, clock, 3_600)[-2:] != [None, None]
    other.close()


def test_a_point_of_the_past_never_replaces_one(history: SeriesHistory, clock: Clock) -> None:
    fill(history, clock, 2)
    for ring in RINGS:
        history.add("digits", BEGAN_S - 600, {"queries_per_s": 77.0}, {}, ring)
        history.add("digits", BEGAN_S, {"queries_per_s": 99.0}, {}, ring)
    assert [one for one in rates(history, clock, 900) if one is not None] == [77.0, 0.0, 1.0]
    assert history.has(FINEST, "digits", BEGAN_S - 600)
    assert not history.has(FINEST, "digits", BEGAN_S - 610)


def test_points_of_the_past_fill_coarser_ones_when_the_next_step_begins(history: SeriesHistory, clock: Clock) -> None:
    for number in range(12):
        history.add("digits", BEGAN_S - 120 + 10 * number, {"queries_per_s": 4.0}, {}, FINEST)
    fill(history, clock, 1)
    assert [one for one in rates(history, clock, 3_600) if one is not None] == [4.0, 4.0, 0.0]


def filled(folder: Path, clock: Clock) -> None:
    """A history whose points are in two tables and a log of writes."""
    for _ in range(3):
        history = SeriesHistory.open(folder, clock)
        fill(history, clock, 20)
        history.close()


@pytest.mark.parametrize("harm", damage.ON_TABLES | damage.ON_LOGS)
def test_a_damaged_folder_is_begun_anew_where_it_is_damaged(harm: str, tmp_path: Path, clock: Clock) -> None:
    filled(tmp_path / "history", clock)
    (damage.ON_TABLES | damage.ON_LOGS)[harm](tmp_path / "history" / "10")
    history = SeriesHistory.open(tmp_path / "history", clock)
    rates(history, clock, 1_800)
    fill(history, clock, 3)
    assert history.reason == ""
    assert rates(history, clock, 30)[:3] == [0.0, 1.0, 2.0]
    assert any(rates(history, clock, 3_600)), "the coarser ring is another database"
    history.close()
    assert {path.name for path in (tmp_path / "history").iterdir()} == {"10", "60", "600", "in-use"}


@pytest.mark.parametrize("content", ["99", "nonsense"], ids=["of a newer release", "of nobody"])
def test_a_folder_of_another_format_is_begun_anew(content: str, tmp_path: Path, clock: Clock) -> None:
    filled(tmp_path / "history", clock)
    (tmp_path / "history/10/FORMAT").write_text(content)
    history = SeriesHistory.open(tmp_path / "history", clock)
    assert history.reason == ""
    assert not any(rates(history, clock, 1_800))
    fill(history, clock, 2)
    assert rates(history, clock, 20)[:2] == [0.0, 1.0]
    history.close()


def test_an_entry_that_is_no_point_is_left_out(history: SeriesHistory, clock: Clock) -> None:
    fill(history, clock, 2)
    history._rings[FINEST].put(b"digits\0" + (BEGAN_S // 10).to_bytes(5, "big"), b"nonsense")
    assert rates(history, clock, 20) == [None, 1.0, None]


def test_a_folder_that_another_process_uses_is_left_to_it(tmp_path: Path, clock: Clock, caplog) -> None:
    one = SeriesHistory.open(tmp_path / "history", clock)
    fill(one, clock, 2)
    other = SeriesHistory.open(tmp_path / "history", clock)
    assert "the history of the console goes to another folder" in caplog.text
    assert (other.reason, rates(other, clock, 60)) == ("", [])
    fill(other, clock, 1)
    other.close()
    one.close()
    assert {path.name for path in tmp_path.iterdir()} == {"history", "history-2"}
    again = SeriesHistory.open(tmp_path / "history", clock)
    assert len(rates(again, clock, 60)) == 7, "the first one is free again"
    again.close()


def test_a_place_where_nothing_can_be_made_is_told(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").write_text("")
    history = SeriesHistory.open(tmp_path / "file" / "history", clock)
    fill(history, clock, 2)
    assert history.reason.startswith("the console keeps no history: ")
    assert rates(history, clock, 60) == []
    history.close()


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process can grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_stops_the_history_until_it_has_room(history: SeriesHistory, clock: Clock) -> None:
    fill(history, clock, 3)
    with full_disk():
        fill(history, clock, 3)
        assert "no space is left" in history.reason
        assert rates(history, clock, 60) == []
    fill(history, clock, 1 + int(RETRY_S) // FINEST.step_s)
    assert history.reason == ""
    assert rates(history, clock, 1_800)[-2] == RETRY_S // FINEST.step_s
    assert rates(history, clock, 1_800).count(2.0) == 1, "what was there stays"


def test_after_its_end_nothing_is_opened_any_more(history: SeriesHistory, clock: Clock) -> None:
    fill(history, clock, 2)
    history.close()
    fill(history, clock, 20)
    assert (rates(history, clock, 60), history.reason) == ([], "")


def test_the_names_of_a_versions_figures_are_those_of_the_design() -> None:
    assert len(set(VERSION_VALUES)) == 13
