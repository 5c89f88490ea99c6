import json

from builders.evaluation import candidate, evaluation

from clipper_agents.cli.evaluation_view import as_json, show_evaluation
from clipper_agents.cli.terminal import console
from clipper_stream.evaluation.results import NOTHING, EvidenceSize


def shown(what) -> str:
    screen = console(160)
    with screen.capture() as said:
        show_evaluation(screen, what)
    return said.get()


def test_a_line_a_candidate_with_its_verdict():
    lines = shown(evaluation(candidate("exp3", 0.08), candidate("svm:2", 0.12), candidate("knn:1", 0.1))).splitlines()
    line = {name: next(each for each in lines if each.startswith(name)) for name in ("exp3", "svm:2", "knn:1")}
    assert [next(word for word in ("better", "worse", "not told apart") if word in line[name]) for name in line] == [
        "better",
        "worse",
        "not told apart",
    ]
    assert "-0.0200" in line["exp3"]
    assert "4,321" in line["exp3"]


def test_warnings_and_notes_stand_below():
    text = shown(evaluation(candidate("a:1", 0.1, warnings=("few decisions",))))
    assert "! a:1: few decisions" in text
    assert "- 1,000 decisions have no feedback yet." in text


def test_what_is_not_known_is_called_so_and_is_null_in_json():
    unknown = evaluation(candidate("a:1", 0, estimates={"dr": NOTHING}, difference=NOTHING, standing=EvidenceSize()))
    assert "unknown" in shown(unknown)
    found = json.loads(as_json(unknown))
    assert found["candidates"][0]["estimates"]["dr"]["value"] is None
    assert found["candidates"][0]["standing"]["effective"] is None


def test_control_characters_of_names_do_not_reach_the_terminal():
    assert "\x1b" not in shown(evaluation(candidate("a\x1b[31m", 0.1)))
