"""The fold of one partition, step by step as the table's changelog has its steps.

Rules of this file:
- What is read between two steps is held until the step has been compared, so that another way of observing can be
  tried; beyond `MOST_HELD` it is folded as expected, and nothing is tried.
- Tried is only where a row that was equal until now is not: a row that has parted stays so whatever is tried.
"""

from collections.abc import Mapping, Sequence

from clipper_agents.feedback.feedback_step import Row
from clipper_agents.replay.config_inference import Choice, Choices, Observing
from clipper_agents.replay.entries import EntryReader, counted_after_all
from clipper_agents.replay.log_ranges import Cursor
from clipper_agents.replay.refold import Entry, KnownRows, Outcome, refold
from clipper_topics.feedback import Feedback
from clipper_topics.selection_rows import SelectionRow

MOST_HELD = 20_000
"""A few tens of megabytes."""
MOST_TRIED = 2_000_000
"""Feedbacks folded in vain, of a partition: about a minute."""
Wanted = Mapping[Row, SelectionRow]


class PartitionFold:
    """Rows as the logs lead to them.

    Args:
        cursor: Of the feedback.
        reader: Joins it with decisions.
        rows: Where to keep the rows.
        observing: Knows the ways.

    Attributes:
        rows: The rows so far.
        folded: Records so far.
        observing: As given.
    """

    def __init__(self, cursor: Cursor, reader: EntryReader, rows: KnownRows, observing: Observing) -> None:
        self._cursor, self._reader, self._index = cursor, reader, reader.decisions
        self.rows, self.observing = rows, observing
        self.folded = 0
        self._tries_left = MOST_TRIED

    async def credit(self, upto: int) -> None:
        """Note only which feedback counted, up to and with this offset."""
        async for records in self._cursor.through(upto):
            entries = [one for one in self._reader.entries(records) if isinstance(one.said, Feedback)]
            self._index.credit(self._folded(entries, {}).credited)

    async def advance(self, upto: int, wanted: Wanted, keep_upto: int | None = None) -> None:
        """Fold up to and with this offset.

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
                self._keep(self._folded(_upto(held, keep_upto), {}))
                held, wanted = [], {}
        if held:
            self._finish(held, wanted, keep_upto)

    def _finish(self, held: list[Entry], wanted: Wanted, keep_upto: int | None) -> None:
        entries, choices, outcome = self._fitting(held, wanted)
        if keep_upto is not None:
            outcome = self._folded(_upto(entries, keep_upto), choices)
        else:
            wrong = self._wrong(outcome, wanted)
            for name in {place[0] for place in wanted} - wrong:
                self.observing.settle(name, entries, choices)
        self._keep(outcome)

    def _fitting(self, held: list[Entry], wanted: Wanted) -> tuple[list[Entry], Choices, Outcome]:
        """The entries and ways that lead to the wanted rows, or what is expected when none do."""
        plain = held, dict[str, Choice](), self._folded(held, {})
        wrong = self._wrong(plain[2], wanted)
        if not wrong:
            return plain
        found = self._other_ways(held, wanted, plain)
        if self._wrong(found[2], wanted) and any(one.contested is not None for one in held):
            counted = counted_after_all(held)
            otherwise = self._other_ways(counted, wanted, (counted, {}, self._folded(counted, {})))
            if len(self._wrong(otherwise[2], wanted)) < len(self._wrong(found[2], wanted)):
                return otherwise
        return found

    def _other_ways(
        self, entries: list[Entry], wanted: Wanted, plain: tuple[list[Entry], dict[str, Choice], Outcome]
    ) -> tuple[list[Entry], dict[str, Choice], Outcome]:
        _, choices, outcome = plain
        for name in sorted(self._wrong(outcome, wanted)):
            for choice in self.observing.choices(name, entries):
                if self._tries_left < 0:
                    break
                self._tries_left -= len(entries)
                tried = self._folded(entries, choices | {name: choice})
                if name not in self._wrong(tried, wanted):
                    choices, outcome = choices | {name: choice}, tried
                    break
        return entries, choices, outcome

    def _folded(self, entries: Sequence[Entry], choices: Choices) -> Outcome:
        outcome = Outcome()
        for part, find in self.observing.pieces(entries, choices):
            refold(part, find, self.rows, self._index, outcome)
        return outcome

    def _wrong(self, outcome: Outcome, wanted: Wanted) -> set[str]:
        """Applications of which a row is not as wanted."""
        return {place[0] for place, row in wanted.items() if not self.rows.equal(place, row, outcome)}

    def _keep(self, outcome: Outcome) -> None:
        self.rows.keep(outcome)
        self._index.credit(outcome.credited)


def _upto(entries: Sequence[Entry], offset: int | None) -> list[Entry]:
    return [one for one in entries if offset is None or one.offset <= offset]
