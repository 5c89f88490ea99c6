"""Does every feedback still name its query, and no other, whatever ids, keys and partition counts there are?"""

from builders.rerun import feedback, query, resending, said
from hypothesis import given
from hypothesis import strategies as st

from clipper_agents.replay.run_ids import NewIds
from clipper_topics.query import ID_CHARACTERS

TEXT = st.characters(exclude_categories=["Cs"])
PARTITIONS = st.integers(0, 3)
MADE = st.builds("{}-{}".format, st.integers(0, 9), st.integers(0, 9)) | st.sampled_from(["a", "a~r1", "0@0~r1"])
IDS = MADE | st.text(TEXT, min_size=1, max_size=ID_CHARACTERS) | st.none()
QUERIES = st.lists(st.tuples(PARTITIONS, IDS, st.none() | st.binary(min_size=1, max_size=4)), min_size=1, max_size=12)


@given(queries=QUERIES, partitions=st.integers(1, 6))
def test_feedback_names_the_query_that_it_named_and_reaches_its_partition(queries, partitions):
    run, asked = resending(partitions=partitions), {}
    for offset, (partition, query_id, key) in enumerate(queries):
        old = query_id or f"{partition}@{offset}"
        sent = run.copy(query(offset, partition, key, query_id=query_id))
        asked[partition, old] = sent  # of two with one id in one partition the later one's place is known
    for (partition, old), sent in asked.items():
        told = run.copy(feedback(0, old, partition, key=None))
        assert told.partition == sent.partition
        assert said(told)["query_id"] == said(sent)["query_id"]


@given(st.sets(IDS.filter(bool), max_size=12))
def test_different_queries_have_different_new_ids_and_none_is_too_long(queries):
    new = {*map(NewIds("r1"), queries)}
    assert len(new) == len(queries)
    assert all(len(one) <= ID_CHARACTERS for one in new)
