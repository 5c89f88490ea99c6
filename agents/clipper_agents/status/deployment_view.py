"""What a deployment's records say of it, kept up to date record by record: a fold without Kafka.

Rules of this file:
- What cannot be read is left out: whoever can write to a topic must not be able to stop everybody from looking.
"""

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from clipper_agents.control.host_reports import one_line
from clipper_agents.control.manifest_text import change_text
from clipper_agents.control.readiness import HostStates
from clipper_agents.control.selection_states import state_of
from clipper_agents.control.state import ControlState
from clipper_stream.selection.state import SelectionState, merge
from clipper_topics import codec
from clipper_topics.change import Change
from clipper_topics.codec import Headers, UndecodableRecord
from clipper_topics.comparison import Comparison
from clipper_topics.drift import DriftEvent
from clipper_topics.errors import UnknownRowVersion
from clipper_topics.selection_rows import RowKey, SelectionRow, read_row, set_row

KEPT_EVENTS = 100
"""Shown are the last few; what is older is in the topics."""

COMPARED_WITHIN_S = 150.0
"""A steward writes each comparison once a minute: after two that did not come, there is none at work."""

Totals = dict[RowKey, SelectionRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentEvent:
    """Something that happened to a deployment, in one line; without an application, a host reported."""

    at_s: float
    application: str | None = None
    text: str


@dataclass(slots=True)
class DeploymentView:
    """Manifests, changes, hosts and selection totals, as they are now.

    Attributes:
        declared: What the control topic says: manifests, changes and detections.
        published: Totals without context.
        comparisons: What the steward wrote last, by application and version, and when, seconds since the epoch.
        events: The last changes and hosts' reports in order of time, the newest last.
    """

    declared: ControlState = field(default_factory=lambda: ControlState(notes=("change", "drift"), saved_rows=False))
    hosts: HostStates = field(default_factory=HostStates)
    published: Totals = field(default_factory=dict)
    comparisons: dict[tuple[str, str], tuple[Comparison, float]] = field(default_factory=dict)
    _partitions: set[int] = field(default_factory=set)
    _states: dict[str, SelectionState] = field(default_factory=dict)
    events: list[DeploymentEvent] = field(default_factory=list)

    # --- records ----------------------------------------------------------------------------------------------------
    def control(self, key: bytes | None, value: bytes | None, headers: Headers = (), offset: int = -1) -> None:
        """Take a record of the control topic in: a manifest, a change, or a note of another kind."""
        match self.declared.apply(key, value, list(headers), offset=offset):
            case Change() as change:
                self._note(change.at_ms / 1000, change_text(change), change.application)
            case DriftEvent() as drift:
                self._note(drift.at_ms / 1000, drift_described(drift), drift.application)

    def host(self, key: bytes | None, value: bytes | None, headers: Headers = (), at_s: float = 0.0) -> None:
        """Take a record of the hosts topic in, with its timestamp; an empty value: the host has left."""
        try:
            report = self.hosts.apply(key, value, list(headers))
        except UndecodableRecord:
            return
        if report is None:
            return
        host = f"host {report.instance} of {report.model}" if report.model else f"router {report.instance}"
        if not value:
            self._note(at_s, f"{host} left")
            return
        why = f": {one_line(report.reason)}" if report.reason else ""
        self._note(report.at_ms / 1000 or at_s, f"{host} is {report.state}{why}")

    def totals(self, key: bytes | None, value: bytes | None) -> None:
        found = _row(key, value)
        if found is not None and found[0].application and found[0].context is None:
            place, row = found
            self._partitions.add(place.partition)
            self._states.pop(place.application, None)
            set_row(self.published, place, row)

    def comparison(self, key: bytes | None, value: bytes | None, headers: Headers = (), at_s: float = 0.0) -> None:
        """Take a record of the comparisons topic in, with its timestamp; an empty value: it is compared no more."""
        name, _, model = (key or b"").decode("utf-8", "replace").partition("/")
        try:
            found = codec.comparisons.decode(value, headers) if value else None
        except UndecodableRecord:
            return
        if found is None:
            self.comparisons.pop((name, model), None)
        else:
            self.comparisons[found.application, found.model] = found, at_s

    def _note(self, at_s: float, text: str, application: str | None = None) -> None:
        insort(self.events, DeploymentEvent(at_s=at_s, application=application, text=text), key=attrgetter("at_s"))
        del self.events[:-KEPT_EVENTS]

    # --- what they say together -------------------------------------------------------------------------------------
    def state(self, application: str) -> SelectionState:
        """Totals of the application's models, of all queries without a context."""
        if (known := self._states.get(application)) is None:
            rows = self.published
            keys = (RowKey(application, None, partition) for partition in sorted(self._partitions))
            known = self._states[application] = merge(state_of(rows[key]) for key in keys if key in rows)
        return known

    def fresh_comparison(self, of: tuple[str, str], now_s: float) -> Comparison | None:
        """The steward's comparison of a version of an application; None where none was written lately."""
        found, at_s = self.comparisons.get(of, (None, 0.0))
        return found if at_s >= now_s - COMPARED_WITHIN_S else None

    @property
    def metrics_addresses(self) -> set[str]:
        """Addresses, `host:port`, of the metrics of the hosts that say so."""
        return {one.metrics for one in self.hosts.reports.values() if one.metrics is not None}

    def changes_of(self, application: str) -> Sequence[Change]:
        """Its changes, the newest first."""
        return [*self.declared.history(application).values()][::-1]


def drift_described(found: DriftEvent) -> str:
    """A detection in one line.

    >>> losses = {"losses": 1344, "after": 57, "loss_before": 0.04, "loss_after": 0.31}
    >>> place = {"revision": 2, "topic": "clipper.feedback", "partition": 3, "offset": 812}
    >>> about = {"application": "digits", "model": "svm:1", "at_ms": 0, "detector": "adwin"}
    >>> drift_described(DriftEvent(**about, **losses, **place))
    'loss of svm:1 for digits has risen from 0.040 to 0.310 (adwin by the hour of day, 57 losses ago)'
    """
    context = "" if found.context is None else f" in context {one_line(found.context)}"
    moved = f"has {'risen' if found.worse else 'fallen'} from {found.loss_before:.3f} to {found.loss_after:.3f}"
    seen_by = f"{one_line(found.detector)} by the hour of day, {found.after} losses ago"
    return f"loss of {found.model} for {found.application}{context} {moved} ({seen_by})"


def _row(key: bytes | None, value: bytes | None) -> tuple[RowKey, SelectionRow | None] | None:
    try:
        return read_row(key, value)
    except UnknownRowVersion:
        return None
