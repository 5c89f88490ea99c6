"""What an application may send: the tables of `bad_input` are refused by the checks, in either encoding."""

import math

import msgspec
import pytest
from bad_input import INVALID_FEEDBACK, INVALID_QUERIES, NO_NUMBERS, VALID_FEEDBACK, VALID_QUERIES

from clipper_agents.router.queries import is_plain
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.feedback import Feedback, check_feedback
from clipper_topics.query import check_query

QUERY, FEEDBACK = {"application": "digits", "query_id": "0-1"}, {"query_id": "0-1"}


def read(reader, content):
    """The record as each encoding brings it."""
    yield reader.decode(msgspec.json.encode(content))
    yield reader.decode(msgspec.msgpack.encode(content), codec.MSGPACK_HEADERS)


@pytest.mark.parametrize(("fields", "said"), INVALID_QUERIES + NO_NUMBERS)
def test_a_query_that_cannot_be_used_is_told_what_to_do(fields, said):
    query = codec.queries.decode(msgspec.msgpack.encode(QUERY | fields), codec.MSGPACK_HEADERS)
    assert said in check_query(query)
    assert not is_plain(query)


@pytest.mark.parametrize("fields", VALID_QUERIES)
def test_a_query_that_can_be_used_passes(fields):
    plain = fields.keys() == {"input"}
    for query in read(codec.queries, QUERY | fields):
        assert (check_query(query), is_plain(query)) == (None, plain)


def test_feedback_with_exactly_one_truth_passes_and_any_other_is_told_what_to_do():
    for fields, said in [*INVALID_FEEDBACK, ({"reward": math.nan}, "reward is nan")]:
        assert said in check_feedback(Feedback(**FEEDBACK | fields)), fields
    for fields in VALID_FEEDBACK:
        assert [check_feedback(found) for found in read(codec.feedback, FEEDBACK | fields)] == [None, None], fields


def test_every_topic_says_how_it_is_compressed_whatever_the_default_of_a_cluster_is():
    topics = Catalogue()
    specs = [*topics.fixed_topics(), topics.requests_topic("svm", "2", 1)]
    stored = {spec.name: spec.config["compression.type"] for spec in specs}
    plain = {name for name, kind in stored.items() if kind == "uncompressed"}
    assert plain == {topics.queries, topics.feedback, topics.control}
    assert set(stored.values()) == {"uncompressed", "producer"}
