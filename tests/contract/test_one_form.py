"""Each record has one decoder, and each compacted topic one fold: a second form of either drifts from the first."""

from code_rules import Module, decoded_twice, decoders, folded_outside, product

STATE, READINESS = "clipper_agents.control.state", "clipper_agents.control.readiness"
FOLDS = {
    **{f"codec.{name}.decode": STATE for name in ("applications", "models", "changes", "restores", "drifts")},
    "parse_key": STATE,
    "codec.host_reports.decode": READINESS,
}
"""Decoding of the control topic and of the hosts topic."""
ALLOWED = {
    "clipper_loadgen.preparation: codec.applications.decode": "a client: it does not know the running system",
}


def test_each_record_is_decoded_by_one_module() -> None:
    assert decoded_twice(product().values()) == []
    assert (
        decoders(product().values())["SelectionRow"]
        == decoders(product().values())["RowKey"]
        == {"clipper_topics.selection_rows"}
    )
    assert decoders(product().values())["Marker"] == {"clipper_topics.restore"}


def test_the_control_topic_and_the_hosts_topic_have_one_fold_each() -> None:
    assert set(folded_outside(product().values(), FOLDS)) == set(ALLOWED)


def test_a_second_decoder_or_fold_is_found():
    first = Module("a", "rows = msgspec.msgpack.Decoder(SelectionRow)\nheads = Codec(Head)")
    second = Module(
        "b", "found = msgspec.msgpack.decode(value, type=list[SelectionRow])\nchange = codec.changes.decode(v)"
    )
    assert decoded_twice([first, second]) == ["SelectionRow: a, b"]
    assert decoded_twice([first]) == []
    assert folded_outside([first, second], {"codec.changes.decode": "a"}) == ["b: codec.changes.decode"]
    assert folded_outside([second], {"codec.changes.decode": "b"}) == []
