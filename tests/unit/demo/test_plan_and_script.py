import msgspec
import numpy as np
import pytest

from clipper_agents.demo.data import Digits, Labelled, load_digits
from clipper_agents.demo.phases import BEFORE, FAILED, PHASES, RESTORED, bounds_of, phase_of
from clipper_agents.demo.plan import POLICIES, DemoPlan, application_of
from clipper_agents.demo.script import policy_of, write_scripted
from clipper_stream.errors import InvalidSetting
from clipper_stream.selection.registry import make_policy
from clipper_topics import codec

PLAN = DemoPlan(queries=600)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_digits(0)


@pytest.fixture(scope="module")
def scripted(digits):
    return write_scripted(PLAN, digits, partitions=4)


def test_phases_cover_every_query_once():
    assert [bounds_of(phase, PLAN) for phase in PHASES] == [(0, 150), (150, 300), (300, 600)]
    for phase in PHASES:
        start, stop = bounds_of(phase, PLAN)
        assert {phase_of(query, PLAN) for query in range(start, stop)} == {phase}
    assert (BEFORE, FAILED, RESTORED) == PHASES


@pytest.mark.parametrize(("wrong", "message"), [({"queries": 10}, "at least 400"), ({"rate_per_s": 0}, "above 0")])
def test_a_plan_that_says_nothing_is_refused(wrong, message):
    with pytest.raises(InvalidSetting, match=message):
        DemoPlan(**wrong)


def test_every_policy_of_the_demo_exists_and_forgets():
    for name, parameters in POLICIES.items():
        assert make_policy(name, parameters).half_life is not None


def test_queries_alternate_between_the_applications_and_can_be_decoded(scripted):
    for number in range(10):
        query = codec.queries.decode(scripted.script.value(number))
        assert query.application == application_of(policy_of(number))
        assert query.query_id == scripted.script.query_id(number)
        assert len(query.input) == 64


def test_a_tenth_of_the_queries_repeats_a_recent_input_with_its_key_and_label(scripted):
    seen: dict[bytes, int] = {}
    repeats = 0
    for number, body in enumerate(scripted.script.bodies):
        if body in seen:
            repeats += 1
            assert number - seen[body] <= PLAN.recent
            assert scripted.labels[number] == scripted.labels[seen[body]]
            assert scripted.script.partitions[number] == scripted.script.partitions[seen[body]]
        seen[body] = number
    assert repeats == PLAN.queries - scripted.distinct_inputs
    assert 0.06 < repeats / PLAN.queries < 0.14  # five standard deviations of a tenth of 600


def test_a_seed_gives_the_same_queries_and_delays(digits, scripted):
    again = write_scripted(PLAN, digits, partitions=4)
    assert again.script.bodies == scripted.script.bodies
    assert again.feedback_delays_s == scripted.feedback_delays_s
    assert again.script.run != scripted.script.run


def test_the_truth_about_a_query_names_it_and_its_digit(scripted):
    partition, key, value = scripted.feedback(7)
    feedback = codec.feedback.decode(value)
    assert (partition, key) == (scripted.script.partitions[7], scripted.script.keys[7])
    assert (feedback.query_id, feedback.label) == (scripted.script.query_id(7), scripted.labels[7])
    assert feedback.loss is msgspec.UNSET


def test_queries_are_due_evenly_at_the_rate(scripted):
    assert np.allclose(np.diff(scripted.due_s), 1 / PLAN.rate_per_s)


def test_no_label_is_lost_between_picture_and_query():
    rows = np.arange(8, dtype=float).reshape(8, 1) * np.ones(64)
    pool = Labelled(rows, np.arange(8))
    script = write_scripted(DemoPlan(queries=400, repeat_ratio=0.0), Digits(pool, pool, pool), partitions=2)
    assert sorted(set(script.labels)) == list(range(8))
    assert script.distinct_inputs == 400
