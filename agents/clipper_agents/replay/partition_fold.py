"""The fold of one partition, step by step as the table's changelog has its steps."""

from collections.abc import Sequence

from clipper_agents.replay.entries import EntryReader
from clipper_agents.replay.folded_configs import FoldedConfigs
from clipper_agents.replay.log_ranges import Cursor
from clipper_agents.replay.refold import Entry, KnownRows, RefoldOutcome, refold
from clipper_topics.feedback import Feedback


class PartitionFold:
    """Folds the feedback of one partition into rows.

    Args:
        cursor: Reads the feedback.
        reader: Joins feedback with decisions.
        rows: Keeps the rows.
        configs: Knows under which policy and loss each feedback was folded.

    Attributes:
        rows: The rows so far.
        folded: Records so far.
    """

    def __init__(self, cursor: Cursor, reader: EntryReader, rows: KnownRows, configs: FoldedConfigs) -> None:
        self._cursor, self._reader, self._index = cursor, reader, reader.decisions
        self.rows, self._configs = rows, configs
        self.folded = 0

    async def credit(self, upto: int) -> None:
        """Note only which feedback counted, up to and including an offset."""
        async for records in self._cursor.through(upto):
            entries = [one for one in self._reader.entries(records) if isinstance(one.said, Feedback)]
            self._index.credit(self._folded(entries).credited)
        self._configs.unlogged.clear()

    async def advance(self, upto: int) -> None:
        """Fold the feedback up to and including an offset."""
        async for records in self._cursor.through(upto):
            self.folded += len(records)
            outcome = self._folded(self._reader.entries(records))
            self.rows.keep(outcome)
            self._index.credit(outcome.credited)

    def _folded(self, entries: Sequence[Entry]) -> RefoldOutcome:
        return refold(entries, self._configs.application, self.rows, self._index)
