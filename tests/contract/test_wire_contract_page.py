"""What the page about the wire contract shows can be sent and read, and names what there is."""

import re
from pathlib import Path

import pytest

from clipper_stream.client import errors
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.feedback import OUTCOMES, Feedback, FeedbackAck, check_feedback
from clipper_topics.prediction import REASONS, Prediction
from clipper_topics.query import Query, check_query

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "wire-contract.md").read_text(encoding="utf-8")


def shown(name):
    """Key and value of the example below this mark; its lines are one record."""
    block = re.search(rf"<!-- {name} -->\n((?:    .*\n)+)", PAGE)
    assert block
    key, _, value = "".join(line.strip(" \n") + " " for line in block[1].splitlines()).rpartition("\t")
    return key, value.encode()


def test_the_query_and_the_feedback_can_be_sent_under_their_context_as_key():
    (query_key, query), (feedback_key, feedback) = shown("query"), shown("feedback")
    asked, learned = codec.queries.decode(query), codec.feedback.decode(feedback)
    assert check_query(asked) is None
    assert check_feedback(learned) is None
    assert query_key == feedback_key == asked.context == learned.context
    assert asked.query_id == learned.query_id


def test_the_prediction_can_be_read():
    _, value = shown("prediction")
    assert codec.predictions.decode(value).output == 3


def test_the_page_lists_the_reasons_with_their_meanings():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE))
    assert {reason: rows.get(reason) for reason in REASONS} == REASONS
    assert {outcome: rows.get(outcome) for outcome in OUTCOMES} == OUTCOMES


@pytest.mark.parametrize("record", [Query, Prediction, Feedback, FeedbackAck])
def test_the_page_names_every_field(record):
    assert [name for name in record.__struct_fields__ if f"`{name}`" not in PAGE] == []


def test_the_page_names_the_topics_and_the_errors():
    topics = Catalogue()
    written = (topics.queries, topics.predictions, topics.feedback, topics.feedback_acks)
    for name in (*written, topics.control, topics.comparisons, topics.dead_letters, *codec.ECHOED):
        assert f"`{name}`" in PAGE
    for name, error in vars(errors).items():
        if isinstance(error, type) and error.__module__ == errors.__name__:
            assert f"`{name}`" in PAGE
