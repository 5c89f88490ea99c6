"""Feedback of one partition folded once more, by the learner's own step.

Rules of this file:
- The step is `feedback_step.learn`. Here is what it is asked with: rows, decisions and credits.
- Where the beginning of the logs was deleted, a row is known from the first time on that the changelog holds it, or
  from a marker that set it. What feedback does to a row that is not known is dropped.
- An application that has always learned alike is known without the table. Of feedback before the first place that the
  table names, an older version has folded it, or more changes came than are kept: that cannot be verified, nor what
  came after it.
- A marker says the totals of a row, not how many feedbacks counted before: `uncounted` holds such rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import msgspec

from clipper_agents.control.state import ControlState
from clipper_agents.feedback.feedback_step import JoinedFeedback, Restored, Row, config_digest, learn
from clipper_agents.kafka.reader import Record
from clipper_agents.replay.decision_index import DecisionIndex
from clipper_stream.errors import ClipperError
from clipper_stream.query import Application
from clipper_stream.selection.registry import make_policy
from clipper_topics.feedback import Feedback
from clipper_topics.logged_records import LoggedRecord
from clipper_topics.manifests import ApplicationManifest
from clipper_topics.selection_rows import NO_ROW, NOT_DECLARED, SelectionRow, config_context, encode_row, note_row

Find: TypeAlias = Callable[[str, int], Application | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningConfigs:
    """The policies and losses that an application has ever had.

    Attributes:
        applications: The application as it learned, by digest, oldest first.
        deleted: Whether it does not exist now, or did not at some time: its feedback taught nothing then.
    """

    applications: Mapping[int, Application]
    deleted: bool

    @property
    def only(self) -> Application | None:
        """The application, when it has always learned alike."""
        return next(iter(self.applications.values())) if len(self.applications) == 1 and not self.deleted else None


def learning_configs(control: ControlState) -> dict[str, LearningConfigs]:
    """Return the learning configurations of each application by name; a manifest that routers refuse is none."""
    found = {}
    for name in sorted({*control.changes, *control.manifests.applications}):
        history = list(_manifests(control, name))
        applications = dict(one for manifest in history if manifest is not None for one in _learning(manifest))
        found[name] = LearningConfigs(
            applications=applications, deleted=None in history or name not in control.manifests.applications
        )
    return found


def _manifests(control: ControlState, name: str) -> Iterator[ApplicationManifest | None]:
    for number, change in enumerate(control.history(name).values()):
        if not number and change.before is not None:
            yield change.before
        yield change.after
    if name in control.manifests.applications:
        yield control.manifests.applications[name]


def _learning(manifest: ApplicationManifest) -> Iterator[tuple[int, Application]]:
    try:
        policy = make_policy(manifest.policy.name, manifest.policy.parameters)
    except (ClipperError, ArithmeticError, TypeError, ValueError):
        return
    yield config_digest(manifest), Application(name=manifest.name, candidates=(), policy=policy, loss=manifest.loss)


class FoldedConfigs:
    """Finds the application as it was when a feedback was folded.

    Args:
        configs: Of each application.
        notes: Of the table, by `config_context`; may be empty where each application has one configuration.

    Attributes:
        unlogged: Applications with feedback of which nothing says how it was folded.
    """

    def __init__(self, configs: Mapping[str, LearningConfigs], notes: Mapping[str | None, SelectionRow]) -> None:
        self._configs, self._notes = configs, notes
        self.unlogged: set[str] = set()

    def application(self, name: str, offset: int) -> Application | None:
        """Return the application as it learned from the feedback at an offset; None when it learned nothing."""
        known = self._configs.get(name)
        if known is None or known.only is not None:
            return None if known is None else known.only
        starts = self._notes.get(config_context(name), NO_ROW).configs
        config = next((one.config for one in reversed(starts) if one.first <= offset), None)
        if config is None or (config not in known.applications and config != NOT_DECLARED):
            self.unlogged.add(name)
            return None
        return known.applications.get(config)


class Entry(NamedTuple):
    """A record of the feedback topic, joined with its decision and audit.

    Attributes:
        record: The record.
        said: Its content.
        decision: The decision; None: the feedback is an orphan.
        audit: The audit of the decision.
    """

    record: Record
    said: Feedback | Restored
    decision: LoggedRecord | None = None
    audit: LoggedRecord | None = None

    @property
    def offset(self) -> int:
        """Offset of the record."""
        offset: int = self.record.offset
        return offset


@dataclass(slots=True)
class RefoldOutcome:
    """The outcome of folding entries, until it is kept.

    Attributes:
        rows: Rows that changed.
        credited: Which feedback counted, by the decision's offset.
    """

    rows: dict[Row, SelectionRow] = field(default_factory=dict)
    credited: dict[int, int] = field(default_factory=dict)


def same(one: SelectionRow, other: SelectionRow) -> bool:
    """Return whether two rows are equal in every bit: each float as its eight bytes, models in order."""
    return encode_row(one) == encode_row(other)


class KnownRows:
    """The rows of the fold so far, and which of them are known.

    Args:
        whole: Whether the fold began at the beginning, so that a row that is not here is empty.

    Attributes:
        rows: By application and context.
        uncounted: Rows of which it is not known how many feedbacks counted.
    """

    def __init__(self, *, whole: bool) -> None:
        self.whole = whole
        self.rows: dict[Row, SelectionRow] = {}
        self.uncounted: set[Row] = set()
        self._marked: dict[str, int] = {}

    def row(self, place: Row) -> SelectionRow:
        """Return the row; an empty one, as of the marker that emptied it if any, when it has no content."""
        found = self.rows.get(place)
        if found is None and not self.whole and place[0] in self._marked:
            return note_row(self._marked[place[0]])
        return NO_ROW if found is None else found

    def known(self, place: Row) -> bool:
        """Return whether the content of the row is known."""
        return self.whole or place in self.rows or place[0] in self._marked

    def marked(self, place: Row) -> bool:
        """Return whether a marker has set the row, or the note."""
        return place[0] in self._marked or (not place[0] and place[1] in self._marked)

    def forget(self, place: Row) -> None:
        """Forget the content of the row."""
        self.rows.pop(place, None)

    def forget_contexts(self, before: int) -> None:
        """Empty the rows with a context whose last change is before a feedback offset; they are known to be empty."""
        for (application, context), row in self.rows.items():
            if application and context is not None and row.offset < before:
                self.rows[application, context] = NO_ROW

    def start(self, place: Row, row: SelectionRow) -> None:
        """Set the row; it is known from now on."""
        self.rows[place] = row

    def equal(self, place: Row, live: SelectionRow, outcome: RefoldOutcome | None = None) -> bool:
        """Return whether a row of the table equals that of the fold, including an outcome that is not kept yet."""
        mine = (outcome.rows.get(place) if outcome is not None else None) or self.row(place)
        if not self.whole and (place in self.uncounted or place not in self.rows):
            mine = msgspec.structs.replace(mine, applied=live.applied)
        return same(mine, live)

    def counted(self, place: Row, live: SelectionRow) -> None:
        """Take the number of counted feedbacks from the table for a row that is equal otherwise."""
        if not self.whole:
            self.rows[place] = live
            self.uncounted.discard(place)

    def keep(self, outcome: RefoldOutcome) -> None:
        """Keep the outcome of folding entries."""
        for application, name in outcome.rows:
            if not application and name is not None and not self.whole:
                self._mark(name, outcome)
        self.rows |= {place: row for place, row in outcome.rows.items() if self.known(place)}

    def _mark(self, name: str, outcome: RefoldOutcome) -> None:
        set_first = {place for place in outcome.rows if place[0] == name and not self.known(place)}
        self.uncounted |= set_first
        self._marked[name] = outcome.rows["", name].offset
        self.rows["", name] = outcome.rows["", name]


def refold(entries: Sequence[Entry], find: Find, rows: KnownRows, index: DecisionIndex) -> RefoldOutcome:
    """Fold entries on top of the rows and the index, and return the outcome.

    Args:
        entries: In log order.
        find: Finds an application by its name, as it learned from the feedback at an offset.
        rows: The rows before; they are not changed.
        index: Knows which feedback counted.
    """
    feedback = [
        JoinedFeedback(one.record, one.said, one.decision, one.audit)
        for one in entries
        if isinstance(one.said, Feedback)
    ]
    step = learn(
        feedback,
        index.credits([one.decision.offset for one in feedback if one.decision is not None]),
        rows.row,
        find,
        [(one.record, one.said) for one in entries if isinstance(one.said, Restored)],
        lambda name: [place for place, row in rows.rows.items() if place[0] == name and row.offset >= 0],
    )
    return RefoldOutcome(rows=step.rows, credited=step.applied_feedback)
