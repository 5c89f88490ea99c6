"""From a manifest to a running engine, in a host process or in a router's for a colocated model."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from clipper_agents.host.batch_traces import UNTRACED, BatchTraces
from clipper_agents.host.batching import HostBatcher
from clipper_agents.host.engine import HostEngine, Send
from clipper_agents.host.poison_rows import BatchGuard
from clipper_agents.host.predictor import Predictor, is_cheap
from clipper_agents.observability.logging import event
from clipper_agents.observability.metrics import BatchMetrics, ProcessMetrics
from clipper_stream.batching.registry import make_limit
from clipper_stream.batching.window import Window
from clipper_stream.models.registry import load_model
from clipper_stream.models.runtimes.model_files import STRICT, FileRules
from clipper_stream.models.warm_up import sample_rows, warm_up
from clipper_topics.manifests import ModelManifest

logger = logging.getLogger(__name__)

Origin = TypeVar("Origin")


def prepare(manifest: ModelManifest, allowed: Sequence[str], files: FileRules = STRICT) -> Predictor:
    """Load the model, warm it up and measure it. That may take seconds: not for an event loop that others wait for.

    The manifest may come from the control topic: `allowed` and `files` say what this process may load.

    Raises:
        SetupError: the manifest names no runtime, or a model that cannot be loaded; the message says what to do.

    >>> from clipper_topics.manifests import InputSpec
    >>> uri = "clipper_agents.examples.models:slow"
    >>> prepare(ModelManifest(name="slow", uri=uri, input=InputSpec(shape=[4])), ["clipper_agents.examples"]).inline
    False
    """
    declared = (manifest.runtime, manifest.uri, manifest.sha256, manifest.parameters)
    model = load_model(*declared, allowed=allowed, files=files)
    sample = partial(sample_rows, manifest.input.dtype, manifest.input.shape)
    refused = warm_up(model, sample(1))
    if refused is not None:
        event(logger, "model refuses an empty row", logging.WARNING, model=manifest.ref, reason=refused)
    inline = is_cheap(model, sample, manifest.batch.max_rows)
    event(logger, "model loaded", model=manifest.ref, uri=manifest.uri, runs_in="loop" if inline else "thread")
    return Predictor(model, inline=inline, ref=manifest.ref)


def make_engine(
    manifest: ModelManifest,
    predictor: Predictor,
    send: Send[Origin],
    finished: Callable[[list[Origin]], None],
    metrics: ProcessMetrics,
    guard: BatchGuard,
    traces: BatchTraces = UNTRACED,
) -> HostEngine[Origin]:
    """An engine with the batching that the manifest says; the arguments are those of `HostEngine`.

    Raises:
        SetupError: the manifest's batch settings lie outside their bounds.
    """
    batch = manifest.batch
    limit = make_limit(batch.limit, batch.target_ms / 1000, batch.max_rows)
    core: HostBatcher[Origin] = HostBatcher(Window(batch.max_delay_ms / 1000), limit)
    meter = BatchMetrics(metrics, manifest.name, manifest.version)
    return HostEngine(core, predictor, send, finished, meter, guard=guard, traces=traces)
