from io import BytesIO

import pytest
from aiokafka.protocol.fetch import FetchRequest, FetchRequest_v11, FetchResponse_v11
from aiokafka.protocol.produce import ProduceRequest, ProduceRequest_v7, ProduceResponse_v7
from hypothesis import given
from hypothesis import strategies as st

from clipper_agents.kafka.fetch_sessions import (
    LAST_EPOCH,
    FetchSession,
    PackedProduceRequest,
    SessionFetchRequest,
)

VERSIONS = {0: (3, 13), 1: (4, 18)}
LONG = st.integers(-(2**63), 2**63 - 1)
INT = st.integers(-(2**31), 2**31 - 1)
SHORT = st.integers(-(2**15), 2**15 - 1)
NAME = st.text(max_size=20)
A, B, C = ("queries", 0), ("queries", 1), ("outputs", 0)


def topics(*partition):
    found = st.lists(st.tuples(*partition), max_size=4, unique_by=lambda one: one[0])
    return st.dictionaries(NAME, found, max_size=4).map(lambda by_topic: [*by_topic.items()])


def encoded(built):
    return built.build_request_header(correlation_id=7, client_id="a client").encode() + built.encode()


@given(topics(INT, LONG, INT), NAME)
def test_the_first_fetch_of_a_session_is_that_of_aiokafka_with_its_first_epoch(wanted, rack):
    wanted = [(topic, partitions) for topic, partitions in wanted if partitions]
    arguments = (500, 1, 1 << 20, 1, wanted, rack)
    request = SessionFetchRequest(*arguments)
    request.session = FetchSession()
    theirs = FetchRequest(*arguments).build(FetchRequest_v11)
    theirs.session_epoch = 0
    assert encoded(request.prepare(VERSIONS)) == encoded(theirs)


ABORTED = st.none() | st.lists(st.tuples(LONG, LONG), max_size=2)


@given(topics(INT, SHORT, LONG, LONG, LONG, ABORTED, INT, st.binary()))
def test_an_answer_to_a_fetch_is_read_as_by_aiokafka(found):
    content = FetchResponse_v11(0, 0, 5, found).encode()
    wanted = [(topic, [(number, 8, 9) for number, *_ in partitions]) for topic, partitions in found]
    request = SessionFetchRequest(500, 1, 1, 1, [*wanted, ("another", [(0, 1, 2)])])
    request.session = FetchSession()
    built = request.prepare(VERSIONS)
    answer = BytesIO((7).to_bytes(4, "big") + content)
    assert built.parse_response_header(answer).correlation_id == 7
    assert built.RESPONSE_TYPE.decode(answer).topics == FetchResponse_v11.decode(content).topics
    assert (request.session.number, request.session.epoch) == (5, 1)
    assert request.topics == wanted, "aiokafka looks at these alone"


@given(topics(INT, st.binary()), st.none() | NAME)
def test_a_produce_request_and_its_answer_are_those_of_aiokafka(batches, transaction):
    arguments = (transaction, -1, 5_000, batches)
    built = PackedProduceRequest(*arguments).prepare(VERSIONS)
    assert encoded(built) == encoded(ProduceRequest(*arguments).build(ProduceRequest_v7))
    stored = [(topic, [(partition, 3, 2**40, -1, 9) for partition, _ in found]) for topic, found in batches]
    answer = ProduceResponse_v7(stored, 0).encode()
    assert built.decode(BytesIO(answer)).topics == ProduceResponse_v7.decode(answer).topics


def test_a_fetch_names_what_is_new_or_moved_and_has_the_rest_left_out():
    session = FetchSession()
    for wanted, named, left_out, epoch in [
        ({A: (5, 9), B: (7, 9)}, {A: (5, 9), B: (7, 9)}, [], 1),
        ({A: (5, 9), B: (8, 9)}, {B: (8, 9)}, [], 2),
        ({A: (5, 9), C: (0, 9)}, {C: (0, 9)}, [B], 3),
        ({A: (5, 9), B: (8, 9), C: (0, 9)}, {B: (8, 9)}, [], 4),
    ]:
        assert session.next(wanted) == (named, left_out)
        session.answered(0, 12)
        assert (session.number, session.epoch) == (12, epoch)
    session.epoch = LAST_EPOCH
    session.answered(0, 12)
    assert session.epoch == 1


@pytest.mark.parametrize("answer", [(70, 0), (0, 0), None], ids=["an error", "no session", "no answer"])
def test_a_session_begins_anew_with_all_its_partitions(answer):
    session = FetchSession()
    session.next({A: (5, 9)})
    session.answered(0, 12)
    session.next({A: (6, 9)})
    if answer is not None:
        session.answered(*answer)
    assert session.next({A: (6, 9), B: (1, 9)}) == ({A: (6, 9), B: (1, 9)}, [])
    assert (session.number, session.epoch) == (12, 0), "the broker forgets the earlier one"


FETCH, PRODUCE = (500, 1, 1, 1, [("t", [(0, 1, 2)])]), (None, -1, 5, [("t", [(0, b"x")])])


@pytest.mark.parametrize(
    ("ours", "theirs", "arguments"),
    [(SessionFetchRequest, FetchRequest, FETCH), (PackedProduceRequest, ProduceRequest, PRODUCE)],
)
@pytest.mark.parametrize("versions", [{0: (0, 6), 1: (0, 10)}, {0: (8, 9), 1: (12, 13)}])
def test_a_broker_of_other_versions_gets_what_aiokafka_sends(ours, theirs, arguments, versions):
    def sent(request):
        request.session = FetchSession()
        try:
            return request.prepare(versions).encode()
        except NotImplementedError as error:
            return str(error)[-25:]

    assert sent(ours(*arguments)) == sent(theirs(*arguments))
