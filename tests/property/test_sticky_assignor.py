"""Shares of a group are even, and stay where they are."""

from hypothesis import given
from hypothesis import strategies as st

from clipper_agents.streaming.membership import sticky_shares

GROUPS = st.lists(st.sets(st.sampled_from("abcdefgh"), min_size=1), min_size=1, max_size=8)


def assigned(before: dict[str, set[int]], members: set[str], partitions: int) -> dict[str, set[int]]:
    """What each member gets, after what it had."""
    shares = sticky_shares({name: before.get(name, set()) for name in members}, partitions)
    return {name: set(share) for name, share in shares.items()}


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
