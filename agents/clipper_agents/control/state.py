"""The one fold of the control topic: manifests, changes, detections and restores, record by record.

Rules of this file:
- Key and value name the same thing; what is refused leaves what was there before in force.
- Nothing that a record says stops the reader: whoever may write to the topic must not be able to stop everybody.
- Manifests and declared restores are taken away by an empty value. Changes and detections are history, and stay.
- A process keeps only the kinds of notes that it asks for: changes alone may hold megabytes of saved rows.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
from aiokafka import ConsumerRecord, TopicPartition

from clipper_agents.kafka.errors import checked_partitions
from clipper_agents.kafka.reader import LogReader, open_reader
from clipper_agents.kafka.retry import TIMEOUT_S
from clipper_agents.kafka.topics import existing_topics
from clipper_stream.errors import SetupError, shown
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.change import Change
from clipper_topics.codec import Codec, UndecodableRecord
from clipper_topics.connection import KafkaConnection
from clipper_topics.control_keys import NOTES, Kind, Manifest, UnknownControlKey, key_of, parse_key
from clipper_topics.drift import DriftEvent
from clipper_topics.manifests import MAX_MANIFEST_BYTES, ApplicationManifest, ModelManifest
from clipper_topics.restore import Restore

REASON_CHARACTERS = 500
KEPT_REASONS = 1_000
"""Anybody can invent unreadable keys without end."""
SHOWN_KEY_BYTES = 200
"""The longest key of an application is `application/` and 64 characters."""
_CODECS: Mapping[Kind, Codec[Any]] = {
    "application": codec.applications,
    "model": codec.models,
    "change": codec.changes,
    "drift": codec.drifts,
    "restore": codec.restores,
}


class DeclaredRestore(msgspec.Struct, frozen=True):
    """A declared restore; of two of one application that with the higher offset wins."""

    restore_id: str
    restore: Restore
    offset: int
    """Offset of the declaration on the control topic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRecord:
    """A record of the control topic that does not count; without a kind, its key is none that this version knows."""

    kind: Kind | None
    key: str
    offset: int
    reason: str

    @property
    def details(self) -> dict[str, object]:
        return {"key": self.key, "offset": self.offset, "reason": self.reason}

    @property
    def advice(self) -> str:
        return f"{self.reason}: publish it again, or write an empty value under its key"


@dataclass(slots=True)
class Manifests:
    """The manifests in force, by name and `name:version`, and the newest thousand refused records by their keys."""

    applications: dict[str, ApplicationManifest] = field(default_factory=dict)
    models: dict[str, ModelManifest] = field(default_factory=dict)
    unreadable: dict[str, RefusedRecord] = field(default_factory=dict)


Taken = ApplicationManifest | ModelManifest | Change | DriftEvent | DeclaredRestore | RefusedRecord | None
"""Content of a record; None for a deletion, and for a kind of note that is not kept."""


@dataclass(slots=True, kw_only=True)
class ControlState:
    """The content of the control topic up to some record.

    Attributes:
        manifests: Those in force.
        changes: By application and revision.
        drifts: The newest detection by application and version.
        restores: By id, in the order in which they were declared first.
        declared_ms: When each application's manifest was written, milliseconds since the epoch.
        version: How many records were taken in.

    >>> state = ControlState()
    >>> state.apply(b"model/svm:2", b'{"name": "svm", "version": "2", "uri": "models:svm"}').ref
    'svm:2'
    >>> state.apply(b"model/svm:3", b"{").reason
    'not application/json: Input data was truncated'
    """

    notes: Iterable[Kind] = NOTES
    saved_rows: bool = True
    most_restores: int | None = None
    accept: Callable[[Manifest], None] = lambda _: None
    manifests: Manifests = field(default_factory=Manifests)
    changes: dict[str, dict[int, Change]] = field(default_factory=dict)
    drifts: dict[tuple[str, str], DriftEvent] = field(default_factory=dict)
    restores: dict[str, DeclaredRestore] = field(default_factory=dict)
    declared_ms: dict[str, int] = field(default_factory=dict)
    version: int = 0

    # --- records ----------------------------------------------------------------------------------------------------
    def take(self, records: Iterable[ConsumerRecord[Any, Any]]) -> list[Taken]:
        return [self.apply(one.key, one.value, one.headers, offset=one.offset, at_ms=one.timestamp) for one in records]

    def apply(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        *,
        offset: int = -1,
        at_ms: int = 0,
    ) -> Taken:
        """Take one record in, and return its content."""
        self.version += 1
        kind: Kind | None = None
        try:
            kind, name = parse_key(key)
            if kind in NOTES and kind not in self.notes:
                return None
            self.manifests.unreadable.pop(shown_key(key), None)
            if not value:
                self._remove(kind, name)
                return None
            record = _decoded(kind, key or b"", value, headers)
            return self._put(kind, name, record, offset, at_ms)
        except (UnknownControlKey, UndecodableRecord, SetupError) as error:
            if not value:
                self.manifests.unreadable.pop(shown_key(key), None)
                return None
            refused = RefusedRecord(kind=kind, key=shown_key(key), offset=offset, reason=str(error)[:REASON_CHARACTERS])
            if kind not in NOTES:
                self._refuse(refused)
            return refused

    def _refuse(self, refused: RefusedRecord) -> None:
        reasons = self.manifests.unreadable
        reasons.pop(refused.key, None)
        reasons[refused.key] = refused
        while len(reasons) > KEPT_REASONS:
            del reasons[next(iter(reasons))]

    def _remove(self, kind: Kind, name: str) -> None:
        if kind == "application":
            self.manifests.applications.pop(name, None)
        elif kind == "model":
            self.manifests.models.pop(name, None)
        elif kind == "restore":
            self.restores.pop(name, None)

    def _put(self, kind: Kind, name: str, record: Any, offset: int, at_ms: int) -> Taken:
        if kind == "restore":
            return self._declare(name, record, offset)
        if kind == "change":
            change: Change = record if self.saved_rows else msgspec.structs.replace(record, rows=None)
            self.changes.setdefault(change.application, {})[change.revision] = change
            return change
        if kind == "drift":
            self.drifts[record.application, record.model] = record
            return cast("DriftEvent", record)
        self.accept(record)
        if kind == "application":
            self.manifests.applications[name] = record
            self.declared_ms[name] = at_ms
        else:
            self.manifests.models[name] = record
        return cast("Manifest", record)

    def _declare(self, restore_id: str, restore: Restore, offset: int) -> DeclaredRestore:
        """Keep the first record of an id: its offset says which of two restores is the later one."""
        kept = restore if self.saved_rows else msgspec.structs.replace(restore, before=None)
        found = self.restores.setdefault(restore_id, DeclaredRestore(restore_id, kept, offset))
        while self.most_restores is not None and len(self.restores) > self.most_restores:
            del self.restores[next(iter(self.restores))]
        return found

    # --- what they say ----------------------------------------------------------------------------------------------
    def history(self, application: str) -> dict[int, Change]:
        """Return the changes of an application by revision, oldest first, also after its deletion."""
        return dict(sorted(self.changes.get(application, {}).items()))

    def past_manifests(self, application: str) -> Iterator[ApplicationManifest | None]:
        """Yield every manifest that an application has had, oldest first; None: it was deleted."""
        for number, change in enumerate(self.history(application).values()):
            if not number and change.before is not None:
                yield change.before
            yield change.after
        if application in self.manifests.applications:
            yield self.manifests.applications[application]

    def current(self, application: str) -> int:
        """Return the revision of the manifest in force, 0 when there is none."""
        published = self.manifests.applications.get(application)
        return 0 if published is None else published.revision

    def revision(self, application: str) -> int:
        """Return the last revision that was ever given, 0 for none; a deletion has one too."""
        return max(self.current(application), *self.changes.get(application, {}), 0)


def shown_key(key: bytes | None) -> str:
    """Return a record's key as a log line has it, of limited length."""
    return (key or b"")[:SHOWN_KEY_BYTES].decode("utf-8", "replace")


def _decoded(kind: Kind, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]) -> Any:
    """Return the record.

    Raises:
        UndecodableRecord: too large, no record of this kind, or one of another name.
    """
    if kind not in {"change", "drift"} and len(value) > MAX_MANIFEST_BYTES:
        what = "restore" if kind == "restore" else "manifest"
        raise UndecodableRecord(f"a {what} of {len(value)} bytes: it has at most {MAX_MANIFEST_BYTES}")
    record = _CODECS[kind].decode(value, headers)
    if not isinstance(record, Restore) and (own := key_of(record)) != key:
        said, named = (shown_key(one).partition("/")[2] for one in (key, own))
        raise UndecodableRecord(
            f"the key names {kind} {shown(said)}, the value {named!r}: publish it under its own name"
        )
    return record


# --- reading it whole -----------------------------------------------------------------------------------------------
async def read_control(connection: KafkaConnection, catalogue: Catalogue) -> ControlState:
    """Read the whole control topic."""
    await require_control_topic(connection, catalogue)
    async with open_reader(connection) as reader:
        return await control_state(reader, catalogue)


async def control_state(reader: LogReader, catalogue: Catalogue) -> ControlState:
    """Read the control topic up to its end now, with a reader of committed records."""
    state = ControlState()
    async with asyncio.timeout(TIMEOUT_S):
        state.take(await reader.read_all([TopicPartition(catalogue.control, 0)]))
    return state


async def require_control_topic(connection: KafkaConnection, catalogue: Catalogue) -> dict[str, int]:
    """Return the number of partitions of each topic, after a check that there is a control topic."""
    found = await existing_topics(connection, catalogue.prefix)
    checked_partitions(catalogue.control, found.get(catalogue.control))
    return found
