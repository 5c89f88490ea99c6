"""Models in the router's own process: loaded beside each other, and only those that are allowed."""

import asyncio
import sys
import threading
from math import inf
from typing import Any

import numpy as np
import pytest

from clipper_agents.observability.metrics import HostMetrics
from clipper_agents.router.colocated_models import ColocatedModels
from clipper_stream.errors import ModelNotLoaded
from clipper_stream.query import Request
from clipper_topics.manifests import ModelManifest

EXAMPLES = "clipper_agents.examples.models"


class Surroundings:
    """Takes outputs, and runs engines."""

    def __init__(self):
        self.answered = []

    def gather(self, frames):
        self.answered += frames

    def watched(self, work):
        return asyncio.create_task(work)


def models(allowed, load_within_s=20.0, around=None):
    around = around or Surroundings()
    return ColocatedModels(HostMetrics(), around, around, allowed, load_within_s)


async def test_a_model_that_is_not_allowed_is_not_loaded():
    colocated = models([f"{EXAMPLES}:"])
    with pytest.raises(ModelNotLoaded, match="outside of what this process may load"):
        await colocated.load(ModelManifest(name="m", uri="os:system", colocated=True))
    await colocated.load(ModelManifest(name="m", uri=f"{EXAMPLES}:sum_of_row", colocated=True))
    await colocated.stop()


@pytest.fixture
def gate(tmp_path, monkeypatch):
    """A module that is imported only once the gate is open."""
    name = f"gate_{tmp_path.name}".replace("-", "_")
    monkeypatch.syspath_prepend(tmp_path)
    source = "import sys\nsys.modules['the_gate'].opened.wait(20)\ndef f(rows): return [0 for _ in rows]\n"
    (tmp_path / f"{name}.py").write_text(source)
    module: Any = type(sys)("the_gate")
    module.opened = threading.Event()
    monkeypatch.setitem(sys.modules, "the_gate", module)
    yield name, module.opened
    module.opened.set()
    sys.modules.pop(name, None)


async def test_a_model_that_does_not_load_holds_up_no_other(gate):
    name, opened = gate

    colocated = models([name, EXAMPLES], load_within_s=0.05)
    slow = ModelManifest(name="slow", uri=f"{name}:f", colocated=True)
    threads = set()
    for _ in range(3):
        with pytest.raises(ModelNotLoaded, match=r"'slow:1' has not loaded within 0 s, and is waited for"):
            await colocated.load(slow)
        threads.add(threading.active_count())
    assert len(threads) == 1
    assert colocated.loading == ["slow:1"]
    opened.set()
    while True:
        try:
            await colocated.load(slow)
            break
        except ModelNotLoaded:
            continue
    assert colocated.loading == []
    await colocated.stop()


def rows_of(count):
    return np.ones((count, 2), dtype="float32")


def request(frame, rows=1):
    return Request("m:1", frame, rows_of(rows), np.full(rows, inf))


async def test_an_unloaded_model_answers_its_rows_and_leaves_nothing_behind():
    around = Surroundings()
    colocated = models([EXAMPLES], around=around)
    manifest = ModelManifest(name="m", uri=f"{EXAMPLES}:slow", parameters={"seconds_per_batch": 0.01}, colocated=True)
    await colocated.load(manifest)
    before = {*threading.enumerate()}
    for frame in range(5):
        assert colocated.take(request(frame))
    await colocated.unload("m:1")
    assert sorted(frame.frame for frame in around.answered) == [0, 1, 2, 3, 4]
    assert not colocated.take(request(9)), "it is not here any more"
    assert (colocated._models, colocated._watch._batches) == ({}, [])
    for thread in {*threading.enumerate()} - before:  # the model's, which was told to end
        await asyncio.to_thread(thread.join, 10.0)
        assert not thread.is_alive()
    await colocated.unload("m:1")
    await colocated.load(manifest)
    assert colocated.take(request(10)), "it can come back"
    await colocated.stop()
