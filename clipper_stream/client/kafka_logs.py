"""What a client logs: that Kafka is lost, that it is back, and nothing of aiokafka's that nobody asked for.

Rules of this file:
- Only what aiokafka logs in the tasks of a client is dropped; an application's own consumers log as they did.
- Whoever sets the level of the logger `aiokafka`, or of one below it, asks for its records. Handlers and levels of the
  application are never changed.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

logger = logging.getLogger("clipper_stream.client")

_LIBRARY = "aiokafka"
_is_client: ContextVar[bool] = ContextVar("is_client", default=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what aiokafka logs in the block, and later in the tasks that begin in it, unless it was asked for."""
    for name, one in list(logging.Logger.manager.loggerDict.items()):
        if isinstance(one, logging.Logger) and name.partition(".")[0] == _LIBRARY:
            one.addFilter(_is_wanted)  # a filter is there once, however often added
    token = _is_client.set(True)
    try:
        yield
    finally:
        _is_client.reset(token)


def _is_wanted(record: logging.LogRecord) -> bool:
    if not _is_client.get():
        return True
    one: logging.Logger | None = logging.getLogger(record.name)
    while one is not None and one.name.startswith(_LIBRARY):
        if one.level:
            return True
        one = one.parent
    return False


class OutageLog:
    """Logs when no broker answers any more, and when one answers again.

    Args:
        client: aiokafka's, which asks the brokers who they are when it has lost a connection.
        where: Addresses of the brokers.
    """

    def __init__(self, client: Any, where: str) -> None:
        self._client, self._where, self._is_lost = client, where, False

    def look(self) -> None:
        """Log a change since the last look; in an outage, have the brokers asked again."""
        cluster = self._client.cluster
        is_lost = cluster._last_refresh_ms > cluster._last_successful_refresh_ms  # noqa: SLF001 (aiokafka tells it to nobody)
        if is_lost:
            self._client.force_metadata_update()  # a new connection alone does not ask
        if is_lost and not self._is_lost:
            logger.warning("no Kafka answers at %s: calls wait for it until their time is over", self._where)
        elif self._is_lost and not is_lost:
            logger.warning("Kafka at %s answers again", self._where)
        self._is_lost = is_lost
