"""The fold of one partition, step by step as the table's changelog has its steps.

Rules of this file:
- What is read between two steps is held until the step has been compared, so that feedback that the dead letters call
  an orphan can be counted after all; beyond `MOST_HELD` it is folded as it is, and nothing is tried.
"""

from collections.abc import Mapping, Sequence

from clipper_agents.feedback.feedback_step import Row
from clipper_agents.replay.entries import EntryReader, counted_after_all
from clipper_agents.replay.folded_configs import FoldedConfigs
from clipper_agents.replay.log_ranges import Cursor
from clipper_agents.replay.refold import Entry, KnownRows, RefoldOutcome, refold
from clipper_topics.feedback import Feedback
from clipper_topics.selection_rows import ForgottenContexts, SelectionRow

MOST_HELD = 20_000
"""A few tens of megabytes."""
Wanted = Mapping[Row, SelectionRow]


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
        forgotten: Contexts that were forgotten in the rows.
    """

    def __init__(self, cursor: Cursor, reader: EntryReader, rows: KnownRows, configs: FoldedConfigs) -> None:
        self._cursor, self._reader, self._index = cursor, reader, reader.decisions
        self.rows, self._configs = rows, configs
        self.folded = 0
        self.forgotten: set[ForgottenContexts] = set()

    async def credit(self, upto: int) -> None:
        """Note only which feedback counted, up to and including an offset."""
        async for records in self._cursor.through(upto):
            entries = [one for one in self._reader.entries(records) if isinstance(one.said, Feedback)]
            self._index.credit(self._folded(entries).credited)
        self._configs.unlogged.clear()

    async def forget(self, forgotten: Sequence[ForgottenContexts]) -> None:
        """Fold the feedback before each place where contexts were forgotten, and forget them."""
        for one in forgotten:
            if one not in self.forgotten:
                await self.advance(one.first - 1, {})
                self.rows.forget_contexts(one.before)
                self.forgotten.add(one)

    async def advance(self, upto: int, wanted: Wanted, keep_upto: int | None = None) -> None:
        """Fold the feedback up to and including an offset.

        Args:
            upto: A feedback offset.
            wanted: Rows of the table there.
            keep_upto: Keep only what entries up to and with this offset lead to; None: all.
        """
        held: list[Entry] = []
        wanted = {place: row for place, row in wanted.items() if self.rows.known(place)}
        async for records in self._cursor.through(upto):
            if keep_upto is None:
                self.folded += len(records)
            held += self._reader.entries(records)
            if len(held) > MOST_HELD:
                self._keep(self._folded(_upto(held, keep_upto)))
                held, wanted = [], {}
        if held:
            entries, outcome = self._fitting(held, wanted)
            self._keep(outcome if keep_upto is None else self._folded(_upto(entries, keep_upto)))

    def _fitting(self, held: list[Entry], wanted: Wanted) -> tuple[list[Entry], RefoldOutcome]:
        """Return the entries, with all orphans counted if that leads to more of the wanted rows, and their outcome."""
        outcome = self._folded(held)
        wrong = self._wrong(outcome, wanted)
        if wrong and any(one.contested is not None for one in held):
            counted = counted_after_all(held)
            otherwise = self._folded(counted)
            if self._wrong(otherwise, wanted) < wrong:
                return counted, otherwise
        return held, outcome

    def _folded(self, entries: Sequence[Entry]) -> RefoldOutcome:
        return refold(entries, self._configs.application, self.rows, self._index)

    def _wrong(self, outcome: RefoldOutcome, wanted: Wanted) -> int:
        """Return how many rows differ from the wanted ones."""
        return sum(not self.rows.equal(place, row, outcome) for place, row in wanted.items())

    def _keep(self, outcome: RefoldOutcome) -> None:
        self.rows.keep(outcome)
        self._index.credit(outcome.credited)


def _upto(entries: Sequence[Entry], offset: int | None) -> list[Entry]:
    return [one for one in entries if offset is None or one.offset <= offset]
