"""A difference of clocks is told when it is sure, and a slow broker is never taken for one."""

import logging

import pytest

from clipper_agents.router.clock_skew import WARN_EVERY_S, ClockSkew


def skew_of(*deliveries):
    skew = ClockSkew()
    for one in deliveries:
        skew.observe(*one)
    return skew.take()


def test_nothing_is_told_before_anything_was_acknowledged():
    assert ClockSkew().take() is None


@pytest.mark.parametrize("took_s", [0.0005, 0.01, 5.0])
def test_clocks_that_agree_differ_by_nothing_however_long_the_broker_takes(took_s):
    for share in (0.0, 0.5, 1.0):
        stamped_s = int((1000.0 + share * took_s) * 1000) / 1000  # cut off to milliseconds
        assert skew_of((1000.0, stamped_s, 1000.0 + took_s)) == 0.0


@pytest.mark.parametrize("ahead_s", [-600.0, -0.5, 0.5, 600.0])
def test_a_difference_is_told_up_to_what_the_delivery_leaves_open(ahead_s):
    found = skew_of((1000.0 + ahead_s, 1000.002, 1000.004 + ahead_s))
    assert found == pytest.approx(ahead_s, abs=0.005)
    assert abs(found) <= abs(ahead_s)


def test_the_quickest_of_several_deliveries_says_most():
    slow, quick = (1000.3, 1001.0, 1003.3), (1004.3, 1004.002, 1004.305)
    assert skew_of(slow) == 0.0
    assert skew_of(slow, quick, slow) == pytest.approx(0.297, abs=0.002)


def test_a_clock_that_is_set_while_it_is_looked_at_counts_from_then_on():
    assert skew_of((1000.0, 1000.0, 1000.001), (1010.0, 1000.0, 1010.001)) == pytest.approx(10.0, abs=0.01)


def test_each_look_begins_anew():
    skew = ClockSkew()
    skew.observe(1010.0, 1000.0, 1010.001)
    assert skew.take() == pytest.approx(10.0, abs=0.01)
    assert skew.take() is None


def test_it_is_warned_of_once_a_minute_and_only_when_it_matters(caplog):
    skew = ClockSkew()
    with caplog.at_level(logging.WARNING):
        for at_s, skew_s in ((0.0, 0.099), (1.0, -0.5), (30.0, 0.5), (1.0 + WARN_EVERY_S, 0.5), (70.0, 0.5)):
            skew.warn(skew_s, at_s)
    assert [record.fields["ahead_s"] for record in caplog.records] == [-0.5, 0.5]
    assert "synchronise" in caplog.messages[0]
