"""Rows and tables are bounded, and what was dropped from them is no difference to `replay verify` and the oracle."""

import asyncio

import msgspec
import oracle
import pytest
from builders.learner_logs import CATALOGUE, HORIZON_S, Deployment, manifest, verified

from clipper_agents.replay.state_at import state_at
from clipper_agents.streaming.outbox import MAX_BATCH_BYTES
from clipper_stream.selection.state import MOST_MODELS
from clipper_topics.manifests import REF_CHARACTERS, PolicySpec
from clipper_topics.query import ID_CHARACTERS, MOST_FEATURES
from clipper_topics.selection_rows import RowKey, encode_key

LONGEST = "m" * (REF_CHARACTERS - 33)
STAYS = f"{LONGEST}:stays"


def versions_that_come_and_go(at, count, features, policy):
    """So many versions, each scored beside one that stays, learned in steps of some."""
    for number in range(count):
        outputs = [(f"{LONGEST}:{number:032}", number % 2), (STAYS, 1)]
        at.ask(f"{number}", outputs=outputs, features=[0.5 / (1 + number)] * features)
        at.tell(f"{number}", 1)
        if number % 100 == 0:
            at.learn()
    at.learn()
    tables = oracle.table(at.logs.read_all(CATALOGUE.selection_changelog))
    logs = (at.logs.read_all(CATALOGUE.predictions), at.logs.read_all(CATALOGUE.feedback))
    return tables, oracle.fold(*logs, {"app": {"policy": {"name": policy}}})


@pytest.mark.parametrize(("policy", "features"), [("lin_ucb", MOST_FEATURES), ("exp4", 0)])
def test_a_row_of_hundreds_of_versions_fits_into_a_record(policy, features):
    at = Deployment(msgspec.structs.replace(manifest(), policy=PolicySpec(name=policy)))
    table, expected = versions_that_come_and_go(at, 700, features, policy)
    (row,) = [row for key, row in table.items() if key[0]]
    assert max(len(one.value) for one in at.logs.read_all(CATALOGUE.selection_changelog)) < MAX_BATCH_BYTES // 2
    assert (len(row.totals), row.totals[STAYS][0]) == (MOST_MODELS, 700.0)
    assert {key: one.bits for key, one in table.items()} == {key: one.bits for key, one in expected.items()}
    assert verified(at).equal


def test_a_version_that_was_dropped_and_comes_back_begins_anew():
    at = Deployment(manifest())
    for number in [*range(MOST_MODELS), 0, MOST_MODELS, 1]:
        at.ask(f"{number}-{at.logs.now_ms}", outputs=((f"a:{number}", 1),))
        at.tell(f"{number}-{at.logs.now_ms - 1}", 1)
    at.learn()
    totals = {one.model: one.count for one in at.rows["app", None, 0].totals}
    assert (totals["a:0"], totals["a:1"], len(totals)) == (2.0, 1.0, MOST_MODELS)
    assert verified(at).equal


@pytest.mark.parametrize(
    "forged",
    [
        {"context": "c" * (ID_CHARACTERS + 1)},
        {"features": [0.5] * (MOST_FEATURES + 1)},
        {"outputs": [("m" * REF_CHARACTERS + ":1", 1)]},
        {"outputs": [(f"m:{number}", 1) for number in range(MOST_MODELS + 1)]},
    ],
    ids=["context", "features", "name", "models"],
)
def test_what_no_row_can_hold_is_refused_and_the_next_feedback_counts(forged):
    at = Deployment(manifest())
    at.ask("forged", **forged)
    at.tell("forged")
    at.work(2)
    (letter,) = at.logs.read_all(CATALOGUE.dead_letters)
    assert b"no router wrote it" in letter.headers["__streams.errors.message"]
    assert at.rows["app", None, 0].applied == 2
    assert verified(at).equal


def contexts_of(at, partition=0):
    return {context for name, context, number in at.rows if name and context is not None and number == partition}


def of_logs(at):
    """The table of the changelog, and that of the oracle."""
    changelog = at.logs.read_all(CATALOGUE.selection_changelog)
    logs = (at.logs.read_all(CATALOGUE.predictions), at.logs.read_all(CATALOGUE.feedback))
    expected = oracle.fold(*logs, {"app": {}}, changelog=changelog)
    return [{key: row.bits for key, row in rows.items()} for rows in (oracle.table(changelog), expected)]


@pytest.mark.parametrize("dirty", [None, 0, 5])
def test_contexts_that_were_forgotten_and_come_back_begin_anew(dirty):
    at = Deployment(manifest())
    at.work(6)
    for turn, names in enumerate(["abc", "bcd", "ae", "af"]):
        for name in names:
            at.work(2, first=100 * turn + 10 * ord(name), context=name)
        if turn in {1, 2}:
            at.forget(at.position() - 3)
    assert contexts_of(at) == {"a", "e", "f"}
    assert at.rows["app", "a", 0].applied == 4
    if dirty is not None:
        at.logs.compact(CATALOGUE.selection_changelog, 0, dirty)
    table, expected = of_logs(at)
    assert table == expected
    assert verified(at).equal


def test_a_context_that_is_deleted_and_was_not_forgotten_is_found():
    at = Deployment(manifest())
    at.work(3, context="a")
    at.work(3, first=10, context="b")
    at.logs.append(CATALOGUE.selection_changelog, None, 0, encode_key(RowKey("app", "b", 0)))
    (parting,) = verified(at).partings
    assert (parting.context, parting.table) == ("b", None)


@pytest.mark.parametrize("before", [2, 9])
def test_contexts_forgotten_around_the_beginning_of_the_logs_are_no_difference(before):
    """What was forgotten before the first feedback that is left, and what after it."""
    at = Deployment(manifest())
    for name in "abcd":
        at.work(2, first=10 * ord(name), context=name)
    at.forget(4)
    at.logs.now_ms += int(HORIZON_S * 1000) + 1
    for name in "ace":
        at.work(2, first=1000 + 10 * ord(name), context=name)
    at.forget(before + 4)
    at.work(2, first=5000, context="a")
    for topic in (CATALOGUE.predictions, CATALOGUE.feedback):
        at.logs.delete_before(topic, 0, before)
    found = verified(at)
    assert found.equal
    assert found.partitions[0].since > 0


@pytest.mark.parametrize("offset", [3, 4, 6])
def test_a_state_of_then_has_the_contexts_that_were_remembered_then(offset):
    at = Deployment(manifest())
    at.work(2, context="a")
    at.work(2, first=10, context="b")
    at.forget(2)
    at.work(2, first=20, context="c")
    found = asyncio.run(state_at(at.logs, CATALOGUE, "app", HORIZON_S, ends={0: offset}))
    assert {row.context for row in found.rows} == {3: {"a", "b"}, 4: {"a", "b"}, 6: {"b", "c"}}[offset]
