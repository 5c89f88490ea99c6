"""What the control topic declares, record by record, and whatever somebody wrote there (`control_keys`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

from aiokafka import ConsumerRecord

from clipper_stream.errors import SetupError, shown
from clipper_topics import codec
from clipper_topics.codec import UndecodableRecord
from clipper_topics.control_keys import Kind, Manifest, UnknownControlKey, is_note, kind_and_name
from clipper_topics.manifests import MAX_MANIFEST_BYTES, ApplicationManifest, ModelManifest

REASON_CHARACTERS = 500
KEPT_REASONS = 1_000
"""Keys that nobody reads can be invented without end."""
SHOWN_KEY_BYTES = 200
"""Of a key: the longest that a manifest has are `application/` and 64 characters."""


def accept_all(_: Manifest) -> None:
    """Accept what the schema accepts."""


@dataclass(slots=True)
class Manifests:
    """What the control topic says now.

    Rules: the key and the value name the same thing; what is refused leaves what was there before in force; nothing
    that a record says stops the reader.

    Attributes:
        applications: By name.
        models: By reference, `name:version`.
        unreadable: Keys of records that were refused, with the reason; the newest thousand.
        accept: Raises a SetupError for a manifest that fits the schema and that this process must not follow.
    """

    applications: dict[str, ApplicationManifest] = field(default_factory=dict)
    models: dict[str, ModelManifest] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    accept: Callable[[Manifest], None] = accept_all

    def apply(self, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()) -> str | None:
        """Take one record in; an empty value takes the manifest away.

        Returns:
            Why it was refused; None when it was not.
        """
        if is_note(key):
            return None
        known = shown_key(key)
        self.unreadable.pop(known, None)
        try:
            kind, name = kind_and_name(key)
            if value:
                self._put(kind, name, _decoded(kind, name, value, headers))
            else:
                (self.applications if kind == "application" else self.models).pop(name, None)
        except (UnknownControlKey, UndecodableRecord, SetupError) as error:
            reason = self.unreadable[known] = str(error)[:REASON_CHARACTERS]
            while len(self.unreadable) > KEPT_REASONS:
                del self.unreadable[next(iter(self.unreadable))]
            return reason
        return None

    def _put(self, kind: Kind, name: str, manifest: Manifest) -> None:
        self.accept(manifest)
        if kind == "application":
            self.applications[name] = cast("ApplicationManifest", manifest)
        else:
            self.models[name] = cast("ModelManifest", manifest)


def shown_key(key: bytes | None) -> str:
    """A record's key as a log line has it, however long it is."""
    return (key or b"")[:SHOWN_KEY_BYTES].decode("utf-8", "replace")


def refusal(record: ConsumerRecord, reason: str) -> dict[str, object]:
    """What a log line says about a record that was refused."""
    return {"key": shown_key(record.key), "offset": record.offset, "reason": reason}


def _decoded(kind: Kind, name: str, value: bytes, headers: Sequence[tuple[str, bytes]]) -> Manifest:
    """The manifest.

    Raises:
        UndecodableRecord: too large, no manifest of this kind, or one of another name.
    """
    if len(value) > MAX_MANIFEST_BYTES:
        raise UndecodableRecord(f"a manifest of {len(value)} bytes: it has at most {MAX_MANIFEST_BYTES}")
    manifest: Manifest = (codec.applications if kind == "application" else codec.models).decode(value, headers)
    named = manifest.ref if isinstance(manifest, ModelManifest) else manifest.name
    if named != name:
        raise UndecodableRecord(
            f"the key names {kind} {shown(name)}, the value {named!r}: publish it under its own name"
        )
    return manifest
