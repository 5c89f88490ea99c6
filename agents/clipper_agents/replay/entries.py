"""Records of the feedback topic with what the other logs say about them."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from clipper_agents.control.state import DeclaredRestore
from clipper_agents.feedback.feedback_step import decode_feedback
from clipper_agents.feedback.restore_markers import RefusedMarker, Restored, is_marker, read_marker
from clipper_agents.kafka.reader import Record
from clipper_agents.replay.decision_index import DecisionIndex, KnownDecision
from clipper_agents.replay.refold import Entry
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import UndecodableRecord
from clipper_topics.feedback import Feedback
from clipper_topics.logged_records import LoggedRecord, audit_key, prediction_head, read_audit, read_prediction


class EntryReader:
    """Joins feedback of one partition with its decisions.

    Args:
        catalogue: The topics.
        decisions: Decisions of the partition.
        audits: Audits of the partition.
        restores: Declared restores, by id.
        orphans: Feedback offsets of the partition that the dead letters call orphans.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        decisions: DecisionIndex,
        audits: DecisionIndex,
        restores: Mapping[str, DeclaredRestore],
        orphans: Collection[int],
    ) -> None:
        self._partitions, self._restores, self._orphans = catalogue.partitions, restores, orphans
        self.decisions, self._audits = decisions, audits

    def add_predictions(self, records: Iterable[Record]) -> None:
        """Index records of the predictions topic."""
        self.decisions.add(_keyed(records, read_prediction))

    def add_audits(self, records: Iterable[Record]) -> None:
        """Index records of the audits topic."""
        self._audits.add(_keyed(records, read_audit))

    def entries(self, records: Iterable[Record]) -> list[Entry]:
        """Return the records that a learner can use, in log order."""
        given = list(self._readable(records))
        asked = [
            (said.query_id, said.application, record.timestamp) for record, said in given if isinstance(said, Feedback)
        ]
        known = iter(self.decisions.find(asked))
        joined = [
            self._joined(record, said, next(known)) if isinstance(said, Feedback) else Entry(record, said)
            for record, said in given
        ]
        return self._with_audits(joined)

    def _readable(self, records: Iterable[Record]) -> Iterator[tuple[Record, Feedback | Restored]]:
        for record in records:
            try:
                if is_marker(record):
                    yield record, read_marker(record, self._restores.get, self._partitions)
                else:
                    yield record, decode_feedback(record)
            except (RefusedMarker, UndecodableRecord):
                continue

    def _joined(self, record: Record, said: Feedback, known: KnownDecision | None) -> Entry:
        if known is None:
            return Entry(record, said)
        if record.offset in self._orphans:
            return Entry(record, said, contested=known.logged)
        return Entry(record, said, known.logged)

    def _with_audits(self, entries: list[Entry]) -> list[Entry]:
        keys = [_audit_key(one) for one in entries]
        wanted = [(key, None, one.record.timestamp) for key, one in zip(keys, entries, strict=True) if key is not None]
        if not wanted:
            return entries
        found = iter(self._audits.find(wanted))
        audits = [None if key is None else next(found) for key in keys]
        return [
            one if audit is None else one._replace(audit=audit.logged)
            for one, audit in zip(entries, audits, strict=True)
        ]


def counted_after_all(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries as if the decision of each that the dead letters call an orphan had been found."""
    return [
        one._replace(decision=one.contested, contested=None) if one.contested is not None else one for one in entries
    ]


def _audit_key(entry: Entry) -> str | None:
    logged = entry.decision or entry.contested
    if logged is None or not logged.audited:
        return None
    head = prediction_head(logged)
    return audit_key(head.query_id, head.query_offset)


def _keyed(
    records: Iterable[Record], read: Callable[[Record], tuple[str, LoggedRecord] | None]
) -> list[tuple[str, int, LoggedRecord]]:
    found = [(record.timestamp, read(record)) for record in records]
    return [(one[0], at_ms, one[1]) for at_ms, one in found if one is not None]
