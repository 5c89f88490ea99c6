"""Whatever happened to a deployment, verifying says what the oracle says: equal, or where not."""

from builders.decision_logs import answer
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from unit.replay.deployment import HORIZON_MS, LATER_MS, Deployment, is_told_alike, manifest, verified

from clipper_topics.feedback import EARLY_FEEDBACK_MS
from clipper_topics.selection_rows import SavedRow

APPLICATIONS = (
    manifest(half_life=3.0, half_life_s=7),
    manifest("other", policy="lin_ucb", loss="absolute"),
    manifest("sure", policy="cascade", half_life=9.0),
)
NAMES, CONTEXTS = ("app", "other", "sure"), (None, "c")
FEATURES = ([0.1, -0.0, 1 / 3], [-2.5], [])
partitions = st.integers(0, 1)
queries = st.integers(0, 7)
truths = st.sampled_from([0, 1, 2, "text"]) | st.floats(0.0, 1.0)
sums = st.tuples(*[st.floats(0.0, 1e6)] * 4)
moments = st.sampled_from([0, 5, 14]).flatmap(lambda size: st.tuples(*[st.floats(-1e6, 1e6)] * size))
saved = st.dictionaries(st.sampled_from(["a:1", "b:1"]), st.tuples(sums, moments), max_size=2)
events = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([EARLY_FEEDBACK_MS, HORIZON_MS / 2, HORIZON_MS, LATER_MS])),
    st.tuples(st.just("ask"), queries, partitions),
    st.tuples(st.just("tell"), queries, partitions, truths, st.booleans()),
    st.tuples(st.just("learn"), partitions, st.none() | st.integers(1, 3), st.none() | st.integers(0, 6)),
    st.tuples(st.just("forget"), partitions, st.floats(0.0, 1.0)),
    st.tuples(st.just("restore"), st.sampled_from(NAMES), st.lists(saved, min_size=1, max_size=2)),
    st.tuples(st.just("declare_restore"), st.sampled_from(NAMES), st.lists(saved, max_size=2), st.booleans()),
    st.tuples(st.just("mark"), st.integers(0, 3)),
)


def happened(events):
    """A deployment to which these happened; most ids are asked, by one application or both, before anything is told."""
    at = Deployment(*APPLICATIONS)
    for partition in range(2):
        for number in (0, 1, 2, 3, 4, 7):
            ask(at, number, partition)
    for what, *how in events:
        DOING.get(what, getattr(Deployment, what))(at, *how)
    return at.learn(0).learn(1)


def ask(at, number, partition):
    outputs = [("a:1", number % 3), ("b:1", number % 2)][: 1 + number % 3 % 2]
    about = dict(context=CONTEXTS[number % 4 // 2], features=FEATURES[number // 2 % 3], outputs=outputs)
    if NAMES[number % 3] == "sure":
        said = zip(outputs, (1.0, 0.3), (0.96, None), strict=False)
        about["models"] = [answer(*output, chance, confidence=sure) for output, chance, sure in said]
    at.ask(f"q{number // 3}", NAMES[number % 3], partition, **about)


def tell(at, number, partition, truth, named):
    about = {"loss": truth} if isinstance(truth, float) else {"label": truth}
    about |= {"application": NAMES[number % 3]} if named else {}
    at.tell(f"q{number // 3}", partition=partition, **about)


def rows_of(totals):
    return [
        SavedRow(
            partition=0,
            context=context,
            totals={model: four for model, (four, _) in models.items()},
            moments={model: others for model, (_, others) in models.items() if others},
        )
        for context, models in zip(CONTEXTS, totals, strict=False)
    ]


def restore(at, name, totals):
    at.restore(rows_of(totals), name)


def declare_restore(at, name, totals, wrong):
    at.declare_restore(rows_of(totals), name, {"0": "0" * 64} if wrong else None)


def forget(at, partition, share):
    if at.position(partition) >= 0:
        at.forget(round(share * (at.position(partition) + 1)), partition)


DOING = {"ask": ask, "tell": tell, "restore": restore, "declare_restore": declare_restore, "forget": forget}
ZEROS = [{"a:1": ((0.0,) * 4, (-0.0,) * 14)}]


@settings(max_examples=80)
@example([("restore", "app", ZEROS), ("tell", 0, 0, 0, True)])
@given(st.lists(events, max_size=40))
def test_what_a_learner_wrote_is_equal_whenever_it_crashed(events):
    assert is_told_alike(happened(events))


@settings(max_examples=40)
@given(st.lists(events, min_size=10, max_size=40), st.randoms(use_true_random=False))
def test_a_bit_that_is_flipped_in_any_row_is_found_in_that_row(events, random):
    at = happened(events)
    rows = [key for key, row in at.rows.items() if key[0] and row.totals]
    assume(rows)
    *place, partition = key = random.choice(rows)
    at.falsify(at.position(partition) + 1, place, partition)
    (parting,) = verified(at).partings
    assert (parting.application, parting.context, parting.partition) == key
