from doubles_demo import PLAN, REFS, answer_to

from clipper_agents.demo.data import load_digits
from clipper_agents.demo.fault import Fault
from clipper_agents.demo.script import write_scripted
from clipper_agents.demo.traffic import MOST_OPEN, Traffic


def test_no_more_queries_are_open_than_a_busy_machine_can_bear(tmp_path):
    scripted = write_scripted(PLAN, load_digits(0), partitions=2)
    traffic = Traffic(scripted, REFS, Fault(tmp_path / "broken", PLAN))
    traffic._release(10)
    assert traffic._gate._released == 10
    traffic._release(PLAN.queries)
    assert traffic._gate._released == MOST_OPEN
    for query in range(5):
        traffic.answers.take(answer_to(scripted, query), now_s=1.0)
    traffic._release(PLAN.queries)
    assert traffic._gate._released == MOST_OPEN + 5


def test_the_model_breaks_before_the_first_query_of_the_failure_is_let_through(tmp_path):
    flag = tmp_path / "broken"
    traffic = Traffic(write_scripted(PLAN, load_digits(0), partitions=2), REFS, Fault(flag, PLAN))
    traffic.answers.ledger.answered_count = PLAN.queries
    traffic._release(PLAN.first_failed)
    assert not flag.exists()
    traffic._release(PLAN.first_failed + 1)
    assert flag.exists()


def test_live_percentiles_are_about_the_latest_queries(tmp_path):
    scripted = write_scripted(PLAN, load_digits(0), partitions=2)
    traffic = Traffic(scripted, REFS, Fault(tmp_path / "broken", PLAN))
    assert traffic.recent_ms(50) is None
    for query, latency_s in enumerate((0.010, 0.020, 0.030)):
        traffic.answers.ledger.sent(query, began_s=1.0, now_s=1.0)
        traffic.answers.take(answer_to(scripted, query), now_s=1.0 + latency_s)
    assert round(traffic.recent_ms(50)) == 20
