"""What a demo records of a run, says meanwhile, and finds at its end."""

import re
from pathlib import Path

import numpy as np
import pytest
import typer

from clipper_agents import exits
from clipper_agents.demo.scenario import FAILED, DemoRecorder, DemoResult, Pace, pace_of, phase_of
from clipper_agents.replay.verdicts import PartitionVerdict, Verification
from clipper_loadgen.ledger import Ledger
from clipper_loadgen.report import summarise
from clipper_stream.errors import ClipperError
from clipper_topics.prediction import ModelAnswer, Prediction

pytest.importorskip("matplotlib")

from clipper_agents.cli.demo import report

QUERIES = 400
VERDICT = PartitionVerdict(partition=0, position=399, behind=0, feedbacks=400, rows=16)


def recorded(skipped=()):
    """`good` errs in the failure only, `fair` about a tenth of the queries; each application gets what `fair` says."""
    recorder = DemoRecorder(QUERIES, ["good:1", "fair:1"], Path("/nonexistent/flag"))
    recorder.labels = [query % 7 for query in range(QUERIES)]
    for query in {*range(QUERIES)} - {*skipped}:
        label = recorder.labels[query]
        good, fair = label + (phase_of(query, QUERIES) == FAILED), label + (query % 20 < 2)
        outputs = [("good", good), ("fair", fair)]
        models = [ModelAnswer(model=name, version="1", propensity=1.0, output=digit) for name, digit in outputs]
        recorder.answered(query, Prediction(query_id="", application="digits", output=fair, models=models))
    return recorder


def summed_up(answers=(1,) * QUERIES, feedback=400, defaults=0):
    """The load generator's report on queries with so many answers each, of which the first were default outputs."""
    ledger = Ledger([0.01 * query for query in range(len(answers))])
    for query, count in enumerate(answers):
        ledger.sent(query, began_s=0.01 * query, now_s=0.01 * query)
        for _ in range(count):
            ledger.answered(query, 0.01 * query + 0.02, reason="late" if query < defaults else None)
    return summarise(ledger, application="digits", mode="bounded", feedback_sent=feedback)


def result_of(skipped=(), load=None, refused=0, uncommitted=(), equal=True):
    verification = Verification(equal=equal, seconds=0.5, partitions=[VERDICT])
    errors = recorded(skipped).errors
    pace = Pace(100.0, 60.0, QUERIES)
    return DemoResult("good:1", errors, pace, load or summed_up(), refused, dict(uncommitted), verification)


# --- meanwhile ------------------------------------------------------------------------------------------------------
def test_the_flag_exists_from_before_the_first_query_of_the_failure_to_the_last(tmp_path):
    flag, states = tmp_path / "broken", []
    recorder = DemoRecorder(QUERIES, [], flag)
    for count in range(QUERIES + 1):
        recorder.releasing(count)
        states.append(flag.exists())
    assert states == [False] * 101 + [True] * 100 + [False] * 200


@pytest.mark.parametrize(
    ("measured_per_s", "queries", "sent"),
    [(5_000.0, None, (250.0, 20_000)), (50.0, None, (30.0, 2_400)), (50.0, 600, (30.0, 600)), (8.0, None, None)],
)
def test_a_slow_machine_is_asked_less_and_one_that_would_show_nothing_is_not_asked(measured_per_s, queries, sent):
    if sent is None:
        with pytest.raises(ClipperError, match=r"answers 8.0 queries a second in time, and the demo needs 8.3"):
            pace_of(measured_per_s, 250.0, queries)
    else:
        assert pace_of(measured_per_s, 250.0, queries) == (measured_per_s, *sent)


# --- at the end -----------------------------------------------------------------------------------------------------
def test_errors_are_counted_by_phase_for_policies_and_for_models_by_the_ensembles_log():
    assert [*result_of().error_rows()] == [
        ["exp3", "10.0", "10.0", "10.0"],  # of its even queries one in ten is wrong
        ["exp4", "10.0", "10.0", "10.0"],
        ["good:1 broke", "0.0", "100.0", "0.0"],
        ["fair:1", "10.0", "10.0", "10.0"],
    ]
    counted = {name: np.flatnonzero(~np.isnan(wrong)).tolist() for name, wrong in recorded().errors.items()}
    odd = [*range(1, QUERIES, 2)]
    assert counted == {"exp3": [*range(0, QUERIES, 2)], "exp4": odd, "good:1": odd, "fair:1": odd}


def test_a_query_without_an_answer_is_an_error_of_the_policy_but_of_no_model():
    rows = {name: errors for name, *errors in result_of(skipped={3, 5}).error_rows()}
    assert (rows["exp4"][0], rows["good:1 broke"][0]) == ("14.0", "0.0")
    nothing = {name: errors for name, *errors in result_of(skipped=range(QUERIES)).error_rows()}
    assert (nothing["exp4"], nothing["good:1 broke"]) == (["100.0"] * 3, ["-"] * 3)


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({}, []),
        (
            {"skipped": range(QUERIES)},
            ["story"],
        ),  # of whose answers nothing is recorded, and which is drawn all the same
        ({"skipped": range(100, 180)}, ["story"]),  # four in five of what was asked while the best model was broken
        ({"load": summed_up(defaults=20)}, []),
        ({"load": summed_up(defaults=21)}, ["story"]),  # more than one in twenty, whatever the policies did
        ({"load": summed_up([2, *[1] * 399])}, ["answers"]),
        ({"load": summed_up([0, *[1] * 399])}, ["answers"]),
        ({"load": summed_up([1] * 399)}, ["answers"]),  # one that was not sent
        ({"load": summed_up(feedback=401)}, ["feedback"]),
        ({"refused": 1}, ["feedback"]),  # of a query that nobody knows, say
        ({"uncommitted": {"clipper.queries": 2}}, ["offsets"]),
        ({"equal": False}, ["learned"]),
    ],
)
def test_each_promise_that_is_broken_is_said_in_a_line_and_in_the_exit_code(tmp_path, capsys, change, broken):
    result, code = result_of(**change), 0
    try:
        report(result, tmp_path / "errors.png")
    except typer.Exit as ended:
        code = ended.exit_code
    said = capsys.readouterr().out
    assert code == (exits.FAILURE if broken else exits.OK)
    assert re.findall(r"^FAILED (\w+): ", said, re.MULTILINE) == broken
    assert (tmp_path / "errors.png").stat().st_size > 10_000
    pace = "of 60 queries a second were answered; this machine answers 100 at most"
    for line in ("good:1 broke", " sent, 400 read, ", f"picture: {tmp_path / 'errors.png'}", pace):
        assert line in said
