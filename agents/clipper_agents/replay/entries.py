"""Records of the feedback topic with what the other logs say about them."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from clipper_agents.control.state import DeclaredRestore
from clipper_agents.feedback.feedback_step import RefusedMarker, Restored, decode_feedback, is_marker, read_marker
from clipper_agents.kafka.reader import Record
from clipper_agents.replay.decision_index import DecisionIndex
from clipper_agents.replay.refold import Entry
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import UndecodableRecord
from clipper_topics.feedback import Feedback, said_at_ms
from clipper_topics.logged_records import LoggedRecord, audit_key, prediction_head, read_audit, read_prediction


class EntryReader:
    """Joins feedback of one partition with its decisions.

    Args:
        catalogue: The topics.
        decisions: Decisions of the partition.
        audits: Audits of the partition.
        restores: Declared restores, by id.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        decisions: DecisionIndex,
        audits: DecisionIndex,
        restores: Mapping[str, DeclaredRestore],
    ) -> None:
        self._partitions, self._restores = catalogue.partitions, restores
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
            (said.query_id, said.application, said_at_ms(record.timestamp, record.headers))
            for record, said in given
            if isinstance(said, Feedback)
        ]
        known = iter(self.decisions.find(asked))
        joined = [Entry(record, said, next(known) if isinstance(said, Feedback) else None) for record, said in given]
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

    def _with_audits(self, entries: list[Entry]) -> list[Entry]:
        keys = [_audit_key(one) for one in entries]
        found = iter(self._audits.first([key for key in keys if key is not None]))
        return [one if key is None else one._replace(audit=next(found)) for one, key in zip(entries, keys, strict=True)]


def _audit_key(entry: Entry) -> str | None:
    logged = entry.decision
    if logged is None or not logged.audited:
        return None
    head = prediction_head(logged)
    return audit_key(head.query_id, head.query_offset)


def _keyed(
    records: Iterable[Record], read: Callable[[Record], tuple[str, LoggedRecord] | None]
) -> list[tuple[str, LoggedRecord]]:
    return [one for one in map(read, records) if one is not None]
