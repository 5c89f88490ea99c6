"""Clients for code without an event loop: the calls of an asynchronous client, made to block, from any thread."""

import asyncio
import atexit
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import AbstractAsyncContextManager
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

C = TypeVar("C", bound=AbstractAsyncContextManager[Any])
P = ParamSpec("P")
T = TypeVar("T")


class BlockingClient(Generic[C]):
    """Runs a client on an event loop in a thread of its own.

    A client that is still open when the interpreter ends is closed then.

    Args:
        client: The asynchronous client.
        closed: Makes the error of calls before `open`, after `close`, and of those that wait meanwhile.
    """

    def __init__(self, client: C, closed: Callable[[str], Exception]) -> None:
        self._client, self._closed = client, closed
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Connect; a second time does nothing. Errors are those of the client's own."""
        with self._lock:
            if self._loop is not None:
                return
            loop = self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_run, args=(loop,), name="clipper client", daemon=True)
            self._thread.start()
            atexit.register(self.close)
            try:
                self._result(asyncio.run_coroutine_threadsafe(self._client.__aenter__(), loop))
            except BaseException:
                self._end()
                raise

    def close(self) -> None:
        """Fail the calls that wait in other threads, disconnect, end the thread; a second time does nothing."""
        with self._lock:
            if self._loop is not None:
                try:
                    self._result(asyncio.run_coroutine_threadsafe(self._client.__aexit__(None, None, None), self._loop))
                finally:
                    self._end()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, make: Callable[[C], Coroutine[Any, Any, T]]) -> T:
        with self._lock:  # what is given to the loop before `close` asks it to stop is ended by it
            if self._loop is None:
                raise self._closed(f"the client is not open: use `with {type(self).__name__}(...) as client`")
            future = asyncio.run_coroutine_threadsafe(make(self._client), self._loop)
        return self._result(future)

    def _result(self, future: "Future[T]") -> T:
        """The result of work on the loop; an interrupt here cancels it there."""
        try:
            return future.result()
        except CancelledError as error:
            raise self._closed("the client was closed while the call waited") from error
        except BaseException:
            future.cancel()
            raise

    def _end(self) -> None:
        loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        assert loop is not None
        assert thread is not None
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        atexit.unregister(self.close)


def blocking(
    method: Callable[Concatenate[C, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[BlockingClient[C], P], T]:
    """A method of a `BlockingClient` that waits for one of its client."""

    def call(self: BlockingClient[C], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._call(lambda client: method(client, *args, **kwargs))

    return wraps(method)(call)


def constructed_as(
    init: Callable[Concatenate[C, P], None],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, P], None]]:
    """Gives the constructor of a `BlockingClient` the arguments of its client's."""
    return wraps(init)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop().run_forever()
