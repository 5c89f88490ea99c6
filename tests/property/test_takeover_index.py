"""The index of decisions in the model of takeover does what that of routers does."""

from pathlib import Path
from tempfile import TemporaryDirectory

from builders.feedback import logged
from hypothesis import example, given, settings
from hypothesis import strategies as st
from takeover import index
from takeover.state import HORIZON, TICK_MS, Prediction, Query

from clipper_agents.router.decision_index import PartitionIndex

TIMES = range(9)
QUERIES = range(2)
ASKED = [Query(query, at) for query in QUERIES for at in TIMES]
TICK_S = TICK_MS / 1000


@st.composite
def predictions(draw):
    """Predictions in log order, each some time after its query."""
    times = sorted(draw(st.lists(st.sampled_from(TIMES[:-1]), min_size=1, max_size=6)))
    return [
        Prediction(draw(st.sampled_from(QUERIES)), offset, offset, draw(st.integers(0, at)), at)
        for offset, at in enumerate(times)
    ]


STEPS = {"index": range(1, 4), "note": TIMES, "forget": TIMES, "start again": [0]}
steps = st.one_of(*(st.tuples(st.just(step), st.sampled_from(numbers)) for step, numbers in STEPS.items()))


@settings(max_examples=30, deadline=None)
@given(predictions(), st.lists(steps, max_size=8))
@example([Prediction(0, 0, 0)], [("index", 1), ("note", 4), ("forget", 4), ("start again", 0)])
def test_the_index_of_the_model_is_that_of_routers(log, done):
    with TemporaryDirectory() as folder:
        routers, model = PartitionIndex(Path(folder), HORIZON * TICK_S), ()
        for told, (step, number) in enumerate(done):
            if step == "index":
                model = indexed(routers, model, log, number)
            elif step == "note":
                counted = [(offset, told) for offset in range(0, index.indexed_upto(model) + 1, 2)]
                routers.note_applied_feedback(counted, told, number * TICK_S)
                model = index.with_notes(model, counted, told, number)
            elif step == "start again":
                routers.close()
                routers = PartitionIndex(Path(folder), HORIZON * TICK_S)
            else:
                routers.forget_before(number * TICK_S)
                model = index.without_old(model, number)
            assert seen_in_routers(routers, log) == seen_in_model(model, log)
        routers.close()


def indexed(routers, model, log, count):
    first = index.indexed_upto(model) + 1
    offsets = range(first, min(first + count, len(log)))
    if offsets:
        records = [(name(log[one].query), of(one, log[one])) for one in offsets]
        routers.index(records, offsets[-1], log[offsets[-1]].at * TICK_S)
    return index.with_predictions(model, log, offsets)


def seen_in_routers(routers, log):
    asked = [(name(query), "app", at * TICK_MS) for query, at in ASKED]
    decided = [one.logged.offset if one and one.own else None for one in routers.decided(asked)]
    about = [one and one.offset for one in routers.about(asked)]
    noted = routers.applied_feedback(range(len(log)))
    return decided, about, noted, sorted(routers._ages), routers.last_offset, routers.applied_feedback_upto


def seen_in_model(model, log):
    decided = [index.decision_of(model, log, one) for one in ASKED]
    about = [index.decision_about(model, log, one) for one in ASKED]
    noted = [index.notes(model).get(offset) for offset in range(len(log))]
    ages = [age.number for age in model]
    return decided, about, noted, ages, index.indexed_upto(model), index.noted_upto(model)


def name(query):
    return f"query {query}"


def of(offset, prediction):
    return logged(offset, name(prediction.query), queried_at_ms=prediction.queried_at * TICK_MS)
