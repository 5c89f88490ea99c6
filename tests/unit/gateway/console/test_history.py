"""Are figures kept for two days, over restarts, damage and full disks?"""

import resource
import sqlite3
from contextlib import contextmanager

import pytest
from builders.status import digits

from clipper_agents.status.model import Latency
from clipper_agents.status.processes import ServedMetrics
from clipper_agents.status.traffic_window import TrafficWindow
from clipper_gateway.console.history import FINEST_S, RETRY_S, SPANS_S, point_of

BEGAN_S = 1_700_000_400


def fill(history, clock, steps):
    """Points of ten seconds each: a rate that counts up from 0."""
    for number in range(steps):
        history.add(clock.now_s, {"digits": {"": {"queries_per_s": number}, "svm:1": {"weight": 0.5}}})
        clock.now_s += FINEST_S


def rates(history, clock, span_s):
    return history.series("digits", clock.now_s - span_s).values.get("queries_per_s", [])


def known(column):
    return [one for one in column if one is not None]


# --- points ---------------------------------------------------------------------------------------------------------
def test_figures_come_back_where_they_are_known(history, clock):
    history.add(clock.now_s, {"digits": {"": {"queries_per_s": 1234.5, "p99_ms": 0.75}, "svm:1": {"weight": 0.125}}})
    clock.now_s += 20
    history.add(clock.now_s, {"digits": {"": {"queries_per_s": 7.0}, "nn:2": {"loss": 0.0}}, "others": {}})
    found = history.series("digits", BEGAN_S)
    assert (found.step_s, found.times_s) == (10, [BEGAN_S, BEGAN_S + 10, BEGAN_S + 20])
    assert found.values == {
        "queries_per_s": [pytest.approx(1234.5, rel=0.004), None, 7.0],
        "p99_ms": [0.75, None, None],
    }
    assert found.versions == {"svm:1": {"weight": [0.125, None, None]}, "nn:2": {"loss": [None, None, 0.0]}}
    assert history.series("other", BEGAN_S).values == {}


def test_a_reason_for_defaults_that_never_came_is_left_out(history, clock):
    for late_s, share in ((0, 0.25), (10, 0.0)):
        history.add(clock.now_s + late_s, {"digits": {"": {"default:late": 0.0, "default:errors": share}}})
    clock.now_s += 10
    assert history.series("digits", BEGAN_S).values == {"default:errors": [0.25, 0.0]}


def test_a_series_has_the_step_that_reaches_back_so_far(history, clock):
    for step_s, span_s in SPANS_S.items():
        found = history.series("digits", clock.now_s - span_s)
        assert (found.step_s, len(found.times_s) <= 1 + span_s // step_s) == (step_s, True)


def test_coarser_points_are_means_and_the_last_one_is_of_what_there_is(history, clock):
    fill(history, clock, 8)
    assert rates(history, clock, 3_600)[-2:] == [2.5, 6.5]
    fill(history, clock, 60)
    clock.now_s = BEGAN_S + 660
    assert [one for one in rates(history, clock, 10 * 3_600) if one] == [pytest.approx(22.57, rel=0.004), 55.5]


def test_coarser_points_are_made_also_where_the_first_point_of_the_next_step_is_missing(history, clock):
    fill(history, clock, 6)
    clock.now_s += 30
    fill(history, clock, 1)
    assert known(rates(history, clock, 3_600))[0] == 2.5


def test_a_version_that_left_is_still_in_the_means(history, clock):
    history.add(clock.now_s, {"digits": {"svm:1": {"weight": 1.0}}})
    for number in range(1, 8):
        history.add(clock.now_s + 10 * number, {"digits": {"nn:2": {"weight": 0.5}}})
    clock.now_s += 70
    found = history.series("digits", clock.now_s - 3_600).versions
    assert found["svm:1"]["weight"][-2:] == [1.0, None]
    assert found["nn:2"]["weight"][-2:] == [0.5, 0.5]


def test_what_no_resolution_reaches_back_to_is_removed(history, clock, tmp_path):
    fill(history, clock, 2)
    clock.now_s += max(SPANS_S.values()) + 600
    fill(history, clock, 1)
    history.close()
    with sqlite3.connect(tmp_path / "history/history.sqlite") as database:
        assert {at_s for (at_s,) in database.execute("SELECT at_s FROM points")} == {clock.now_s - FINEST_S}


# --- the file -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("steps", [3, 200], ids=["within a step", "in hours"])
def test_a_restart_loses_nothing(steps, open_history, clock):
    one = open_history()
    fill(one, clock, steps)
    before = [rates(one, clock, span_s) for span_s in SPANS_S.values()]
    one.close()
    other = open_history()
    assert [rates(other, clock, span_s) for span_s in SPANS_S.values()] == before
    fill(other, clock, 12)
    assert rates(other, clock, 3_600)[-2:] != [None, None]


def test_two_gateways_may_share_a_folder(open_history, clock):
    one, other = open_history(), open_history()
    fill(one, clock, 2)
    fill(other, clock, 1)
    assert known(rates(one, clock, 60)) == known(rates(other, clock, 60)) == [0.0, 1.0, 0.0]


HARMS = {
    "no database": lambda path: path.write_bytes(b"nonsense" * 1_000),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 100]),
    "an entry that is no point": lambda path: sqlite3.connect(path, isolation_level=None).execute(
        "UPDATE points SET figures = x'00'"
    ),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_a_damaged_file_is_begun_anew(harm, tmp_path, open_history, clock):
    history = open_history()
    fill(history, clock, 200)
    history.close()
    harm(tmp_path / "history/history.sqlite")
    history = open_history()
    rates(history, clock, 1_800)
    fill(history, clock, 3)
    assert (history.reason, rates(history, clock, 30)[:3]) == ("", [0.0, 1.0, 2.0])


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
        assert history.reason.startswith("the console keeps no history: ")
    fill(history, clock, 1 + int(RETRY_S) // FINEST_S)
    assert history.reason == ""
    assert rates(history, clock, 1_800)[-2] == RETRY_S // FINEST_S
    assert rates(history, clock, 1_800).count(2.0) == 1, "what was there stays"


def test_after_its_end_nothing_is_opened_any_more(history, clock):
    fill(history, clock, 2)
    history.close()
    fill(history, clock, 20)
    assert (rates(history, clock, 60), history.reason) == ([], "")


# --- what is kept of an application ---------------------------------------------------------------------------------
LOSS = ("loss", "loss_lower", "loss_upper")


def test_a_point_has_the_figures_of_the_application_by_stage_and_reason():
    served = ServedMetrics(batch_limits={"svm:1": 64.0}, batches={"svm:1": Latency(p50_ms=5.0, p99_ms=9.0)})
    values, svm, knn, rf, nn = point_of(digits(metrics=served)).values()
    assert (values["queries_per_s"], values["feedback_per_s"], values["default:late"]) == (10.0, 5.0, 0.03)
    assert values["default:errors"] == 0.0
    assert values["wait_ms"] + values["models_ms"] == pytest.approx(values["p50_ms"], abs=6.0)
    assert "record_ms" not in values, "these records do not say when they were decided"
    assert [one["share"] for one in (svm, knn, rf, nn)] == [0.62, 0.3, 0.05, 1.0]
    assert svm["weight"] > knn["weight"]
    assert (svm["batch_limit"], svm["batch_p99_ms"]) == (64.0, 9.0)
    assert (nn["p50_ms"], nn["cache_hit_ratio"], svm["loss"]) == (80.0, 0.0, 0.1)
    assert not nn.keys() & {"weight", "loss"}
    assert "difference" not in rf, "totals are a look at one moment"


def test_without_traffic_only_rates_and_what_was_learned_are_known():
    point = point_of(digits(traffic=TrafficWindow()))
    assert point[""] == {"queries_per_s": 0.0, "feedback_per_s": 0.0}
    assert point["knn:1"].keys() == {"weight", *LOSS}
