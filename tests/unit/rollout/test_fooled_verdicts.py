"""Verdicts in the worlds that fooled them once: a small form of `benchmarks/fooled_verdicts.py`."""

import pytest
from builders.benchmarks import benchmark_module

WORLDS = {world.name: world for world in benchmark_module("fooled_verdicts").WORLDS}


@pytest.mark.parametrize("seeds", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", WORLDS)
def test_a_world_that_fooled_verdicts_does_so_no_more(name, seeds):
    ends = [WORLDS[name].end(seed) for seed in range(seeds)]
    assert sum(end in WORLDS[name].wrong for end in ends) == 0, ends
