"""What a result was obtained with."""

import os
import platform
from importlib import metadata

from clipper_agents.broker import KAFKA_VERSION

DISTRIBUTIONS = ("clipper-stream", "faust-streaming", "aiokafka", "numpy", "scikit-learn", "skops")


def versions(*, embedded: bool) -> dict[str, str]:
    """Of Python, Kafka and the libraries, and the machine.

    Args:
        embedded: Whether the Kafka is the embedded one, whose version is known.
    """
    found = {name: metadata.version(name) for name in DISTRIBUTIONS}
    return {
        **found,
        "python": platform.python_version(),
        "kafka": KAFKA_VERSION if embedded else "as given",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
    }
