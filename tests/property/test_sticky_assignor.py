"""Shares of a group are even, and stay where they are."""

from faust.assignor.client_assignment import CopartitionedAssignment
from hypothesis import given
from hypothesis import strategies as st

from clipper_agents.streaming.app import StickyAssignor

GROUPS = st.lists(st.sets(st.sampled_from("abcdefgh"), min_size=1), min_size=1, max_size=8)


def assigned(before: dict[str, set[int]], members: set[str], partitions: int) -> dict[str, set[int]]:
    """What each member gets, after what it had."""
    topics = {"queries", "feedback"}
    had = {name: CopartitionedAssignment(actives=set(before.get(name, ())), topics=topics) for name in members}
    assignor = StickyAssignor(topics, had, num_partitions=partitions, replicas=0)
    return {name: set(share.actives) for name, share in assignor.get_assignment().items()}


@given(groups=GROUPS, partitions=st.integers(1, 24))
def test_every_partition_has_one_owner_shares_are_even_and_none_moves_between_two_that_stay(
    groups: list[set[str]], partitions: int
):
    before: dict[str, set[int]] = {}
    for members in groups:
        after = assigned(before, members, partitions)
        assert sorted(one for share in after.values() for one in share) == list(range(partitions))
        sizes = [len(share) for share in after.values()]
        assert max(sizes) - min(sizes) <= 1
        if members > before.keys():
            assert all(after[name] <= before[name] for name in before)
        if members < before.keys():
            assert all(after[name] >= before[name] for name in members)
        before = after


@given(partitions=st.integers(1, 24))
def test_a_partition_that_two_members_claim_goes_to_one_of_them(partitions: int):
    zombies = {"a": set(range(partitions)), "b": set(range(partitions))}
    after = assigned(zombies, {"a", "b"}, partitions)
    assert not after["a"] & after["b"]
    assert after["a"] | after["b"] == set(range(partitions))
