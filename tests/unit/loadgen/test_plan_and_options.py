import inspect

import pytest

from clipper_loadgen import Dataset, LoadPlan
from clipper_loadgen.options import make_plan
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


def test_options_become_a_plan_in_seconds():
    plan = make_plan("digits", rate=50.0, seconds=4.0, warmup_seconds=1.0, linger_ms=0.5, zipf=1.1, contexts=100)
    assert (plan.mode, plan.expected_queries, plan.linger_s) == ("rate", 250.0, 0.0005)
    assert (plan.zipf_exponent, plan.contexts, plan.dataset) == (1.1, 100, None)


def test_saturation_has_no_warm_up_and_a_number_of_queries():
    plan = make_plan("digits", saturate=True, queries=100, warmup_seconds=5.0)
    assert (plan.mode, plan.expected_queries, plan.warmup_s) == ("saturation", 100, 0.0)


def test_feedback_comes_with_the_labels_of_the_inputs(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"input": [1], "label": 1}\n')
    plan = make_plan("digits", inputs=str(tmp_path / "rows.jsonl"), feedback_delay_ms=50.0)
    assert plan.feedback_delay_s == 0.05
    assert isinstance(plan.dataset, Dataset)


def test_labels_without_inputs_are_refused():
    with pytest.raises(InvalidSetting, match="give --inputs"):
        make_plan("digits", labels="labels.npy")


def test_every_option_of_a_plan_can_be_given_on_the_command_line_with_the_same_default():
    from clipper_agents.cli.loadgen import loadgen

    offered = inspect.signature(loadgen).parameters
    for name, parameter in inspect.signature(make_plan).parameters.items():
        assert offered[name].default == parameter.default
