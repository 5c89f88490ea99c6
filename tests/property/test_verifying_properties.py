"""Whatever happened to a deployment, verifying says what the oracle says: equal, or where not."""

import asyncio

import msgspec
import oracle
from builders.learner_logs import CATALOGUE, HORIZON_MS, HORIZON_S, LATER_MS, Deployment, flipped, manifest, verified
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from clipper_agents.replay.state_at import state_at
from clipper_topics.feedback import EARLY_FEEDBACK_MS
from clipper_topics.selection_rows import SavedRow, decode_row

FORGETS = {"half_life": 3.0, "half_life_s": 7}
NAMES, CONTEXTS = ("app", "other"), (None, "c")
partitions = st.integers(0, 1)
queries = st.integers(0, 7)
sums = st.tuples(*[st.floats(0.0, 1e6)] * 4)
happenings = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([EARLY_FEEDBACK_MS, HORIZON_MS / 2, HORIZON_MS, LATER_MS])),
    st.tuples(st.just("ask"), queries, partitions),
    st.tuples(st.just("tell"), queries, partitions, st.sampled_from([0, 1, 2, "text"]), st.booleans()),
    st.tuples(st.just("tell"), queries, partitions, st.floats(0.0, 1.0), st.booleans()),
    st.tuples(st.just("learn"), partitions, st.one_of(st.none(), st.integers(1, 3))),
    st.tuples(st.just("forget"), partitions, st.floats(0.0, 1.0)),
    st.tuples(st.just("restore"), st.sampled_from(NAMES), st.lists(sums, min_size=1, max_size=2)),
)


def happened(events):
    """A deployment to which these happened; most ids are asked, by one application or both, before anything is told."""
    at = Deployment(manifest(**FORGETS), manifest("other", loss="absolute"))
    for partition in range(2):
        for number in (0, 1, 2, 3, 4, 7):
            ask(at, number, partition)
    for what, *how in events:
        DOING[what](at, *how)
    for partition in range(2):
        at.learn(partition)
    return at


def tell(at, number, partition, truth, named):
    about = {"loss": truth} if isinstance(truth, float) else {"label": truth}
    about |= {"application": NAMES[number % 2]} if named else {}
    at.tell(f"q{number // 2}", partition=partition, **about)


def wait(at, ms):
    at.logs.now_ms += int(ms)


def restore(at, name, totals):
    rows = [
        SavedRow(partition=0, context=context, totals={"b:1": one})
        for context, one in zip(CONTEXTS, totals, strict=False)
    ]
    at.restore(name, rows, f"r-{len(at.logs.topics[CATALOGUE.control, 0]):016x}")


def forget(at, partition, share):
    if at.position(partition) >= 0:
        at.forget(round(share * (at.position(partition) + 1)), partition)


def ask(at, number, partition):
    name, context = NAMES[number % 2], CONTEXTS[number % 4 // 2]
    outputs = [("a:1", number % 3), ("b:1", number % 2)][: 1 + number % 3 % 2]
    at.ask(f"q{number // 2}", name, partition, context=context, outputs=outputs)


DOING = {
    "ask": ask,
    "tell": tell,
    "wait": wait,
    "restore": restore,
    "learn": Deployment.learn,
    "forget": forget,
}


def of_oracle(at):
    """The rows that the logs lead to, in bits."""
    rows = oracle.fold(
        at.logs.read_all(CATALOGUE.predictions),
        at.logs.read_all(CATALOGUE.feedback),
        {"app": {"policy": {"parameters": FORGETS}}, "other": {"loss": "absolute"}},
        control=at.logs.read_all(CATALOGUE.control),
        changelog=at.logs.read_all(CATALOGUE.selection_changelog),
    )
    return {key: row.bits for key, row in rows.items()}


def in_table(at):
    return {key: row.bits for key, row in oracle.table(at.logs.read_all(CATALOGUE.selection_changelog)).items()}


@settings(max_examples=60)
@given(st.lists(happenings, max_size=40))
def test_what_a_learner_wrote_is_equal(events):
    at = happened(events)
    found = verified(at)
    assert found.equal, found
    assert of_oracle(at) == in_table(at)


@settings(max_examples=40)
@given(st.lists(happenings, min_size=10, max_size=40), st.randoms(use_true_random=False))
def test_a_bit_that_is_flipped_in_any_row_is_found_in_that_row(events, random):
    at = happened(events)
    rows = [key for key, row in at.rows.items() if key[0] and row.totals]
    assume(rows)
    key = random.choice(rows)
    at.write(
        key[:2], flipped(msgspec.structs.replace(at.rows[key], offset=at.rows["", None, key[2]].offset + 1)), key[2]
    )
    (parting,) = verified(at).partings
    assert (parting.application, parting.context, parting.partition) == key


def forgets_from(offset, record):
    """Whether it is the note that contexts were forgotten behind feedback of this offset, or later."""
    row = None if record.value is None else decode_row(record.value)
    return record.partition != 0 or (row is not None and any(one.first >= offset for one in row.forgotten))


@settings(max_examples=40)
@given(st.lists(happenings, max_size=30), st.integers(0, 30), st.booleans())
def test_the_state_before_any_offset_is_that_of_a_log_that_ends_there(events, offset, compacted):
    at = happened(events)
    log = at.logs.topics.get((CATALOGUE.feedback, 0), [])
    offset = min(offset, len(log))
    changelog = [one for one in at.logs.read_all(CATALOGUE.selection_changelog) if not forgets_from(offset, one)]
    if compacted and log:
        at.logs.compact(CATALOGUE.selection_changelog, 0, dirty=0)
    found = asyncio.run(state_at(at.logs, CATALOGUE, "app", HORIZON_S, ends={0: offset, 1: 0}))
    at.logs.topics[CATALOGUE.feedback, 0] = log[:offset]
    expected = {
        key: row.totals
        for key, row in oracle.fold(
            at.logs.read_all(CATALOGUE.predictions),
            [one for one in at.logs.read_all(CATALOGUE.feedback) if one.partition == 0],
            {"app": {"policy": {"parameters": FORGETS}}, "other": {"loss": "absolute"}},
            control=at.logs.read_all(CATALOGUE.control),
            changelog=changelog,
        ).items()
        if key[0] == "app" and row.totals
    }
    by_model = {
        (row.context, model): (count, loss, weighted_loss, weighted_count)
        for row in found.rows
        for model, (count, loss, weighted_count, weighted_loss) in row.totals.items()
    }
    assert by_model == {
        (key[1], model): tuple(sums) for key, totals in expected.items() for model, sums in totals.items()
    }
