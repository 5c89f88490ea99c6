"""Each record has one decoder, and each compacted topic one fold: a second form of either drifts from the first."""

from pathlib import Path

import pytest
from code_rules import Module, decoded_twice, decoders, folded_outside

ROOT = Path(__file__).parents[2]
SOURCES = ("topics", ".", "agents", "loadgen")
PACKAGES = ("clipper_topics", "clipper_stream", "clipper_agents", "clipper_loadgen")

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


@pytest.fixture(scope="module")
def product():
    found = []
    for source, package in zip(SOURCES, PACKAGES, strict=True):
        folder = ROOT / source
        for path in sorted((folder / package).rglob("*.py")):
            name = ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
            found.append(Module(name, path.read_text()))
    return found


def test_each_record_is_decoded_by_one_module(product):
    assert decoded_twice(product) == []
    assert decoders(product)["SelectionRow"] == decoders(product)["RowKey"] == {"clipper_topics.selection_rows"}
    assert decoders(product)["Marker"] == {"clipper_topics.restore"}


def test_the_control_topic_and_the_hosts_topic_have_one_fold_each(product):
    assert set(folded_outside(product, FOLDS)) == set(ALLOWED)


def test_a_second_decoder_or_fold_is_found():
    first = Module("a", "rows = msgspec.msgpack.Decoder(SelectionRow)\nheads = Codec(Head)")
    second = Module(
        "b", "found = msgspec.msgpack.decode(value, type=list[SelectionRow])\nchange = codec.changes.decode(v)"
    )
    assert decoded_twice([first, second]) == ["SelectionRow: a, b"]
    assert decoded_twice([first]) == []
    assert folded_outside([first, second], {"codec.changes.decode": "a"}) == ["b: codec.changes.decode"]
    assert folded_outside([second], {"codec.changes.decode": "b"}) == []
