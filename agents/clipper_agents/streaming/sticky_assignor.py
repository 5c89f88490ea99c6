"""When a member joins or leaves, no partition moves between two that stay.

Faust's assignor cuts every member down to the smallest share and deals out what is left over, so that a third member
also made the other two swap partitions: each of those stalls until its state is restored elsewhere.
"""

from collections.abc import MutableMapping

from faust.assignor import partition_assignor
from faust.assignor.client_assignment import CopartitionedAssignment
from faust.assignor.copartitioned_assignor import CopartitionedAssignor


class FewestMoves(CopartitionedAssignor):  # type: ignore[misc]  # Faust is untyped
    """Shares differ by one partition at most, and whoever has more than its share keeps as much of it as it may.

    For apps without standby replicas (`table_standby_replicas=0`).
    """

    def get_assignment(self) -> MutableMapping[str, CopartitionedAssignment]:
        """Partitions by member, from what each had before."""
        self._unassign_overassigned(active=True)
        shares: MutableMapping[str, CopartitionedAssignment] = self._client_assignments
        members = sorted(shares.items(), key=lambda member: (-len(member[1].actives), member[0]))
        smallest, larger_ones = divmod(self.num_partitions, len(members))
        for place, (_, member) in enumerate(members):
            member.unassign_extras(smallest + (place < larger_ones), replicas=0)
        for partition in self._get_unassigned(active=True):
            _, least = min(members, key=lambda member: (len(member[1].actives), member[0]))
            least.assign_partition(partition, active=True)
        return shares


def install() -> None:
    """Have the leader of every group of this process assign like this."""
    partition_assignor.CopartitionedAssignor = FewestMoves  # pyright: ignore[reportPrivateImportUsage]
