import numpy as np
import pytest
from unit.demo.fabricated import PLAN, demo_script

from clipper_agents.demo.plan import PHASES, POLICIES, DemoPlan, application_of
from clipper_stream.errors import InvalidSetting
from clipper_stream.selection.registry import make_policy
from clipper_topics import codec


@pytest.fixture(scope="module")
def script():
    return demo_script()


def test_phases_cover_every_query_once():
    assert PLAN.edges == (0, 100, 200, 400)
    phases = [PLAN.phase_of(query) for query in range(PLAN.queries)]
    assert phases == [PHASES[0]] * 100 + [PHASES[1]] * 100 + [PHASES[2]] * 200


@pytest.mark.parametrize(("wrong", "message"), [({"queries": 10}, "at least 400"), ({"rate_per_s": 0}, "above 0")])
def test_a_plan_that_says_nothing_is_refused(wrong, message):
    with pytest.raises(InvalidSetting, match=message):
        DemoPlan(**wrong)


def test_every_policy_of_the_demo_exists_and_forgets():
    assert all(make_policy(name, parameters).half_life is not None for name, parameters in POLICIES.items())


def test_queries_alternate_between_the_applications_and_are_due_evenly(script):
    queries = [codec.queries.decode(script.record(number)[2]) for number in range(PLAN.queries)]
    assert [query.application for query in queries] == [*map(application_of, POLICIES)] * (PLAN.queries // 2)
    assert {len(query.input) for query in queries} == {64}
    assert np.allclose(np.diff(script.times_s), 1 / PLAN.rate_per_s)


def test_a_tenth_of_the_queries_repeats_an_input_with_its_label(script):
    labels = dict(zip(script.bodies, script.labels, strict=True))
    assert [labels[body] for body in script.bodies] == script.labels
    assert len(labels) == len(set(script.rows))
    assert 0.03 < 1 - len(labels) / PLAN.queries < 0.17  # five standard deviations of a tenth of 400


def test_a_seed_gives_the_same_queries_and_delays_in_another_run(script):
    again = demo_script("ffffffff")
    assert (again.bodies, again.delays_s) == (script.bodies, script.delays_s)
    assert again.query_id(0) != script.query_id(0)
