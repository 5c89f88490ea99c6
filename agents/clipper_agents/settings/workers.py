"""What one worker process is given: plain values, nothing left to look up."""

from dataclasses import dataclass
from pathlib import Path

from clipper_stream.models.runtimes.model_files import STRICT, FileRules
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.manifests import ModelManifest

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSettings:
    """What one router process needs.

    Attributes:
        kafka: How to reach the brokers.
        catalogue: The topics.
        data_dir: Folder of this process's tables.
        instance: Stable name of the process: a restart under the same name takes its partitions back (KIP-345).
        allowed: Packages, modules and directories that it may load models from.
        files: What the operator says about model files.
        max_in_flight: Queries open at most.
        horizon_s: Seconds after a prediction in which a feedback still counts.
        cache_bytes: Budget of the prediction cache, bytes a partition; 0: no cache.
        metrics_port: Port of the metrics; 0: a free one.
        metrics_address: Address that the metrics are served on.
        profile: Whether stages are timed.
    """

    kafka: KafkaConnection
    catalogue: Catalogue
    data_dir: Path
    instance: str
    allowed: tuple[str, ...] = ()
    files: FileRules = STRICT
    max_in_flight: int = 20_000
    horizon_s: float = 3600.0
    cache_bytes: int = 32 * MIB
    metrics_port: int = 0
    metrics_address: str = "127.0.0.1"
    profile: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """What one model host needs.

    Attributes:
        kafka: How to reach the brokers.
        catalogue: The topics.
        model: The version that it serves.
        data_dir: Folder of this process.
        instance: Stable name of the process: a restart under the same name takes its partitions back (KIP-345).
        allowed: Packages, modules and directories that it may load models from.
        files: What the operator says about model files.
        metrics_port: Port of the metrics; 0: a free one.
        metrics_address: Address that the metrics are served on.
    """

    kafka: KafkaConnection
    catalogue: Catalogue
    model: ModelManifest
    data_dir: Path
    instance: str
    allowed: tuple[str, ...] = ()
    files: FileRules = STRICT
    metrics_port: int = 0
    metrics_address: str = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class StewardSettings:
    """What a steward needs.

    Attributes:
        kafka: How to reach the brokers.
        catalogue: The topics.
        instance: Name of the process.
        horizon_s: Seconds after a prediction in which a feedback still counts.
        max_queries: Remembered at most until their feedback comes.
        metrics_port: Port of the metrics; 0: a free one.
        metrics_address: Address that the metrics are served on.
    """

    kafka: KafkaConnection
    catalogue: Catalogue
    instance: str
    horizon_s: float = 3600.0
    max_queries: int = 200_000
    metrics_port: int = 0
    metrics_address: str = "127.0.0.1"
