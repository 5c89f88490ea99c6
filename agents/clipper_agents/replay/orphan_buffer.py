"""Audits and feedback that were read before the prediction that they are about: in memory up to a number, then on disk.

Rules of this file:
- They wait until the end: a query may have waited for a router for as long as it likes.
- What is taken out comes in the order in which it was put in.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rocksdict

from clipper_agents.replay.patches import AuditPatch, FeedbackPatch, decode_patches, encode_patches
from clipper_agents.streaming.rocksdb_options import options

Patch = AuditPatch | FeedbackPatch


class Early:
    """What waits for its prediction, by the query's id.

    Args:
        folder: For what memory has no room for; made when it is needed.
        most_in_memory: Ids in memory.
    """

    def __init__(self, folder: Path, most_in_memory: int) -> None:
        self._folder, self._most = folder, most_in_memory
        self._recent: dict[str, list[Patch]] = {}
        self._older: rocksdict.Rdict | None = None
        self.feedback_left = 0
        """Feedback that waits."""

    def __bool__(self) -> bool:
        return bool(self._recent) or self._older is not None

    def put(self, query_id: str, patch: Patch) -> None:
        """Keep it until the prediction is read."""
        self.feedback_left += isinstance(patch, FeedbackPatch)
        self._recent.setdefault(query_id, []).append(patch)
        if len(self._recent) > self._most:
            self._put_away()

    def take(self, ids: Sequence[str]) -> dict[str, list[Patch]]:
        """What waits for these queries; it waits no more."""
        found = self._taken_from_disk(ids) if self._older is not None else {}
        for query_id in self._recent.keys() & set(ids):
            found.setdefault(query_id, []).extend(self._recent.pop(query_id))
        self.feedback_left -= sum(isinstance(one, FeedbackPatch) for patches in found.values() for one in patches)
        return found

    def close(self) -> None:
        """Close the database, if there is one."""
        if self._older is not None:
            self._older.close()
            self._older = None

    def _put_away(self) -> None:
        if self._older is None:
            self._older = rocksdict.Rdict(str(self._folder), options())
        before = self._taken_from_disk(list(self._recent))
        for query_id, patches in self._recent.items():
            everything = [*before.get(query_id, ()), *patches]
            audits = [one for one in everything if isinstance(one, AuditPatch)]
            feedback = [one for one in everything if isinstance(one, FeedbackPatch)]
            self._older[query_id.encode()] = encode_patches(audits, feedback)
        self._recent = {}

    def _taken_from_disk(self, ids: Sequence[str]) -> dict[str, list[Patch]]:
        assert self._older is not None
        found: dict[str, list[Patch]] = {}
        contents: list[Any] = self._older.get([one.encode() for one in ids])  # type: ignore[assignment]  # a list's
        for query_id, content in zip(ids, contents, strict=True):
            if content is not None:
                audits, feedback = decode_patches(content)
                found[query_id] = [*audits, *feedback]
                del self._older[query_id.encode()]
        return found
