"""What can be restored, and what a declaration says of it."""

import math

import msgspec
import pytest

from clipper_topics import codec, restore
from clipper_topics.selection_rows import SavedRow

ODD = (0.1 + 0.2, 5e-324, 1.7976931348623157e308, 1 / 3)
MOMENTS = (1.0, 0.1 + 0.2, -1.5, 1 / 3, -1e100)
A = {"a:1": ODD}
TOTALS = {"b:1": ODD, "a:1": (1.0, 0.0, 2.0, 0.0)}
ROW = SavedRow(partition=1, context="c", totals=TOTALS, moments={"a:1": MOMENTS}, at_ms=7, half_life_s=0.1)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (dict(partition=2), r"row of partition 2, context None: there are partitions 0 to 1"),
        (dict(partition=-1), "there are partitions 0 to 1"),
        (dict(partition=1, context="c"), "comes twice"),
        (dict(context=""), "a context has 1 to 256 characters"),
        (dict(totals={"a": (1.0, 0.0, 1.0, 0.0)}), "'a' is no model version"),
        (dict(totals={"a:1": (1.0, math.nan, 1.0, 0.0)}), "the sums of a:1 are .*finite"),
        (dict(totals={"a:1": (1.0, math.inf, 1.0, 0.0)}), "finite"),
        (dict(totals={"a:1": (-1.0, 0.0, 1.0, 0.0)}), "not negative"),
        (dict(at_ms=-1), "give a time and a positive number"),
        (dict(half_life_s=0.0), "give a time and a positive number"),
        (dict(half_life_s=math.nan), "give a time and a positive number"),
        (dict(moments={"a:1": (0.0,) * 5}), "'a:1' has moments and no totals: give both"),
        (dict(totals=A, moments={"a:1": (0.0,) * 6}), "6 moments of a:1: 16 features at most have 170"),
        (dict(totals=A, moments={"a:1": (0.0,) * 2}), "2 moments of a:1"),
        (dict(totals=A, moments={"a:1": (0.0,) * 189}), "189 moments of a:1"),
        (dict(totals=A, moments={"a:1": (0.0, 0.0, 0.0, math.nan, 0.0)}), "a moment of a:1 is no number or too large"),
        (dict(totals=A, moments={"a:1": (0.0, -1.1e100, 0.0, 0.0, 0.0)}), "a moment of a:1 is no number or too large"),
    ],
)
def test_rows_that_no_state_can_have_are_refused(fields, said):
    with pytest.raises(restore.UnusableRows, match=said):
        restore.check_rows([ROW, SavedRow(**{"partition": 0} | fields)], 2)


def test_every_partition_has_a_marker_and_every_bit_comes_back():
    empty, full = restore.markers_of("app", [ROW, SavedRow(partition=1)], 2)
    assert restore.decode_marker(empty, 0, 2).rows == []
    (row,) = restore.decode_marker(full, 1, 2).rows
    assert (row, [*row.totals]) == (ROW, ["b:1", "a:1"])
    digests = restore.digests_of([empty, full])
    declared = restore.Restore(application="app", at_ms=0, by="ada", digests=digests, before=[ROW])
    for kind in (codec.JSON, codec.MSGPACK):
        (row,) = codec.restores.decode(codec.restores.encode(declared, kind), codec.headers_of(kind)).before
        assert (row, [*row.totals]) == (ROW, ["b:1", "a:1"])


def test_a_marker_that_no_topic_would_take_is_refused_with_rows_and_bytes():
    rows = [SavedRow(partition=1, context=f"context-{n}", totals=A) for n in range(12_000)]
    with pytest.raises(restore.UnusableRows, match=rf"12000 rows in \d+ bytes: at most {restore.MAX_MARKER_BYTES}"):
        restore.markers_of("app", rows, 2)
    assert len(restore.markers_of("app", rows[:8_000], 2)[1]) <= restore.MAX_MARKER_BYTES


def test_what_is_no_marker_or_that_of_another_partition_is_refused():
    for value in (b"", b"\xc1", b"\x91" * 5_000, msgspec.msgpack.encode({"application": "app"})):
        with pytest.raises(restore.UnusableRows, match="no marker"):
            restore.decode_marker(value, 0, 2)
    with pytest.raises(restore.UnusableRows, match=r"the marker of partition 0 has rows of partitions \[1\]"):
        restore.decode_marker(restore.markers_of("app", [ROW], 2)[1], 0, 2)


def test_a_marker_counts_only_as_it_is_declared_and_its_header_may_say_anything():
    empty, full = restore.markers_of("app", [ROW], 2)
    declared = restore.Restore(application="app", at_ms=0, by="ada", digests=restore.digests_of([empty, full]))
    assert restore.refusal_of(declared, "r-1", full, 1) is None
    assert "no restore 'r-1' is declared" in restore.refusal_of(None, "r-1", full, 1)
    assert "declares sha256" in restore.refusal_of(declared, "r-1", full + b"\0", 1)
    assert "declares no marker for partition 2" in restore.refusal_of(declared, "r-1", full, 2)
    assert restore.restore_id_of([("other", b"r-1")]) is None
    assert restore.restore_id_of([(restore.RESTORE, None)]) == ""
    assert restore.restore_id_of([(restore.RESTORE, b"\xff")]) == "\ufffd"
