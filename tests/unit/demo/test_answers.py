import asyncio

from builders.demo import MODELS, PLAN, answer_to, begun_run

from clipper_agents.demo.answers import UNANSWERED, DigitAnswer, ModelDigit
from clipper_agents.demo.run import MAX_OPEN
from clipper_agents.demo.samples import take_sample
from clipper_loadgen.answers import decode_answer
from clipper_topics import codec
from clipper_topics.prediction import ModelAnswer, Prediction


def test_no_more_queries_are_open_than_a_busy_machine_can_bear():
    run, _ = begun_run()
    run._release(PLAN.queries)
    assert run._gate._released == MAX_OPEN
    run._on_answers([answer_to(run, query) for query in range(5)], now_s=1.0)
    assert run._gate._released == MAX_OPEN + 5


def test_the_model_breaks_before_the_first_query_of_the_failure_is_let_through(tmp_path):
    flag = tmp_path / "broken"
    run, _ = begun_run(flag)
    run.ledger.answered_count = PLAN.queries
    run._release(PLAN.first_failed)
    assert not flag.exists()
    run._release(PLAN.first_failed + 1)
    assert flag.exists()


def test_live_percentiles_are_about_the_latest_queries():
    run, _ = begun_run()
    assert asyncio.run(take_sample(run, [])).p50_ms is None
    for query, latency_s in enumerate((0.010, 0.020, 0.030)):
        run.ledger.sent(query, began_s=1.0, now_s=1.0)
        run._on_answers([answer_to(run, query)], 1.0 + latency_s)
    now = asyncio.run(take_sample(run, []))
    assert (now.sent, now.answered, round(now.p50_ms)) == (3, 3, 20)


def test_a_prediction_is_read_with_what_each_model_said():
    said = [ModelAnswer(model="m", version="1", propensity=1.0, output=5)]
    prediction = Prediction(query_id="0-1", application="a", output=3, models=said)
    _, log = begun_run()
    answer = decode_answer(codec.predictions.encode(prediction), (), log.answers)
    assert answer == DigitAnswer("0-1", output=3, models=[ModelDigit("m", "1", 5)])


def test_each_answer_is_logged_with_its_models_and_a_second_one_is_not():
    run, log = begun_run()
    first = answer_to(run, 3)
    run._on_answers([first, DigitAnswer(first.query_id, output=9), DigitAnswer("0-somebody-else", output=1)], 1.0)
    label = run.labels[3]
    assert log.digits[3] == label
    assert log.model_digits[:, 3].tolist() == [label] * len(MODELS)
    assert (log.digits[:3] == UNANSWERED).all()
    assert run.ledger.duplicates() == 1


def test_what_is_no_digit_is_no_answer():
    run, log = begun_run()
    outputs = [-1, None, "x", 11, 4]
    run._on_answers([DigitAnswer(run._script.query_id(at), output=output) for at, output in enumerate(outputs)], 1.0)
    assert log.digits[:5].tolist() == [UNANSWERED] * 4 + [4]
