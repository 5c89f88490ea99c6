"""Models in the router's own process: loaded beside each other, and only those that are allowed."""

import asyncio
import sys
import threading
from contextlib import suppress
from math import inf
from types import SimpleNamespace

import numpy as np
import pytest
from builders.kafka import Tasks

from clipper_agents.observability.metrics import ProcessMetrics
from clipper_agents.router import colocated_models
from clipper_agents.router.colocated_models import ColocatedModels
from clipper_stream.errors import ModelNotLoaded
from clipper_stream.query import Request
from clipper_topics.manifests import ModelManifest

EXAMPLES = "clipper_agents.examples.models"


@pytest.fixture
def anyio_backend():
    return "asyncio"  # models load in threads, which take their time


@pytest.fixture
async def make():
    """Makes the models that a process runs, whose outputs go to a list."""
    made = []

    def models(*allowed, answered=()):
        receiver = SimpleNamespace(gather=getattr(answered, "extend", None))
        made.append(ColocatedModels(ProcessMetrics("host"), receiver, Tasks(), allowed))
        return made[-1]

    yield models
    for one in made:
        await one.stop()


def manifest(uri, name="m", **parameters):
    return ModelManifest(name=name, uri=uri, colocated=True, parameters=parameters)


def request(frame):
    return Request("m:1", frame, np.ones((1, 2), dtype="float32"), np.full(1, inf))


async def test_a_model_that_is_not_allowed_is_not_loaded(make):
    colocated = make(f"{EXAMPLES}:")
    with pytest.raises(ModelNotLoaded, match="outside of what this process may load"):
        await colocated.load(manifest("os:system"))
    await colocated.load(manifest(f"{EXAMPLES}:sum_of_row"))
    assert ([*colocated.models], colocated.loading) == (["m:1"], [])


@pytest.fixture
def gate(tmp_path, monkeypatch):
    """A module that is imported only once the gate is open."""
    name = f"gate_{tmp_path.name}".replace("-", "_")
    monkeypatch.syspath_prepend(tmp_path)
    source = "import sys\nsys.modules['the_gate'].opened.wait(20)\ndef f(rows): return [0 for _ in rows]\n"
    (tmp_path / f"{name}.py").write_text(source)
    opened = threading.Event()
    monkeypatch.setitem(sys.modules, "the_gate", SimpleNamespace(opened=opened))
    yield name, opened
    opened.set()
    sys.modules.pop(name, None)


async def loaded(colocated, one):
    """Load a model however long it takes."""
    while True:
        with suppress(ModelNotLoaded):
            return await colocated.load(one)


async def test_a_model_that_does_not_load_holds_up_no_other(gate, make, monkeypatch):
    name, opened = gate
    monkeypatch.setattr(colocated_models, "LOAD_WITHIN_S", 0.05)
    colocated, slow, threads = make(name, EXAMPLES), manifest(f"{name}:f", "slow"), set()
    for _ in range(3):
        with pytest.raises(ModelNotLoaded, match=r"'slow:1' has not loaded within 0 s"):
            await colocated.load(slow)
        threads.add(threading.active_count())
    await loaded(colocated, manifest(f"{EXAMPLES}:sum_of_row"))
    assert (len(threads), colocated.loading) == (1, ["slow:1"])
    opened.set()
    await loaded(colocated, slow)
    assert colocated.loading == []


async def test_an_unloaded_model_answers_its_rows_and_leaves_nothing_behind(make):
    answered = []
    colocated = make(EXAMPLES, answered=answered)
    slow = manifest(f"{EXAMPLES}:slow", seconds_per_batch=0.01)
    await colocated.load(slow)
    before = {*threading.enumerate()}
    for frame in range(5):
        colocated.put(request(frame))
    await colocated.unload("m:1")
    assert sorted(frame.frame for frame in answered) == [0, 1, 2, 3, 4]
    assert (colocated.models, colocated._watch._batches) == ({}, []), "it is not here any more"
    for thread in {*threading.enumerate()} - before:  # the model's, which was told to end
        await asyncio.to_thread(thread.join, 10.0)
        assert not thread.is_alive()
    await colocated.unload("m:1")
    await colocated.load(slow)
    assert [*colocated.models] == ["m:1"], "it can come back"
