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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from clipper_agents.observability.logging import event
from clipper_agents.settings.error_messages import explained
from clipper_gateway.errors import Refusal
from clipper_stream.errors import InvalidSetting, UnknownName, shown
from clipper_topics.manifests import Name, Sha256

Right = Literal["predict", "feedback", "read", "operate"]
SECRET_PREFIX = "cs_"  # noqa: S105 - tells API keys from other bearer tokens
CHECK_INTERVAL_S = 1.0
"""Seconds between two looks at the file: a revoked key works for so long at most."""


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key as its file states it; without `applications` it is for all, without `rate` (a second) it has no bound."""

    name: Name
    digest: Sha256
    applications: list[Name] | None = None
    rights: list[Right]
    rate: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None
    created_ms: int
    revoked_ms: int | None = None


def make_key(
    path: Path, name: str, *, applications: Sequence[str] | None, rights: Sequence[str], rate: float | None, now_ms: int
) -> str:
    """Add a key to the file, which need not exist yet, and return the secret, which is kept nowhere."""
    secret = SECRET_PREFIX + secrets.token_urlsafe(32)
    given = {"name": name, "applications": applications, "rights": rights, "rate": rate, "created_ms": now_ms}
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
    """Revoke the key of this name; a gateway refuses it within `CHECK_INTERVAL_S`.

    Raises:
        UnknownName: no key in force has the name.
        InvalidSetting: the file cannot be used.
    """
    with _changed_keys(path) as keys:
        in_force = {each.name: at for at, each in enumerate(keys) if each.revoked_ms is None}
        if name not in in_force:
            raise UnknownName(f"no key {shown(name)} in {path}; in force are {', '.join(in_force) or 'none'}")
        keys[in_force[name]] = msgspec.structs.replace(keys[in_force[name]], revoked_ms=now_ms)


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

    When a changed file cannot be used, the log has a warning, and the keys of before stay in force.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self._clock = path, clock
        self.by_digest, self._checked_s = _in_force(path), clock()
        self._stamp: tuple[int, ...] | None = ()  # of no file, nor of a missing one
        self._levels: dict[str, tuple[float, float]] = {}

    def find(self, secret: str) -> ApiKey | None:
        """Return the key that has this secret, and count a request of it; None when no key in force has it."""
        key = self.in_force(digest_of(secret))
        if key is not None and key.rate is not None and (wait_s := self._take(key.digest, key.rate, self._clock())):
            what = f"key {key.name!r} may send {key.rate:g} requests a second"
            raise Refusal(429, f"{what}: wait {wait_s:.3f} s", retry_after_s=wait_s)
        return key

    def in_force(self, digest: str) -> ApiKey | None:
        """Return the key of this digest, None when none in force has it; no request is counted."""
        now_s = self._clock()
        if now_s - self._checked_s >= CHECK_INTERVAL_S:
            self._checked_s = now_s
            self._reload()
        return self.by_digest.get(digest)

    def _take(self, digest: str, rate: float, now_s: float) -> float:
        """Take a request from a key's token bucket; the seconds until it holds one, 0 when it was taken."""
        capacity = max(1.0, rate)
        level, at_s = self._levels.get(digest, (capacity, now_s))
        level = min(capacity, level + (now_s - at_s) * rate)
        is_taken = level >= 1.0
        self._levels[digest] = level - is_taken, now_s
        return 0.0 if is_taken else (1.0 - level) / rate

    def _reload(self) -> None:
        try:
            found = self.path.stat()  # with its ctime, because a chmod alone can make the file usable
            stamp = found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
        except OSError:
            stamp = None
        before, self._stamp = self._stamp, stamp
        if stamp != before:
            logger = logging.getLogger(__name__)
            try:
                self.by_digest = _in_force(self.path)
                event(logger, "API keys read", file=self.path, keys=len(self.by_digest))
            except InvalidSetting as error:
                event(logger, "API keys stay those of before", logging.WARNING, error=error)


def _in_force(path: Path) -> dict[str, ApiKey]:
    return {key.digest: key for key in read_keys(path) if key.revoked_ms is None}
