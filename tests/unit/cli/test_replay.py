import json
from pathlib import Path

import msgspec
import pytest
from builders.decision_files import write_decisions
from builders.evaluation import candidate, estimate, evaluation
from builders.known_truth import log_of

from clipper_agents.cli.evaluation_view import show_evaluation
from clipper_agents.cli.replay import print_verification
from clipper_agents.cli.replay_nightly import candidates_of, recommendation
from clipper_agents.cli.replay_produce import lines_of
from clipper_agents.cli.terminal import console
from clipper_agents.replay.rerun import RerunSummary
from clipper_agents.replay.verdicts import PartitionVerdict, RowMismatch, ShownRow, Verification, shown_row
from clipper_stream.evaluation.results import NOTHING, EvidenceSize
from clipper_topics.manifests import ApplicationManifest
from clipper_topics.selection_rows import ModelTotalsRecord, SelectionRow

GOLDEN = Path(__file__).parents[2] / "golden"


# --- evaluate ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_decisions(tmp_path_factory.mktemp("log") / "day.parquet", log_of(2_000)[0])


@pytest.fixture
def evaluated(ran, file):
    def run(options, application="digits"):
        return ran("replay", "evaluate", application, "--log", file, *options.split())

    return run


def test_a_line_a_candidate_and_a_page(evaluated, tmp_path):
    code, out, err = evaluated("--candidate b:1 --candidate split --report page.html")
    assert code == 0, err
    assert "model b:1" in out
    assert "would have lost" in out.replace("\n", " ")
    assert "model b:1" in (tmp_path / "page.html").read_text()


def test_json_for_programs_on_standard_output_and_in_a_file(evaluated, tmp_path):
    _, out, _ = evaluated("--candidate b:1 --json --save found.json")
    found = json.loads(out)
    assert found == json.loads((tmp_path / "found.json").read_text())
    assert found["candidates"][0]["headline"] == "dr"
    assert 0.0 < found["candidates"][0]["estimates"]["snips"]["value"] < 1.0


@pytest.mark.parametrize(
    ("options", "application", "code", "said"),
    [
        ("--candidate exp5", "digits", 3, "did you mean"),
        ("--candidate b:1 --since 1d", "digits", 2, "--log is read whole"),
        ("--candidate b:1 --confidence 1.5", "digits", 3, "confidence"),
        ("--candidate b:1", "letters", 2, "not of letters"),
    ],
)
def test_what_cannot_be_evaluated_is_said(evaluated, options, application, code, said):
    found, out, err = evaluated(options, application)
    assert (found, out) == (code, "")
    assert said in " ".join(err.split())


def shown(what) -> str:
    screen = console(160)
    with screen.capture() as said:
        show_evaluation(screen, what)
    return said.get()


def test_a_line_a_candidate_with_its_verdict_and_warnings_and_notes_below():
    warned = candidate("knn:1", 0.1, warnings=("few decisions",))
    text = shown(evaluation(candidate("exp3", 0.08), candidate("svm:2", 0.12), warned))
    for name, said in (("exp3", ("better", "-0.0200", "4,321")), ("svm:2", ("worse",)), ("knn:1", ("not told apart",))):
        line = next(each for each in text.splitlines() if each.startswith(name))
        assert [word for word in said if word not in line] == []
    assert "! knn:1: few decisions" in text
    assert "- 1,000 decisions have no feedback yet." in text
    assert "\x1b" not in shown(evaluation(candidate("a\x1b[31m", 0.1))), "names do not reach the terminal as they are"


def test_what_is_not_known_is_called_so_and_is_null_in_json():
    unknown = evaluation(candidate("a:1", 0, estimates={"dr": NOTHING}, difference=NOTHING, standing=EvidenceSize()))
    assert "unknown" in shown(unknown)
    found = msgspec.json.decode(msgspec.json.encode(unknown))["candidates"][0]
    assert (found["estimates"]["dr"]["value"], found["standing"]["carrying"]) == (None, None)


# --- produce ----------------------------------------------------------------------------------------------------------
def test_the_summary_of_a_run_is_that_of_the_golden_text():
    sent = RerunSummary(run="r1", read=4, failed=1, first_failure="too large", complete=True)
    sent.first_ms, sent.last_ms, sent.took_s = 1_000, 5_000, 0.5
    sent.sent["staging.queries"], sent.left_out["no_query"] = 3, 1
    cut = RerunSummary(run="r2", read=1, first_ms=1_000, last_ms=1_000)
    cut.sent["staging.feedback"] = 1
    runs = [sent, cut, RerunSummary(run="r3")]
    text = "".join(f"{line}\n" for run in runs for line in (*lines_of(run), ""))
    assert text == (GOLDEN / "replay-produce.txt").read_text()


# --- verify -----------------------------------------------------------------------------------------------------------
ROW = SelectionRow(version=1, offset=7, applied=2, totals=[ModelTotalsRecord("a:1", 2.0, 0.1 + 0.2, 1.5, 4.0)])


def parting(**changes):
    settings = dict(application="app", context="c", partition=1, logs=None)
    return RowMismatch(table=shown_row(ROW), **(settings | changes))


def verdict(**changes):
    settings = dict(position=9, behind=0, feedbacks=10, rows=2, partition=1)
    return PartitionVerdict(**(settings | changes))


def test_a_row_is_shown_with_every_digit():
    totals = {"count": 2.0, "loss": 0.1 + 0.2, "weighted_count": 4.0, "weighted_loss": 1.5}
    assert shown_row(ROW) == ShownRow(offset=7, applied=2, totals={"a:1": totals})


PARTINGS = [
    parting(),
    parting(context="q\x1b7"),
    parting(application="", context=None),
    parting(application="", context="app"),
]


def test_a_verification_is_that_of_the_golden_text(capsys):
    for verdicts in (
        [verdict(), verdict(partition=0)],
        [verdict(partings=PARTINGS), verdict(unlogged=["app"])],
    ):
        equal = not any(one.partings for one in verdicts)
        print_verification(Verification(equal=equal, seconds=0.25, partitions=verdicts))
    assert capsys.readouterr().out == (GOLDEN / "replay-verify.txt").read_text()


# --- nightly ----------------------------------------------------------------------------------------------------------
def test_what_is_tried_is_the_candidate_that_surely_gains_most():
    close, sure = candidate("exp3", 0.07, difference=estimate(-0.03, 0.029)), candidate("svm:2", 0.08)
    assert recommendation(evaluation(close, sure)) == (
        "try svm:2: it gains 0.0200 of 0.1000 that were lost, 0.0120 to 0.0280 by the interval for 2 candidates"
    )
    said = "nothing to try: none of 1 candidates is better for sure"
    assert recommendation(evaluation(candidate("svm:2", 0.12))) == said


def test_candidates_are_the_versions_that_were_asked_and_the_policies_that_are_not_there():
    manifest = ApplicationManifest(name="digits", models=["a:1", "b:1", "new:1"])
    assert candidates_of(manifest, ("a:1", "b:1", "old:1")) == [
        "a:1", "b:1", "epsilon_greedy", "thompson", "lin_ucb", "exp4"
    ]  # fmt: skip
    assert candidates_of(manifest, ("a:1",)) == ["a:1"], "there is nothing to choose from"
