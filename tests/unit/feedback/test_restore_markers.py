"""Declarations of restored states, and the markers that they let count."""

import pytest
from builders.kafka import record

from clipper_agents.control.state import ControlState
from clipper_agents.feedback.feedback_step import read_markers
from clipper_topics import codec
from clipper_topics.control_keys import restore_key
from clipper_topics.manifests import MAX_MANIFEST_BYTES
from clipper_topics.restore import RESTORE, Restore, digests_of, markers_of
from clipper_topics.selection_rows import SavedRow

ROWS = [SavedRow(partition=0, totals={"a:1": (2.0, 1.0, 2.0, 1.0)})]
MARKERS = markers_of("app", ROWS, 2)


def declaration(offset, restore_id="r-0", **changes):
    settings = dict(application="app", at_ms=0, by="ada", digests=digests_of(MARKERS), before=ROWS)
    return record(offset, codec.restores.encode(Restore(**(settings | changes))), restore_key(restore_id))


def declared(*records, **settings):
    state = ControlState(saved_rows=False, **settings)
    state.take(records)
    return state.restores


def marker(value, restore_id="r-0", partition=0):
    return record(9, value, None, partition=partition, headers=[*codec.MSGPACK_HEADERS, (RESTORE, restore_id.encode())])


@pytest.mark.parametrize(
    ("claim", "changes", "reason"),
    [
        (marker(MARKERS[0], "r-1"), {}, "no restore 'r-1' is declared"),
        (marker(MARKERS[0], partition=1), {}, "declares sha256"),
        (marker(b""), {}, "declares sha256"),
        (marker(MARKERS[0]), {"application": "other"}, "is about other, the marker about app"),
        (marker(b"junk"), {"digests": digests_of([b"junk"])}, "no marker"),
    ],
)
def test_a_marker_counts_with_its_declaration_and_is_refused_without_one_that_is_about_it(claim, changes, reason):
    good = marker(MARKERS[0], "r-2")
    found = declared(declaration(0, **changes), declaration(41, "r-2"))
    ((counted, restored),), ((refused, error),) = read_markers([claim, good], found.get, 2)
    assert (counted, restored.marker.rows, restored.declared, refused) == (good, ROWS, 41, claim)
    assert reason in str(error)


def test_the_first_declaration_of_an_id_stays_until_it_is_taken_back():
    twice = [declaration(3), declaration(7, by="eve")]
    found = declared(*twice).get("r-0")
    assert (found.offset, found.restore.by) == (3, "ada")
    assert declared(*twice, record(8, b"", restore_key("r-0")), declaration(9, by="eve")).get("r-0").offset == 9


def test_the_newest_declarations_are_kept_without_the_rows_before():
    restores = declared(*(declaration(n, f"r-{n}") for n in range(5)), most_restores=2)
    assert [restores.get(f"r-{n}") is not None for n in range(5)] == [False] * 3 + [True] * 2
    assert restores.get("r-4").restore.before is None


@pytest.mark.parametrize("value", [b"{", b'{"application": "app"}', b"\xff" * (MAX_MANIFEST_BYTES + 1)])
def test_a_declaration_that_cannot_be_read_is_none_and_stops_nobody(value):
    restores = declared(record(0, value, restore_key("r-0")), record(1, b"{}", b"model/a:1"), declaration(2, "r-1"))
    assert (restores.get("r-0"), restores.get("r-1").offset) == (None, 2)
