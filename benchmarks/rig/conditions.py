"""What a number was measured on, without which it says nothing."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rig.processes import Cpus

from clipper_agents.broker import KAFKA_VERSION

PACKAGES = ("clipper-stream", "faust-streaming", "aiokafka", "rocksdict", "msgspec", "numpy", "uvloop")


def conditions(cpus: Cpus, **settings: Any) -> dict[str, Any]:
    """Machine, versions, pinning and the benchmark's settings, ready for JSON."""
    return {
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "rig_cpus": sorted(cpus.rig),
        "system_cpus": sorted(cpus.system),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "kafka": f"{KAFKA_VERSION}, one broker, replication 1, loopback",
        "versions": {name: _version(name) for name in PACKAGES},
        "settings": settings,
    }


def load_average() -> float:
    """Processes that ran or waited, over the last minute."""
    return round(os.getloadavg()[0], 2)


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
