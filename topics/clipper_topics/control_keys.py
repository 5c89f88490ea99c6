"""Keys of the control topic; the newest value of a key counts.

application/<name>              ApplicationManifest
model/<name>:<version>          ModelManifest
change/<application>/<revision> Change
restore/<id>                    Restore
drift/<application>/<name>:<version>  DriftEvent
"""

from typing import Literal

from clipper_topics.manifests import ApplicationManifest, ModelManifest

Kind = Literal["application", "model"]
RESTORE_PREFIX = "restore/"
DRIFT_PREFIX = "drift/"
NOTES = ("change/", RESTORE_PREFIX, DRIFT_PREFIX)
"""Keys of records that declare nothing by themselves: what was done, which restored states may be trusted, and what was
seen of losses."""
_SHOWN_BYTES = 200
Manifest = ApplicationManifest | ModelManifest


class UnknownControlKey(ValueError):
    """The key is none that this version knows."""


def application_key(name: str) -> bytes:
    """Key of an application's manifest.

    >>> application_key("digits")
    b'application/digits'
    """
    return f"application/{name}".encode()


def model_key(ref: str) -> bytes:
    """Key of the manifest of a model version, `name:version`.

    >>> model_key("svm:2")
    b'model/svm:2'
    """
    return f"model/{ref}".encode()


def change_key(application: str, revision: int) -> bytes:
    """Key of the record of a change.

    >>> change_key("digits", 7)
    b'change/digits/7'
    """
    return f"change/{application}/{revision}".encode()


def restore_key(restore_id: str) -> bytes:
    """Key of the declaration of a restore.

    >>> restore_key("r-0123456789abcdef")
    b'restore/r-0123456789abcdef'
    """
    return f"{RESTORE_PREFIX}{restore_id}".encode()


def restore_id_in(key: bytes | None) -> str | None:
    """The id in the key of such a declaration, None in any other key.

    >>> restore_id_in(b"restore/r-0123456789abcdef"), restore_id_in(b"model/svm:2")
    ('r-0123456789abcdef', None)
    """
    found = (key or b"").decode("utf-8", "replace")
    return found.removeprefix(RESTORE_PREFIX) if found.startswith(RESTORE_PREFIX) else None


def drift_key(application: str, model: str) -> bytes:
    """Key of the newest detection about a version of an application.

    >>> drift_key("digits", "svm:2")
    b'drift/digits/svm:2'
    """
    return f"{DRIFT_PREFIX}{application}/{model}".encode()


def is_drift(key: bytes | None) -> bool:
    """Whether a record is such a detection."""
    return (key or b"").startswith(DRIFT_PREFIX.encode())


def is_note(key: bytes | None) -> bool:
    """Whether a record is a note beside the manifests.

    >>> is_note(b"change/digits/7"), is_note(b"model/svm:2")
    (True, False)
    """
    return (key or b"").decode("utf-8", "replace").startswith(NOTES)


def key_of(manifest: Manifest) -> bytes:
    """Key under which the manifest is published."""
    if isinstance(manifest, ModelManifest):
        return model_key(manifest.ref)
    return application_key(manifest.name)


def kind_and_name(key: bytes | None) -> tuple[Kind, str]:
    """What a key names: an application, or a model version as `name:version`.

    >>> kind_and_name(b"model/svm:2")
    ('model', 'svm:2')

    Raises:
        UnknownControlKey: no key, or one of another kind.
    """
    kind, slash, name = (key or b"").decode("utf-8", "replace").partition("/")
    if slash and name:
        if kind == "application":
            return "application", name
        if kind == "model":
            return "model", name
    raise UnknownControlKey(
        f"control key {(key or b'')[:_SHOWN_BYTES]!r}: expected application/<name> or model/<name>:<version>"
    )
