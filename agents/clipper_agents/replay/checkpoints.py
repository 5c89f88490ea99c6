"""The selection table as its changelog tells it, step by step: each step that is still there can be checked.

Rules of this file:
- Of the rows with one key the last one counts, as for the routers' table.
- A position row ends a step: all rows up to its offset are what the feedback up to it leads to. A row beyond it, of a
  step that was cut in two before steps were transactions, waits for a position that reaches it.
- Compaction removes old rows of a key, the position's before or with those of the step that it ended. So between two
  positions that are left, a row that is left is the last of its key.
"""

from dataclasses import dataclass
from typing import Any

from aiokafka import ConsumerRecord

from clipper_agents.feedback.feedback_step import Row
from clipper_topics.selection_rows import POSITION, ForgottenContexts, RowKey, SelectionRow, read_row


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedStep:
    """The rows that the table held at a position.

    Attributes:
        position: Feedback offset up to which the rows hold everything.
        rows: Rows written since the previous position.
        forgotten: Which contexts were forgotten so far.
    """

    position: int
    rows: dict[Row, SelectionRow]
    forgotten: tuple[ForgottenContexts, ...]


class Checkpoints:
    """The rows of one changelog partition, read record by record.

    Args:
        partition: Number of the partition.

    Attributes:
        live: The newest rows, by application and context.
        configs: The policies and losses of each application, by `config_context`.
        misplaced: Rows whose key names another partition; no router reads them.
    """

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self.live: dict[Row, SelectionRow] = {}
        self.configs: dict[str | None, SelectionRow] = {}
        self.misplaced: dict[RowKey, SelectionRow] = {}
        self._waiting: dict[Row, SelectionRow] = {}

    @property
    def position(self) -> int:
        """The last feedback offset that is in the rows; -1 without any."""
        return self.live[POSITION].offset if POSITION in self.live else -1

    @property
    def ahead(self) -> dict[Row, SelectionRow]:
        """Rows behind the last position, by offset."""
        return dict(sorted(self._waiting.items(), key=lambda item: item[1].offset))

    def take(self, record: ConsumerRecord[Any, Any]) -> LearnedStep | None:
        """Take in a changelog record, and return the learning step that it ends, if it ends one."""
        read = read_row(record.key, record.value)
        if read is None:
            return None
        key, row = read
        if key.partition != self._partition:
            if row is not None:
                self.misplaced[key] = row
            return None
        place = (key.application, key.context)
        if row is None:
            self.live.pop(place, None)
            self._waiting.pop(place, None)
            return None
        if row.configs:
            self.configs[key.context] = row
            return None
        self.live[place] = row
        if place != POSITION:
            self._waiting[place] = row
            return None
        reached = {place: one for place, one in self._waiting.items() if one.offset <= row.offset}
        for one in reached:
            del self._waiting[one]
        return LearnedStep(position=row.offset, rows=reached, forgotten=row.forgotten)
