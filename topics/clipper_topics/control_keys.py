"""Keys of the control topic; the newest value of a key counts.

application/<name>              ApplicationManifest
model/<name>:<version>          ModelManifest
change/<application>/<revision> Change
restore/<id>                    Restore
drift/<application>/<name>:<version>  DriftEvent
"""

from typing import Literal

from clipper_topics.change import Change
from clipper_topics.drift import DriftEvent
from clipper_topics.manifests import ApplicationManifest, ModelManifest

Kind = Literal["application", "model", "change", "restore", "drift"]
NOTES: frozenset[Kind] = frozenset({"change", "restore", "drift"})
"""Kinds that declare nothing by themselves: what was done, which restored states may be trusted, what was seen of
losses."""
_KINDS: frozenset[Kind] = frozenset({"application", "model", *NOTES})
_SHOWN_BYTES = 200
Manifest = ApplicationManifest | ModelManifest


class UnknownControlKey(ValueError):
    """This version knows no such key."""


def application_key(name: str) -> bytes:
    """Return the key of an application's manifest."""
    return f"application/{name}".encode()


def model_key(ref: str) -> bytes:
    """Return the key of the manifest of a model version, `name:version`."""
    return f"model/{ref}".encode()


def change_key(application: str, revision: int) -> bytes:
    """Return the key of the record of a change."""
    return f"change/{application}/{revision}".encode()


def restore_key(restore_id: str) -> bytes:
    """Return the key of the declaration of a restore."""
    return f"restore/{restore_id}".encode()


def drift_key(application: str, model: str) -> bytes:
    """Return the key of the newest detection about a version of an application."""
    return f"drift/{application}/{model}".encode()


def key_of(record: Manifest | Change | DriftEvent) -> bytes:
    """Return the key under which a record is published."""
    match record:
        case ModelManifest():
            return model_key(record.ref)
        case ApplicationManifest():
            return application_key(record.name)
        case Change():
            return change_key(record.application, record.revision)
        case DriftEvent():
            return drift_key(record.application, record.model)


def parse_key(key: bytes | None) -> tuple[Kind, str]:
    """Return the kind of record that a key names, and the name that follows.

    >>> parse_key(model_key("svm:2")), parse_key(change_key("digits", 7))
    (('model', 'svm:2'), ('change', 'digits/7'))

    Raises:
        UnknownControlKey: no key, or one of another kind.
    """
    kind, slash, name = (key or b"").decode("utf-8", "replace").partition("/")
    if slash and kind in _KINDS and (name or kind in NOTES):
        return kind, name
    raise UnknownControlKey(
        f"control key {(key or b'')[:_SHOWN_BYTES]!r}: expected application/<name> or model/<name>:<version>"
    )
