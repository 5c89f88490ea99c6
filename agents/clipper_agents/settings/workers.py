"""What one worker process is given: plain values, nothing left to look up."""

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from clipper_agents.settings.sections import GatewaySection, HostSection, RouterSection, StewardSection
from clipper_stream.models.runtimes.model_files import STRICT, FileRules
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

S = TypeVar("S", RouterSection, HostSection, StewardSection, GatewaySection)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings(Generic[S]):
    """Settings of one worker process.

    Attributes:
        instance: Its stable name: a restart under the same name takes its partitions back (KIP-345).
        section: What is said of processes of its role.
        data_dir: Folder of its own, for what it keeps.
        horizon_s: How long after its query a feedback still counts, in seconds.
        allowed: Packages, modules and locations that it may load models from.
        files: What it may do with model files.
    """

    kafka: KafkaConnection
    catalogue: Catalogue
    instance: str
    section: S
    data_dir: Path = Path()
    horizon_s: float = RouterSection().horizon_s
    allowed: tuple[str, ...] = ()
    files: FileRules = STRICT
