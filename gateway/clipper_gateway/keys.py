"""API keys: the file of their digests, and the ring in which a presented secret is looked up.

Rules of this file:
- The file holds digests, never secrets. A secret is 256 random bits that nobody can guess, so a plain SHA-256 suffices:
  salts and slow hashes protect what people choose.
- Writers lock the file's folder and replace the file as a whole: no change is lost, and no reader sees half of one.
"""

import fcntl
import hashlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import msgspec

from clipper_agents.observability.logging import event
from clipper_agents.settings.error_messages import explained
from clipper_gateway.callers import Right
from clipper_stream.errors import InvalidSetting, UnknownName, shown
from clipper_topics.manifests import Name, Sha256

SECRET_PREFIX = "cs_"  # noqa: S105 - tells API keys from other bearer tokens
NOTED_S = 60.0
"""Between two notes of when keys were used."""
CHECK_INTERVAL_S = 1.0
"""Seconds between two looks at the file: a revoked key works for so long at most."""


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key as its file states it; without `applications` it is for all, without `rate` (a second) it has no bound.

    A key that was rotated has the digest of its secret before, which is in force until `old_ends_ms`.
    """

    name: Name
    digest: Sha256
    applications: list[Name] | None = None
    rights: list[Right]
    rate: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None
    created_ms: int
    revoked_ms: int | None = None
    ends_ms: int | None = None
    old_digest: Sha256 | None = None
    old_ends_ms: int = 0

    def in_force(self, digest: str, now_ms: float) -> bool:
        """Return whether the secret of a digest lets in at a time."""
        is_over = self.revoked_ms is not None or (self.ends_ms is not None and self.ends_ms <= now_ms)
        return not is_over and (digest == self.digest or (digest == self.old_digest and now_ms < self.old_ends_ms))


def make_key(path: Path, name: str, *, now_ms: int, **fields: Any) -> str:
    """Add a key of these fields to the file, which need not exist yet; return the secret, which is kept nowhere."""
    secret = _new_secret()
    given = {"name": name, "created_ms": now_ms, **fields}
    try:
        key = msgspec.convert({**given, "digest": digest_of(secret)}, ApiKey)
    except msgspec.ValidationError as error:
        raise InvalidSetting(f"API key: {explained(str(error), given, ApiKey)}") from error
    with _changed_keys(path) as keys:
        if any(each.name == name and each.revoked_ms is None for each in keys):
            raise InvalidSetting(f"{path} has a key {name!r}: take another name, or revoke that key first")
        keys.append(key)
    return secret


def revoke_key(path: Path, name: str, now_ms: int) -> None:
    """Revoke the key of this name, which a gateway refuses within `CHECK_INTERVAL_S`; raises `UnknownName`."""
    _change_key(path, name, lambda _: {"revoked_ms": now_ms})


def rotate_key(path: Path, name: str, overlap_s: float, now_ms: int) -> str:
    """Give a key another secret, and return it; the one before is in force for some seconds yet. Errors as above."""
    secret = _new_secret()
    ends_ms, digest = now_ms + round(overlap_s * 1000), digest_of(secret)
    _change_key(path, name, lambda key: {"digest": digest, "old_digest": key.digest, "old_ends_ms": ends_ms})
    return secret


def _new_secret() -> str:
    return SECRET_PREFIX + secrets.token_urlsafe(32)


def _change_key(path: Path, name: str, changes: Callable[[ApiKey], dict[str, Any]]) -> None:
    with _changed_keys(path) as keys:
        in_force = {each.name: at for at, each in enumerate(keys) if each.revoked_ms is None}
        if (at := in_force.get(name)) is None:
            raise UnknownName(f"no key {shown(name)} in {path}; in force are {', '.join(in_force) or 'none'}")
        keys[at] = msgspec.structs.replace(keys[at], **changes(keys[at]))


def read_keys(path: Path) -> list[ApiKey]:
    """Return all keys of the file, revoked ones too; none where there is no file."""
    try:
        with path.open("rb") as file:
            mode, content = os.fstat(file.fileno()).st_mode & 0o777, file.read()
        if mode & 0o077:
            raise InvalidSetting(f"{path} has mode {mode:o}, others may read or write it: chmod 600 {path}")
        return msgspec.json.decode(content, type=list[ApiKey])
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise InvalidSetting(f"{path}: {error}; give a file that `clipper-stream keys create` made") from error


def read_uses(path: Path) -> dict[str, int]:
    """Return when each key of the file was used last, in milliseconds since the epoch, as gateways have noted it."""
    with suppress(OSError, ValueError):
        return msgspec.json.decode(_uses_file(path).read_bytes(), type=dict[str, int])
    return {}


def _uses_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.used")


def digest_of(secret: str) -> str:
    """Return the digest by which a secret is known."""
    return hashlib.sha256(secret.encode()).hexdigest()


@contextmanager
def _changed_keys(path: Path) -> Iterator[list[ApiKey]]:
    """The keys of the file, for a block that changes them; they are written at its end."""
    target = path.resolve()
    partial = target.with_name(f".{target.name}.partial")
    try:
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield (keys := read_keys(path))
            partial.unlink(missing_ok=True)
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                if os.geteuid() == 0 and target.exists():  # the gateway's user is to read what root has changed
                    os.fchown(file.fileno(), target.stat().st_uid, target.stat().st_gid)
                file.write(msgspec.json.format(msgspec.json.encode(keys), indent=1))
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise InvalidSetting(f"{path}: {error.strerror}; give a file in a folder that you may write") from error


class KeyRing:
    """The keys in force `by_digest`, read again when their file has changed; a missing file holds none.

    When a changed file cannot be used, the log has a warning, and the keys of before stay in force. Beside the file it
    notes when keys were used, where it may.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self._clock = path, clock
        self._used: dict[str, int] = {}
        self._noted_s = clock()
        self.by_digest, self._checked_s = _in_force(path), clock()
        self._stamp: tuple[int, ...] | None = ()  # of no file, nor of a missing one

    def find(self, secret: str) -> ApiKey | None:
        """Return the key that has this secret, None when no key in force has it."""
        if (found := self.in_force(digest_of(secret))) is not None:
            self._used[found.name] = int(time.time() * 1000)
            if self._clock() - self._noted_s >= NOTED_S:
                self.note_uses()
        return found

    def note_uses(self) -> None:
        self._noted_s = self._clock()
        partial, before = _uses_file(self.path).with_suffix(".partial"), read_uses(self.path)
        with suppress(OSError):
            partial.write_bytes(msgspec.json.encode({**before, **self._used}))
            partial.replace(_uses_file(self.path))

    def in_force(self, digest: str) -> ApiKey | None:
        """Return the key of this digest, None when none in force has it."""
        now_s = self._clock()
        if now_s - self._checked_s >= CHECK_INTERVAL_S:
            self._checked_s = now_s
            self._reload()
        found = self.by_digest.get(digest)
        return found if found is not None and found.in_force(digest, time.time() * 1000) else None

    def _reload(self) -> None:
        try:
            found = self.path.stat()  # with its ctime, because a chmod alone can make the file usable
            stamp = found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
        except OSError:
            stamp = None
        is_changed, self._stamp = stamp != self._stamp, stamp
        if is_changed:
            logger = logging.getLogger(__name__)
            try:
                old, self.by_digest = self.by_digest, _in_force(self.path)
                before, names = ({key.name for key in keys.values()} for keys in (old, self.by_digest))
                event(logger, "API keys read", file=self.path, keys=len(self.by_digest))
                for name in sorted(before ^ names):
                    event(logger, f"an API key is {'made' if name in names else 'gone'}", key=name)
            except InvalidSetting as error:
                event(logger, "API keys stay those of before", logging.WARNING, error=error)


def _in_force(path: Path) -> dict[str, ApiKey]:
    keys = [key for key in read_keys(path) if key.revoked_ms is None]
    return {digest: key for key in keys for digest in (key.old_digest, key.digest) if digest is not None}
