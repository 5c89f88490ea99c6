"""One partition of the logs folded once more, by the learner's own step on the router's own index.

Rules of this file:
- The step is `feedback_step.learn`. Here is what it is asked with: rows, decisions and which feedback counted.
- An application that has always learned alike is known without the table. Where the table does not name the policy and
  loss that feedback was folded under, more changes came than it keeps: that application cannot be verified.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Self

from clipper_agents.control.state import ControlState, DeclaredRestore
from clipper_agents.feedback.feedback_step import (
    JoinedFeedback,
    Row,
    config_digest,
    decode_feedback,
    is_marker,
    learn,
    read_markers,
)
from clipper_agents.kafka.reader import Record
from clipper_agents.router.decision_index import Asked, DecisionLookup, PartitionIndex
from clipper_stream.errors import ClipperError
from clipper_stream.query import Application
from clipper_stream.selection.registry import make_policy
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import UndecodableRecord
from clipper_topics.feedback import said_at_ms
from clipper_topics.logged_records import read_audit, read_prediction
from clipper_topics.manifests import ApplicationManifest
from clipper_topics.selection_rows import (
    NO_ROW,
    NOT_DECLARED,
    POSITION,
    ForgottenContexts,
    RowKey,
    SelectionRow,
    config_context,
    read_row,
)

_ONE_AGE_S = 0.0
"""Of all records: the index of a verification forgets nothing, so one database holds it."""


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
        return next(iter(self.applications.values())) if len(self.applications) == 1 and not self.deleted else None


def learning_configs(control: ControlState) -> dict[str, LearningConfigs]:
    """Return the learning configurations of each application by name; a manifest that routers refuse is none."""
    found = {}
    for name in sorted({*control.changes, *control.manifests.applications}):
        history = list(control.past_manifests(name))
        applications = dict(one for manifest in history if manifest is not None for one in _learning(manifest))
        found[name] = LearningConfigs(
            applications=applications, deleted=None in history or name not in control.manifests.applications
        )
    return found


def _learning(manifest: ApplicationManifest) -> Iterator[tuple[int, Application]]:
    try:
        policy = make_policy(manifest.policy.name, manifest.policy.parameters)
    except (ClipperError, ArithmeticError, TypeError, ValueError):
        return
    application = Application(name=manifest.name, candidates=(), policy=policy, loss=manifest.scaled_loss)
    yield config_digest(manifest), application


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationInputs:
    """What all partitions share, read once: policies and losses by application, and declared restores by id.

    The changelog's partitions end where they did before the other logs were looked at. A feedback counts for
    `horizon_s` seconds after its query.
    """

    catalogue: Catalogue
    configs: Mapping[str, LearningConfigs]
    restores: Mapping[str, DeclaredRestore]
    changelog_ends: Sequence[int]
    horizon_s: float


class SelectionTable:
    """The rows of one partition as its changelog tells them; of the rows with one key the last one counts.

    Attributes:
        rows: The rows, by application and context.
        configs: The policies and losses of each application, by `config_context`.
        misplaced: Rows whose key names another partition; no router reads them.
        forgotten: Where contexts were forgotten.
    """

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self.rows: dict[Row, SelectionRow] = {}
        self.configs: dict[str | None, SelectionRow] = {}
        self.misplaced: dict[RowKey, SelectionRow] = {}
        self.forgotten: set[ForgottenContexts] = set()

    @property
    def position(self) -> int:
        """The last feedback offset that is in the rows; -1 without any."""
        return self.rows.get(POSITION, NO_ROW).offset

    def take(self, records: Sequence[Record]) -> None:
        for record in records:
            read = read_row(record.key, record.value)
            if read is None:
                continue
            key, row = read
            place = (key.application, key.context)
            if key.partition != self._partition:
                if row is not None:
                    self.misplaced[key] = row
            elif row is None:
                self.rows.pop(place, None)
            elif row.configs:
                self.configs[key.context] = row
            else:
                self.rows[place] = row
                self.forgotten.update(row.forgotten)


class PartitionFold:
    """Folds the logs of one partition into rows; a context manager. Feedback comes last.

    The folder is empty, for the index of decisions. The table says where policies changed and contexts were forgotten.

    Attributes:
        rows: The rows so far, by application and context.
        folded: Feedback records so far.
        unlogged: Applications with feedback of which nothing says how it was folded.
    """

    def __init__(self, folder: Path, known: VerificationInputs, table: SelectionTable) -> None:
        self._known, self._configs = known, table.configs
        self._decisions = PartitionIndex(folder / "decisions", known.horizon_s)
        self._audits = PartitionIndex(folder / "audits", known.horizon_s)
        self._forgettings = sorted(table.forgotten, key=lambda one: one.first)
        self.rows: dict[Row, SelectionRow] = {}
        self.folded = 0
        self.unlogged: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._decisions.close()
        self._audits.close()

    def take_predictions(self, records: Sequence[Record]) -> None:
        """Index predictions, in log order."""
        found = [one for one in map(read_prediction, records) if one is not None]
        self._decisions.index(found, records[-1].offset, _ONE_AGE_S)

    def take_audits(self, records: Sequence[Record]) -> None:
        """Index audits, in log order."""
        found = [one for one in map(read_audit, records) if one is not None]
        self._audits.index(found, records[-1].offset, _ONE_AGE_S)

    def take_feedback(self, records: Sequence[Record]) -> None:
        """Fold feedback and markers, in log order."""
        rest = records
        while rest:
            stop = self._forgettings[0].first if self._forgettings else rest[-1].offset + 1
            count = bisect_left(rest, stop, key=attrgetter("offset"))
            if count:
                self._fold(rest[:count])
                rest = rest[count:]
            self.forget_contexts(stop if rest else 0)

    def forget_contexts(self, upto: int) -> None:
        """Forget the contexts that were forgotten before a feedback offset."""
        while self._forgettings and self._forgettings[0].first <= upto:
            before = self._forgettings.pop(0).before
            old = [place for place, row in self.rows.items() if all(place) and row.offset < before]
            for place in old:
                del self.rows[place]

    def _fold(self, records: Sequence[Record]) -> None:
        known = self._known
        markers, _ = read_markers(filter(is_marker, records), known.restores.get, known.catalogue.partitions)
        feedback = self._joined([record for record in records if not is_marker(record)])
        decided = [one.decision.offset for one in feedback if one.decision is not None]
        step = learn(
            feedback,
            dict(zip(decided, self._decisions.applied_feedback(decided), strict=True)),
            lambda place: self.rows.get(place, NO_ROW),
            self._application,
            markers,
            lambda name: [place for place in self.rows if place[0] == name],
        )
        self.rows |= step.rows
        self._decisions.note_applied_feedback(step.applied_feedback.items(), records[-1].offset, _ONE_AGE_S)
        self.folded += len(records)

    def _joined(self, records: Sequence[Record]) -> list[JoinedFeedback]:
        readable = []
        for record in records:
            try:
                said = decode_feedback(record)
            except UndecodableRecord:
                continue
            about: Asked = (said.query_id, said.application, said_at_ms(record.timestamp, record.headers))
            readable.append((record, said, about))
        known = DecisionLookup(self._decisions, self._audits, [about for *_, about in readable])
        return [
            JoinedFeedback(record, said, known.decisions[about], known.audits.get(about))
            for record, said, about in readable
        ]

    def _application(self, name: str, offset: int) -> Application | None:
        """Return the application as it learned from the feedback at an offset; None when it learned nothing."""
        known = self._known.configs.get(name)
        if known is None or known.only is not None:
            return None if known is None else known.only
        starts = self._configs.get(config_context(name), NO_ROW).configs
        config = next((one.config for one in reversed(starts) if one.first <= offset), None)
        if config is None or (config not in known.applications and config != NOT_DECLARED):
            self.unlogged.add(name)
            return None
        return known.applications.get(config)
