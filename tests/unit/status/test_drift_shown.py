"""A rise of a loss is shown while it counts, and no longer."""

import msgspec
import pytest
from builders.status import NOW_S, facts, recent

from clipper_agents.cli.status_view import application_parts, drift_line, line_of
from clipper_agents.status.build import DRIFT_SHOWN_S, StatusBuilder
from clipper_topics import codec
from clipper_topics.control_keys import drift_key
from clipper_topics.examples import DRIFT


def look(**changes):
    """The status after a detection about `svm:1` twelve minutes ago."""
    event = msgspec.structs.replace(DRIFT, **({"at_ms": int(1000 * (NOW_S - 720))} | changes))
    found = facts()
    found.control(drift_key(event.application, event.model), codec.drifts.encode(event))
    return found, StatusBuilder(facts=found, recent=recent(), now_s=NOW_S, window_s=10).applications()["digits"]


def drifting(status):
    return {version.model: version.drift for version in status.versions if version.drift is not None}


def test_a_rise_is_shown_beside_its_version_and_as_an_event():
    found, status = look()
    assert list(drifting(status)) == ["svm:1"]
    said = drift_line("svm:1", drifting(status)["svm:1"])
    assert said == "drift svm:1: loss 0.040 -> 0.310, 12 min ago (adwin)"
    assert said in [str(part) for part in application_parts("digits", status)]
    assert "drift=0.040->0.310" in line_of("digits", status, NOW_S)
    assert found.events[-1].text == "loss of svm:1 for digits has risen from 0.040 to 0.310 (adwin, 57 losses ago)"


@pytest.mark.parametrize(
    "changes",
    [
        {"loss_before": 0.4},
        {"at_ms": int(1000 * (NOW_S - DRIFT_SHOWN_S - 1))},
        {"model": "old:1"},
        {"application": "others"},
    ],
    ids=["a fall", "a week ago", "retired", "of another application"],
)
def test_what_counts_no_longer_is_not_shown(changes):
    _, status = look(**changes)
    assert drifting(status) == {}


def test_text_of_a_record_cannot_move_a_cursor():
    _, status = look(context="a\x1b[2J", detector="ad\nwin")
    assert drift_line("m:1", drifting(status)["svm:1"]).isprintable()
