"""Who waits for which answer: futures by query id, on one event loop."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from clipper_stream.client.errors import InvalidQuery
from clipper_topics.prediction import Prediction


class Waiting:
    """The calls that wait for an answer. After `fail` every later call fails the same way."""

    def __init__(self) -> None:
        self._futures: dict[str, asyncio.Future[Prediction]] = {}
        self._failure: Callable[[], Exception] | None = None

    def __len__(self) -> int:
        return len(self._futures)

    def __contains__(self, query_id: str) -> bool:
        return query_id in self._futures

    @contextmanager
    def answer(self, query_id: str) -> Iterator[asyncio.Future[Prediction]]:
        """The future answer to the query; forgotten when the block ends, however it ends.

        Raises:
            InvalidQuery: another call waits for the same id.
        """
        if self._failure is not None:
            raise self._failure()
        if query_id in self._futures:
            raise InvalidQuery(f"query {query_id!r} is being asked by another call: wait for it, or give another id")
        future = self._futures[query_id] = asyncio.get_running_loop().create_future()
        try:
            yield future
        finally:
            del self._futures[query_id]
            if future.done() and not future.cancelled():
                future.exception()  # a failure that nobody awaited any more is no news for the loop's logger

    def resolve(self, prediction: Prediction) -> None:
        """Hand the answer to who waits for it; an answer that nobody waits for, or a second one, is dropped."""
        future = self._futures.get(prediction.query_id)
        if future is not None and not future.done():
            future.set_result(prediction)

    def fail(self, failure: Callable[[], Exception]) -> None:
        """Fail every call that waits and every later one, each with an exception of its own; the first reason stays."""
        if self._failure is not None:
            return
        self._failure = failure
        for future in self._futures.values():
            if not future.done():
                future.set_exception(failure())
