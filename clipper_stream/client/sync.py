"""The client for code without an event loop, from any number of threads."""

import asyncio
import atexit
import threading
from collections.abc import Coroutine, Iterable
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from clipper_stream.client.answer import Answer
from clipper_stream.client.client import TIMEOUT_S, Client
from clipper_stream.client.client_records import CallOptions, QueryOptions, Truth
from clipper_stream.client.errors import ClientClosed
from clipper_topics.codec import JSON
from clipper_topics.connection import KafkaConnection

T = TypeVar("T")


class SyncClient:
    """A client of one deployment whose calls block; it runs a `Client` on an event loop in a thread of its own.

        with SyncClient("localhost:9092") as client:
            answer = client.predict("digits", [0.0, 0.5, 1.0])
            client.feedback(answer, label=3)

    A client that is still open when the interpreter ends is closed then. Arguments are those of `Client`.
    """

    def __init__(
        self,
        kafka: str | KafkaConnection,
        *,
        prefix: str = "clipper",
        content_type: str = JSON,
        send_timeout_s: float = 5.0,
    ) -> None:
        self._client = Client(kafka, prefix=prefix, content_type=content_type, send_timeout_s=send_timeout_s)
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Connect; a second time does nothing. Errors are those of `Client.open`."""
        with self._lock:
            if self._loop is not None:
                return
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_run, args=(self._loop,), name="clipper client", daemon=True)
            self._thread.start()
            atexit.register(self.close)
            try:
                _result(asyncio.run_coroutine_threadsafe(self._client.open(), self._loop))
            except BaseException:
                self._end()
                raise

    def close(self) -> None:
        """Fail the calls that wait in other threads, disconnect, end the thread; a second time does nothing."""
        with self._lock:
            if self._loop is not None:
                try:
                    _result(asyncio.run_coroutine_threadsafe(self._client.close(), self._loop))
                finally:
                    self._end()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def predict(
        self,
        application: str,
        input: Any,  # noqa: A002 the record's word, and the builtin is not wanted here
        **options: Unpack[CallOptions],
    ) -> Answer:
        """The answer to a query of one row; arguments and errors are those of `Client.predict`."""
        return self._call(self._client.predict(application, input, **options))

    def predict_many(
        self, application: str, inputs: Iterable[Any], *, timeout_s: float = TIMEOUT_S, **options: Unpack[QueryOptions]
    ) -> list[Answer]:
        """Return one answer an input, in order; arguments and errors are those of `Client.predict_many`."""
        return self._call(self._client.predict_many(application, inputs, timeout_s=timeout_s, **options))

    def predict_packed(self, application: str, inputs: Iterable[Any], **options: Unpack[CallOptions]) -> Answer:
        """Return one answer to one query of several rows; arguments and errors are those of `Client.predict_packed`."""
        return self._call(self._client.predict_packed(application, inputs, **options))

    def feedback(self, query: Answer | str, *, context: str | None = None, **truth: Unpack[Truth]) -> tuple[int, int]:
        """Say what was true about a query; arguments, result and errors are those of `Client.feedback`."""
        return self._call(self._client.feedback(query, context=context, **truth))

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        with (
            self._lock
        ):  # whatever is given to the loop before `close` asks it to stop is ended by it, one way or other
            if self._loop is None:
                work.close()
                raise ClientClosed("the client is not open: use `with SyncClient(...) as client`")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        return _result(future)

    def _end(self) -> None:
        loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        assert loop is not None
        assert thread is not None
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        atexit.unregister(self.close)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop until it is stopped, then what is left of its tasks."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop().run_forever()


def _result(future: Future[T]) -> T:
    """The result of work on the loop; an interrupt here cancels it there."""
    try:
        return future.result()
    except CancelledError as error:
        raise ClientClosed("the client was closed while the call waited") from error
    except BaseException:
        future.cancel()
        raise
