"""Logs: one `key=value` line a rare event, on stderr.

    2026-11-25T13:28:00.123Z level=info logger=clipper_agents.router msg="partitions assigned" partitions=0,1

Rules of this file:
- One record is one line: a traceback is a field with its line breaks escaped. An error of ours says what is to be done
  about it, whichever library logs it: it has none.
- What a new topic or group makes every client say for a moment is written only when it lasts.
- A handler never outlives its stream: whoever gives a file to the logs gives it for a block, at whose end the handlers
  of before are back.
- In an outage aiokafka logs thousands of lines a second, so the libraries' loggers say each message at most
  `BURST` times in `PERIOD_S`; the next line that passes says how many were left out.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from clipper_stream.errors import ClipperError, InvalidSetting, plain

LEVELS = ("debug", "info", "warning", "error")
NOISY = ("aiokafka", "faust", "kafka", "mode", "asyncio", "jgo")
"""Loggers of libraries: warnings and worse only, unless the level is debug, and never in floods."""
BURST = 3
PERIOD_S = 10.0
REMEMBERED = 1_000
"""Different messages kept in mind; beyond that all are forgotten, so that memory is bounded."""

PASSING = ("NotLeaderForPartitionError", "GroupCoordinatorNotAvailableError", "Marking the coordinator dead")
PASSES_WITHIN_S = 5.0
"""A topic or a group made a moment ago has no leader yet, and the client asks again by itself: an error for the
library, none for the reader unless it goes on for so long."""

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:/,+@%[]()")


def event(logger: logging.Logger, message: str, /, level: int = logging.INFO, **fields: object) -> None:
    """Log one event with fields: `event(logger, "child ended", child="router-0", exit_code=1)`."""
    logger.log(level, message, extra={"fields": fields}, stacklevel=2)


class KeyValueFormatter(logging.Formatter):
    """Formats a record as one line."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, object] = {
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            error = record.exc_info[1]
            is_ours = isinstance(error, ClipperError)
            fields |= {"error": error} if is_ours else {"traceback": self.formatException(record.exc_info)}
        return " ".join([moment.replace("+00:00", "Z"), *(f"{key}={_quoted(value)}" for key, value in fields.items())])


def _quoted(value: object) -> str:
    text = str(value)
    return text if text and _PLAIN.issuperset(text) else plain(json.dumps(text, ensure_ascii=False))


class FloodFilter(logging.Filter):
    """Lets a message of a noisy logger pass a few times a period.

    Args:
        clock: Seconds that never go back; given by tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}
        self._passing_since_s: float | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written; one that follows suppressed ones says how many they were."""
        if record.name.split(".")[0] not in NOISY:
            return True
        key, now_s = (record.name, str(record.msg)), self._clock()
        if self._is_passing(record, now_s):
            return False
        if len(self._seen) >= REMEMBERED:
            self._seen.clear()
        since_s, count = self._seen.get(key, (now_s, 0))
        if now_s - since_s >= PERIOD_S:
            if count > BURST:
                record.fields = {**getattr(record, "fields", {}), "suppressed": count - BURST}
            since_s, count = now_s, 0
        self._seen[key] = (since_s, count + 1)
        return count < BURST

    def _is_passing(self, record: logging.LogRecord, now_s: float) -> bool:
        """Whether it is one of the messages that pass by themselves, and has not lasted yet."""
        message = record.getMessage()
        if not any(words in message for words in PASSING):
            return False
        if self._passing_since_s is None or now_s - self._passing_since_s > PASSES_WITHIN_S + PERIOD_S:
            self._passing_since_s = now_s
        return now_s - self._passing_since_s <= PASSES_WITHIN_S


def configure_logging(level: str | None, environ: Mapping[str, str]) -> None:
    """Send all logs of the process to stderr as lines of `key=value`.

    Without a level it is that of the variable `CLIPPER_LOG_LEVEL`, else `info`.

    Raises:
        InvalidSetting: no such level.
    """
    _configure(level, environ, sys.stderr)


@contextmanager
def log_file(path: Path, level: str | None, environ: Mapping[str, str]) -> Iterator[IO[str]]:
    """Send all logs and warnings of the process to a file, written anew, for the length of a block.

    Yields:
        The file, for lines that are no logs; the block must end before anything else writes to it.

    Raises:
        InvalidSetting: no such level.
        OSError: the file cannot be written.
    """
    root = logging.getLogger()
    handlers, levels = root.handlers[:], {one: one.level for one in (root, *map(logging.getLogger, NOISY))}
    with path.open("w", encoding="utf-8", buffering=1) as lines:
        try:
            _configure(level, environ, lines)
            yield lines
        finally:
            root.handlers[:] = handlers
            for one, before in levels.items():
                one.setLevel(before)
            logging.captureWarnings(capture=False)


def _configure(level: str | None, environ: Mapping[str, str], stream: IO[str]) -> None:
    name = (level or environ.get("CLIPPER_LOG_LEVEL") or "info").lower()
    if name not in LEVELS:
        raise InvalidSetting(f"log level {name!r}: use one of {', '.join(LEVELS)}")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(KeyValueFormatter())
    handler.addFilter(FloodFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(name.upper())
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.DEBUG if name == "debug" else logging.WARNING)
    logging.captureWarnings(capture=True)
