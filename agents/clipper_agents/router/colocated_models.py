"""Cheap models inside the router process: two hops of Kafka instead of four.

The engine is that of the hosts. Rows and outputs are handed over within this process, so there is no frame to encode
and nothing to acknowledge: a crash loses what is in flight, and its queries, not acknowledged either, are read again.
"""

import asyncio
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from clipper_agents.host.batching import Piece, RequestRows
from clipper_agents.host.engine import BatchTraces, HostEngine, make_engine
from clipper_agents.host.predictor import Predictor, prepare
from clipper_agents.host.watchdog import BatchWatch, ModelWatch
from clipper_agents.observability.metrics import ProcessMetrics
from clipper_agents.router.requests import OutputReceiver
from clipper_agents.streaming.app import TaskRunner
from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.runtimes.model_files import STRICT, FileRules
from clipper_stream.query import Request
from clipper_topics.manifests import ModelManifest

if TYPE_CHECKING:
    from clipper_agents.observability.span_exporter import SpanRecorder

LOAD_WITHIN_S = 30.0
"""How long a router that starts waits for its models: scikit-learn takes some seconds to import on a busy machine."""


class ColocatedModel(NamedTuple):
    """One model that runs: its engine, the watch over its batches, and the task that runs it."""

    engine: HostEngine
    watch: BatchWatch
    running: asyncio.Task[None]


class ColocatedModels:
    """The models that this process runs itself; `models` has them by reference."""

    def __init__(
        self,
        metrics: ProcessMetrics,
        receiver: OutputReceiver,
        tasks: TaskRunner,
        allowed: Sequence[str],
        files: FileRules = STRICT,
        recorder: "SpanRecorder | None" = None,
    ) -> None:
        self._metrics, self._receiver, self._tasks, self._allowed = metrics, receiver, tasks, allowed
        self.models: dict[str, ColocatedModel] = {}
        self._watch = ModelWatch()
        self._loading: dict[str, asyncio.Future[Predictor]] = {}
        self._files, self._recorder = files, recorder

    @property
    def loading(self) -> list[str]:
        """The models that are being loaded, by reference; any thread may ask."""
        return list(self._loading)

    async def load(self, manifest: ModelManifest) -> None:
        """Load a model, off the event loop, and run it from now on.

        Raises:
            SetupError: it cannot be loaded; the message says what to do.
        """
        if manifest.ref in self.models:
            return
        prepared = await self._prepared(manifest)
        watch = self._watch.add(manifest.ref, manifest.batch.hang_s)
        traces = BatchTraces(self._recorder, manifest.ref)
        engine = make_engine(manifest, prepared, self, self._metrics, [watch], traces)
        self.models[manifest.ref] = ColocatedModel(engine, watch, self._tasks.watched(engine.run()))

    def send(self, _partition: int, pieces: Sequence[Piece]) -> None:
        self._receiver.gather([frame for _, frame in pieces])

    def finish(self, _origins: list[Any]) -> None:
        """Do nothing: what has no record has no acknowledgement."""

    async def _prepared(self, manifest: ModelManifest) -> Predictor:
        """Load a model; a load that takes long goes on, and the next call waits for the same one.

        A thread cannot be ended: a model that never loads keeps one, and holds up no other model.
        """
        loading = self._loading.get(manifest.ref)
        if loading is None:
            loop = asyncio.get_running_loop()
            loading = self._loading[manifest.ref] = loop.run_in_executor(
                None, prepare, manifest, self._allowed, self._files
            )
        done, _ = await asyncio.wait({loading}, timeout=LOAD_WITHIN_S)
        if not done:
            raise ModelNotLoaded(
                f"model {manifest.ref!r} has not loaded within {LOAD_WITHIN_S:.0f} s, and is waited for: "
                "look at what it does while it is imported, made and warmed up"
            )
        del self._loading[manifest.ref]
        return loading.result()

    def put(self, request: Request) -> None:
        """Take a request for one of the models; its engine is as full as the router is."""
        self.models[request.ref].engine.take(_rows_of(request))

    async def unload(self, ref: str) -> None:
        """End a model once it has answered all its requests; do nothing for a model that does not run here.

        What its code has imported stays, because Python cannot unload a module. A model that has to go without a trace
        belongs on a host.
        """
        model = self.models.pop(ref, None)
        if model is not None:
            model.engine.drain()
            await asyncio.wait([model.running])
            self._watch.remove(model.watch)

    async def stop(self) -> None:
        """End the engines; what they have not answered is lost with the process."""
        for model in self.models.values():
            model.running.cancel()
            await asyncio.gather(model.running, return_exceptions=True)


def _rows_of(request: Request) -> RequestRows:
    rows = request.rows
    kind = (rows.dtype.str, *rows.shape[1:]) if isinstance(rows, np.ndarray) else ("listed",)
    deadlines_s = tuple(request.deadlines_s.tolist()) or (inf,) * len(rows)
    traced = tuple(named for named, _ in request.traced)
    return RequestRows(
        router=b"", frame=request.frame, reply=0, kind=kind, rows=rows, deadlines_s=deadlines_s, traced=traced
    )
