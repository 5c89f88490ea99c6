import pytest

from clipper_loadgen import LoadPlan
from clipper_stream.errors import InvalidSetting, UnknownName


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate_per_s": 0.0}, "rate_per_s is 0.0: it must be above 0"),
        ({"duration_s": float("nan")}, "duration_s is nan"),
        ({"outstanding": 0}, "outstanding is 0: it must be at least 1"),
        ({"repeat_ratio": 1.5}, r"repeat_ratio is 1.5: it must lie in \[0, 1\]"),
        ({"label_noise_ratio": -0.1}, "label_noise_ratio is -0.1"),
        ({"linger_s": 0.1}, "linger_s is 0.1"),
        ({"zipf_exponent": -1.0}, "zipf_exponent is -1.0"),
        ({"rate_per_s": 1e6, "duration_s": 60.0}, "60000000 queries: at most 5000000"),
        ({"feedback_delay_s": -1.0}, "feedback_delay_s is -1.0"),
    ],
)
def test_a_plan_outside_a_bound_is_refused_with_value_and_bound(changes, message):
    with pytest.raises(InvalidSetting, match=message):
        LoadPlan("digits", **changes)


@pytest.mark.parametrize("name", ["mode", "arrivals", "feedback_distribution", "encoding"])
def test_an_unknown_name_is_answered_with_those_that_exist(name):
    with pytest.raises(UnknownName, match=rf"{name} 'other': use one of \w+, \w+"):
        LoadPlan("digits", **{name: "other"})


@pytest.mark.parametrize("mode", ["bounded", "saturation"])
def test_queries_may_gather_for_longer_in_modes_that_measure_from_the_sending(mode):
    assert LoadPlan("digits", mode=mode, linger_s=0.02).linger_s == 0.02
