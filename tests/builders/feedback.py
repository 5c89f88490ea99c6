"""Predictions, feedback and the parts of a router that learning needs, in memory."""

import msgspec

from builders.decision_logs import answer
from builders.kafka import record
from clipper_topics import codec
from clipper_topics.feedback import Feedback
from clipper_topics.logged_records import LoggedRecord
from clipper_topics.prediction import PolicyRef, Prediction
from clipper_topics.selection_rows import NO_ROW

AT_MS = 1_000_000_000_000
"""When everything happens that is not said to happen at another time."""


def prediction(query_id, application="app", outputs=(("a:1", 1),), rows=None, **changes):
    """A prediction by models that were asked with certainty; `rows`: outputs of a query of several rows."""
    settings = dict(
        output=outputs[0][1] if outputs and rows is None else None,
        models=[answer(ref, output) for ref, output in outputs],
        policy=PolicyRef(name="exp4"),
        served_propensity=1.0,
        queried_at_ms=AT_MS,
    )
    several = {} if rows is None else {"outputs": rows}
    return Prediction(query_id=query_id, application=application, **(settings | several | changes))


def logged(offset, query_id, application="app", **changes):
    return LoggedRecord(offset, codec.predictions.encode(prediction(query_id, application, **changes)), msgpack=False)


def feedback(offset, query_id, label=1, partition=0, headers=(), **changes):
    settings = {} if {"loss", "reward"} & changes.keys() else {"label": label}
    found = Feedback(query_id=query_id, **(settings | changes))
    value = msgspec.json.encode(found)
    return record(offset, value, query_id.encode(), "clipper.feedback", partition, headers), found


class Rows(dict):
    """Selection rows by application and context."""

    def __call__(self, key):
        return self.get(key, NO_ROW)
