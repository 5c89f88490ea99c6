import resource
from contextlib import contextmanager

import damage
import pytest

from clipper_agents.streaming.bounded_database import open_bounded
from clipper_gateway.console.history import FINEST, RETRY_S, RINGS, VERSION_VALUES

BEGAN_S = 1_700_000_400
SPANS = {1_800: 10, 6 * 3_600: 60, 48 * 3_600: 600}
"""Seconds of a step, by those that a series reaches back."""


def fill(history, clock, steps):
    """Points of ten seconds each: a rate that counts up from 0."""
    for number in range(steps):
        history.add("digits", clock.now_s, {"queries_per_s": number}, {"svm:1": {"weight": 0.5}})
        clock.now_s += FINEST.step_s


def rates(history, clock, span_s):
    return history.series("digits", clock.now_s - span_s, clock.now_s).values.get("queries_per_s", [])


def known(column):
    return [one for one in column if one is not None]


# --- points ---------------------------------------------------------------------------------------------------------
def test_figures_come_back_with_three_digits_where_they_are_known(history, clock):
    figures = {"weight": 0.12345, "difference": -0.0321, "batch_limit": 4096.0, "p99_ms": 3.6e6}
    assert len({*VERSION_VALUES} | {*figures}) == 13
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


def test_a_reason_for_defaults_that_never_came_is_left_out(history, clock):
    history.add("digits", clock.now_s, {"default:late": 0.0, "default:errors": 0.25}, {})
    history.add("digits", clock.now_s + 10, {"default:late": 0.0, "default:errors": 0.0}, {})
    clock.now_s += 10
    assert history.series("digits", BEGAN_S, clock.now_s).values == {"default:errors": [0.25, 0.0]}


def test_a_series_has_the_step_that_reaches_back_so_far(history, clock):
    for span_s, step_s in SPANS.items():
        found = history.series("digits", clock.now_s - span_s, clock.now_s)
        assert (found.step_s, len(found.times_s) <= 1 + span_s // step_s) == (step_s, True)


def test_coarser_points_are_means_and_the_last_one_is_of_what_there_is(history, clock):
    fill(history, clock, 8)
    assert rates(history, clock, 3_600)[-2:] == [2.5, 6.5]
    fill(history, clock, 60)
    clock.now_s = BEGAN_S + 660
    assert [one for one in rates(history, clock, 10 * 3_600) if one] == [pytest.approx(22.57, rel=0.002), 54.5]


def test_a_version_that_left_is_still_in_the_means(history, clock):
    history.add("digits", clock.now_s, {}, {"svm:1": {"weight": 1.0}})
    for number in range(1, 8):
        history.add("digits", clock.now_s + 10 * number, {}, {"nn:2": {"weight": 0.5}})
    clock.now_s += 70
    found = history.series("digits", clock.now_s - 3_600, clock.now_s).versions
    assert found["svm:1"]["weight"][-2:] == [1.0, None]
    assert found["nn:2"]["weight"][-2:] == [0.5, 0.5]


def test_a_point_of_the_past_never_replaces_one(history, clock):
    fill(history, clock, 2)
    for ring in RINGS:
        history.add("digits", BEGAN_S - 600, {"queries_per_s": 77.0}, {}, ring)
        history.add("digits", BEGAN_S, {"queries_per_s": 99.0}, {}, ring)
    assert known(rates(history, clock, 900)) == [77.0, 0.0, 1.0]
    assert history.has(FINEST, "digits", BEGAN_S - 600)
    assert not history.has(FINEST, "digits", BEGAN_S - 610)


def test_points_of_the_past_fill_coarser_ones_when_the_next_step_begins(history, clock):
    for number in range(12):
        history.add("digits", BEGAN_S - 120 + 10 * number, {"queries_per_s": 4.0}, {}, FINEST)
    fill(history, clock, 1)
    assert known(rates(history, clock, 3_600)) == [4.0, 4.0, 0.0]


# --- the folder -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("steps", [3, 200], ids=["within a step", "in hours"])
def test_a_restart_loses_nothing(steps, open_history, clock):
    one = open_history()
    fill(one, clock, steps)
    before = [rates(one, clock, span_s) for span_s in SPANS]
    one.close()
    other = open_history()
    assert [rates(other, clock, span_s) for span_s in SPANS] == before
    fill(other, clock, 12)
    assert rates(other, clock, 3_600)[-2:] != [None, None]


OF_OTHERS = {
    "of a newer release": lambda folder: (folder / "FORMAT").write_text("99"),
    "of nobody": lambda folder: (folder / "FORMAT").write_text("nonsense"),
}
DAMAGED = (
    "a table file cut in the middle",
    "bytes flipped in a table file",
    "a manifest that is gone",
    "a write-ahead log that has lost its end",
)
HARMS = {name: (damage.ON_TABLES | damage.ON_LOGS)[name] for name in DAMAGED} | OF_OTHERS
"""Some of those that `unit/streaming` has: one a way in which a database can be found to be damaged."""


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_folder_is_begun_anew_where_it_is_damaged(harm, tmp_path, open_history, clock):
    for _ in range(3):  # two tables, and a log of writes
        history = open_history()
        fill(history, clock, 20)
        history.close()
    HARMS[harm](tmp_path / "history" / "10")
    history = open_history()
    assert not (any(rates(history, clock, 1_800)) and harm in OF_OTHERS)
    fill(history, clock, 3)
    assert history.reason == ""
    assert rates(history, clock, 30)[:3] == [0.0, 1.0, 2.0]
    assert any(rates(history, clock, 3_600)), "the coarser ring is another database"
    assert {path.name for path in (tmp_path / "history").iterdir()} == {"10", "60", "600", "in-use"}


def test_an_entry_that_is_no_point_is_left_out(tmp_path, open_history, clock):
    one = open_history()
    fill(one, clock, 2)
    one.close()
    database = open_bounded(tmp_path / "history/10", 2**20)
    database.write([(b"digits\0" + (BEGAN_S // 10).to_bytes(5, "big"), b"nonsense")])
    database.close()
    assert rates(open_history(), clock, 20) == [None, 1.0, None]


def test_a_folder_that_another_process_uses_is_left_to_it(tmp_path, open_history, clock, caplog):
    one = open_history()
    fill(one, clock, 2)
    other = open_history()
    assert "the history of the console goes to another folder" in caplog.text
    assert (other.reason, rates(other, clock, 60)) == ("", [])
    fill(other, clock, 1)
    other.close()
    one.close()
    assert {path.name for path in tmp_path.iterdir()} == {"history", "history-2"}
    assert len(rates(open_history(), clock, 60)) == 7, "the first one is free again"


def test_a_place_where_nothing_can_be_made_is_told(tmp_path, open_history, clock):
    (tmp_path / "file").write_text("")
    history = open_history("file/history")
    fill(history, clock, 2)
    assert history.reason.startswith("the console keeps no history: ")
    assert rates(history, clock, 60) == []


@contextmanager
def full_disk():
    """No file of this process can grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_stops_the_history_until_it_has_room(history, clock):
    fill(history, clock, 3)
    with full_disk():
        fill(history, clock, 3)
        assert "no space is left" in history.reason
        assert rates(history, clock, 60) == []
    fill(history, clock, 1 + int(RETRY_S) // FINEST.step_s)
    assert history.reason == ""
    assert rates(history, clock, 1_800)[-2] == RETRY_S // FINEST.step_s
    assert rates(history, clock, 1_800).count(2.0) == 1, "what was there stays"


def test_after_its_end_nothing_is_opened_any_more(history, clock):
    fill(history, clock, 2)
    history.close()
    fill(history, clock, 20)
    assert (rates(history, clock, 60), history.reason) == ([], "")
