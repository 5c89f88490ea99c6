"""Places of many queries together: by the cache that they are looked for in, and the keys that they have there."""

from collections.abc import Iterable, Sequence
from typing import Any

from clipper_stream.caching.keys import row_hashes
from clipper_stream.query.in_flight import InFlightQuery


class Hashes:
    """The hashes of rows, computed once for each block, whichever models are asked."""

    def __init__(self) -> None:
        self._by_block: dict[int, list[bytes]] = {}

    def keys(self, digest: bytes, owners: Sequence[InFlightQuery], places: Sequence[int]) -> list[bytes]:
        """The key of each row for one model version."""
        block, hashes = None, list[bytes]()
        keys = []
        for owner, place in zip(owners, places, strict=True):
            if owner.block is not block:
                block = owner.block
                hashes = self._of(block)
            keys.append(digest + hashes[owner.first + place % owner.count])
        return keys

    def _of(self, block: Any) -> list[bytes]:
        found = self._by_block.get(id(block))
        if found is None:
            found = self._by_block[id(block)] = row_hashes(block)
        return found


def by_cache(pendings: Iterable[InFlightQuery]) -> dict[tuple[int, str], tuple[list[InFlightQuery], list[int]]]:
    """Owners and places of all rows, by partition and model."""
    groups: dict[tuple[int, str], tuple[list[InFlightQuery], list[int]]] = {}
    for pending in pendings:
        partition, count = pending.query.partition, pending.count
        for model, ref in enumerate(pending.decision.models):
            group = groups.get((partition, ref))
            if group is None:
                group = groups[partition, ref] = [], []
            if count == 1:
                group[0].append(pending)
                group[1].append(model)
            else:
                group[0].extend([pending] * count)
                group[1].extend(range(model * count, (model + 1) * count))
    return groups
