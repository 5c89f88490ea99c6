"""A difference of clocks is told when it is sure, and a slow broker is never taken for one."""

import pytest

from clipper_agents.router.self_report import ClockSkew

SLOW, QUICK = (1000.3, 1001.0, 1003.3), (1004.3, 1004.002, 1004.305)
BEFORE_IT_WAS_SET, AFTERWARDS = (1000.0, 1000.0, 1000.001), (1010.0, 1000.0, 1010.001)


@pytest.mark.parametrize(
    ("deliveries", "ahead_s"),
    [
        ([], None),
        *(([(1000.0 + ahead_s, 1000.002, 1000.004 + ahead_s)], ahead_s + 0.002) for ahead_s in (-600.0, -0.5)),
        *(([(1000.0 + ahead_s, 1000.002, 1000.004 + ahead_s)], ahead_s - 0.003) for ahead_s in (0.5, 600.0)),
        ([SLOW], 0.0),
        ([SLOW, QUICK, SLOW], 0.297),
        ([BEFORE_IT_WAS_SET, AFTERWARDS], 9.999),
    ],
)
def test_a_difference_is_told_up_to_what_the_quickest_delivery_leaves_open_and_each_look_begins_anew(
    deliveries, ahead_s
):
    skew = ClockSkew()
    for one in deliveries:
        skew.observe(*one)
    assert skew.take() == (ahead_s and pytest.approx(ahead_s, abs=1e-6))
    assert skew.take() is None


@pytest.mark.parametrize("took_s", [0.0005, 0.01, 5.0])
def test_clocks_that_agree_differ_by_nothing_however_long_the_broker_takes(took_s):
    for share in (0.0, 0.5, 1.0):
        skew = ClockSkew()
        skew.observe(1000.0, int((1000.0 + share * took_s) * 1000) / 1000, 1000.0 + took_s)  # cut off to milliseconds
        assert skew.take() == 0.0
