"""Cheap models inside the router process: two hops of Kafka instead of four.

The engine is that of the hosts. Rows and outputs are handed over within this process, so there is no frame to encode
and nothing to acknowledge: a crash loses what is in flight, and its queries, not acknowledged either, are read again.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from math import inf

import numpy as np

from clipper_agents.host.engine import HostEngine
from clipper_agents.host.engine_builder import make_engine, prepare
from clipper_agents.host.poison_rows import BatchGuard
from clipper_agents.host.predictor import Predictor
from clipper_agents.host.request_rows import RequestRows
from clipper_agents.host.watchdog import BatchWatch, ModelWatch
from clipper_agents.observability.metrics import HostMetrics
from clipper_agents.router.requests import OutputReceiver
from clipper_agents.streaming.app import TaskRunner
from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.runtimes.model_files import STRICT, FileRules
from clipper_stream.query import Request
from clipper_topics.frames import OutputFrame
from clipper_topics.manifests import ModelManifest

LOAD_WITHIN_S = 30.0
"""How long a router that starts waits for its models: scikit-learn takes some seconds to import on a busy machine."""


class ColocatedModels:
    """The models that this process runs itself.

    Args:
        metrics: Counts their batches.
        receiver: Takes output frames.
        tasks: Watches the tasks that run an engine; they should never end by themselves.
        allowed: Packages, modules and directories that this process may load models from.
        load_within_s: Longest wait of `load`, in seconds; the loading itself goes on.
        files: What the operator says about model files.
    """

    def __init__(
        self,
        metrics: HostMetrics,
        receiver: OutputReceiver,
        tasks: TaskRunner,
        allowed: Sequence[str],
        load_within_s: float = LOAD_WITHIN_S,
        files: FileRules = STRICT,
    ) -> None:
        self._metrics, self._receiver, self._tasks, self._allowed = metrics, receiver, tasks, allowed
        self._models: dict[str, ColocatedModel] = {}
        self._watch = ModelWatch()
        self._loading: dict[str, asyncio.Future[Predictor]] = {}
        self._load_within_s = load_within_s
        self._files = files

    async def load(self, manifest: ModelManifest) -> None:
        """Load a model, off the event loop, and run it from now on.

        Raises:
            SetupError: it cannot be loaded; the message says what to do.
        """
        if manifest.ref in self._models:
            return
        prepared = await self._prepared(manifest)
        model = ColocatedModel(self._receiver, self._watch.add(manifest.ref, manifest.batch.hang_s))
        guard = BatchGuard(model.watch)
        model.run(make_engine(manifest, prepared, model.send, model.finished, self._metrics, guard), self._tasks)
        self._models[manifest.ref] = model

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
        done, _ = await asyncio.wait({loading}, timeout=self._load_within_s)
        if not done:
            raise ModelNotLoaded(
                f"model {manifest.ref!r} has not loaded within {self._load_within_s:.0f} s, and is waited for: "
                "look at what it does while it is imported, made and warmed up"
            )
        del self._loading[manifest.ref]
        return loading.result()

    def take(self, request: Request) -> bool:
        """Take a request for a model that runs here; False when it does not."""
        model = self._models.get(request.ref)
        if model is not None:
            model.put(request)
        return model is not None

    async def unload(self, ref: str) -> None:
        """End a model once it has answered all its requests; do nothing for a model that does not run here.

        What its code has imported stays, because Python cannot unload a module. A model that has to go without a trace
        belongs on a host.
        """
        model = self._models.pop(ref, None)
        if model is not None:
            await model.finish()
            self._watch.remove(model.watch)

    async def stop(self) -> None:
        """End the engines; what they have not answered is lost with the process."""
        for model in self._models.values():
            await model.stop()


class ColocatedModel:
    """One model: requests in, output frames out, in order of submission.

    Attributes:
        watch: Over its batches.
    """

    def __init__(self, receiver: OutputReceiver, watch: BatchWatch) -> None:
        self.watch = watch
        self._receiver = receiver
        self._waiting: deque[Request] = deque()
        self._work, self._fed = asyncio.Event(), asyncio.Event()
        self._fed.set()
        self._tasks: list[asyncio.Task[None]] = []
        self._engine: HostEngine[int] | None = None

    def run(self, engine: HostEngine[int], tasks: TaskRunner) -> None:
        """Run the engine, and feed it."""
        self._engine = engine
        for work in (engine.run(), self._feed(engine)):
            self._tasks.append(tasks.watched(work))

    def put(self, request: Request) -> None:
        """Queue a request."""
        self._waiting.append(request)
        self._fed.clear()
        self._work.set()

    async def send(self, _partition: int, pieces: list[OutputFrame]) -> None:
        """Hand outputs back to the router."""
        self._receiver.gather(pieces)

    def finished(self, frames: list[int]) -> None:
        """Do nothing: there is nothing to acknowledge."""

    async def finish(self) -> None:
        """End when every request is answered."""
        if self._engine is not None:
            await self._fed.wait()
            self._engine.drain()
            await asyncio.wait(self._tasks[:1])
        await self.stop()

    async def stop(self) -> None:
        """End at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _feed(self, engine: HostEngine[int]) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            requests = [self._waiting.popleft() for _ in range(len(self._waiting))]
            await engine.submit((request.frame, _rows_of(request)) for request in requests)
            if not self._waiting:
                self._fed.set()


def _rows_of(request: Request) -> RequestRows:
    rows = request.rows
    kind = (str(rows.dtype), *rows.shape[1:]) if isinstance(rows, np.ndarray) else ("listed",)
    deadlines_s = tuple(request.deadlines_s.tolist()) or (inf,) * len(rows)
    return RequestRows(router=b"", frame=request.frame, reply=0, kind=kind, rows=rows, deadlines_s=deadlines_s)
