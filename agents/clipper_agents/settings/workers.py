"""What one worker process is given: plain values, nothing left to look up."""

from dataclasses import dataclass
from pathlib import Path

from clipper_agents.settings.sections import GatewaySection
from clipper_stream.models.runtimes.model_files import STRICT, FileRules
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.manifests import ModelManifest

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What every worker process needs.

    `instance` is the stable name of the process: a restart under the same name takes its partitions back (KIP-345).
    Metrics are served on a free port when `metrics_port` is 0.
    """

    kafka: KafkaConnection
    catalogue: Catalogue
    instance: str
    metrics_port: int = 0
    metrics_address: str = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSettings(WorkerSettings):
    """What one router process needs; `allowed` and `files` say which models it may load."""

    data_dir: Path
    allowed: tuple[str, ...] = ()
    files: FileRules = STRICT
    max_in_flight: int = 20_000
    horizon_s: float = 3600.0
    """Seconds after a prediction in which a feedback still counts."""
    max_contexts: int = 2_000_000
    """Contexts with state that a partition has at most, of all applications."""
    cache_bytes: int = 32 * MIB
    """Budget of the prediction cache, bytes a partition; 0: no cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings(WorkerSettings):
    """What one model host needs; `allowed` and `files` say which models it may load."""

    model: ModelManifest
    data_dir: Path
    allowed: tuple[str, ...] = ()
    files: FileRules = STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class StewardSettings(WorkerSettings):
    """What a steward needs."""

    horizon_s: float = 3600.0
    """Seconds after a prediction in which a feedback still counts."""
    max_queries: int = 200_000
    """Remembered at most until their feedback comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings(WorkerSettings):
    """What a gateway needs; `console_dir` is for the history of the console."""

    section: GatewaySection
    console_dir: Path
    horizon_s: float = 3600.0
    """Seconds after a prediction in which a feedback still counts."""
