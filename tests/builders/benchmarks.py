"""Modules of `benchmarks/`, which is no package: what the benchmarks are made of is tested too."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def benchmark_module(name: str) -> ModuleType:
    """A module by its name there, as `rig.worlds`."""
    if str(BENCHMARKS) not in sys.path:
        sys.path.append(str(BENCHMARKS))  # last: some benchmarks are called as packages are
    return importlib.import_module(name)
