"""Logs: one line a rare event, on stderr, as `key=value` or as a JSON object.

    2026-11-25T13:28:00.123Z level=info logger=clipper_agents.router msg="partitions assigned" partitions=0,1
    {"at": "2026-11-25T13:28:00.123Z", "level": "info", "logger": "clipper_agents.router", "msg": ...}

Rules of this file:
- One record is one line, whatever is in it. As text a traceback has lines of its own below, each indented; as JSON it
  is a field. An error of ours says what is to be done about it, whichever library logs it: it has none.
- What a new topic or group makes every client say for a moment is written only when it lasts.
- In an outage aiokafka logs thousands of lines a second, so the libraries' loggers say each message once in
  `PERIOD_S`; the next line that passes says how many were left out.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any

from clipper_stream.errors import ClipperError, InvalidSetting, plain

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")
NOISY = ("aiokafka", "faust", "kafka", "mode", "asyncio", "jgo", "opentelemetry", "uvicorn")
"""Loggers of libraries: warnings and worse only, unless the level is debug, and never in floods."""
LATE_TIMERS = "mode.timers"
"""Warns of each commit that takes longer than the pause between two, as all do on a slow machine: errors only."""
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


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What a command line says about logs; where it says nothing, `CLIPPER_LOG_LEVEL` and `CLIPPER_LOG_FORMAT` do.

    >>> LogOptions(format="json").words
    ('--log-format', 'json')
    """

    level: str | None = None
    format: str | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """These options, for the command line of a child."""
        given = {"--log-level": self.level, "--log-format": self.format}
        return tuple(word for option, value in given.items() if value for word in (option, value))

    def configure(self, environ: Mapping[str, str], stream: IO[str] | None = None) -> None:
        """Send all logs of the process to a stream, or to stderr: without options of level info, and as text.

        Raises:
            InvalidSetting: no such level or format.
        """
        name = (self.level or environ.get("CLIPPER_LOG_LEVEL") or "info").lower()
        form = (self.format or environ.get("CLIPPER_LOG_FORMAT") or "text").lower()
        for what, given, known in (("level", name, LEVELS), ("format", form, FORMATS)):
            if given not in known:
                raise InvalidSetting(f"log {what} {given!r}: use one of {', '.join(known)}")
        handler = logging.StreamHandler(stream)
        handler.setFormatter(JsonFormatter() if form == "json" else KeyValueFormatter())
        handler.addFilter(FloodFilter())
        root = logging.getLogger()
        root.handlers[:] = [handler]
        root.setLevel(name.upper())
        for noisy, least in (dict.fromkeys(NOISY, logging.WARNING) | {LATE_TIMERS: logging.ERROR}).items():
            logging.getLogger(noisy).setLevel(logging.DEBUG if name == "debug" else least)
        logging.captureWarnings(capture=True)


DEFAULT_LOGS = LogOptions()


class KeyValueFormatter(logging.Formatter):
    """Formats a record as a line of `key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record, self.formatException)
        traceback = str(fields.pop("traceback", "")).splitlines()
        line = " ".join([_moment(record.created), *(f"{key}={_quoted(value)}" for key, value in fields.items())])
        return "\n    ".join([line, *map(plain, traceback)])


class JsonFormatter(logging.Formatter):
    """Formats a record as a line of JSON, with the same fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {key: _json_value(value) for key, value in _fields(record, self.formatException).items()}
        return _json_line({"at": _moment(record.created), **fields})


def child_line(child: str, line: str) -> str:
    """Return what a child of this process wrote with the child's name, as this process writes its own logs.

    >>> child_line("router-0", "level=info msg=hello")
    'child=router-0 level=info msg=hello'
    """
    if not writes_json():
        return f"child={child} {line}"
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    fields = found if isinstance(found, dict) else {"at": _moment(time.time()), "msg": line}
    return _json_line({"child": child, **fields})


def error_line(message: str) -> str:
    """Return the line with which a process that cannot go on says why, as it writes its logs.

    >>> error_line("no broker answers")
    'error: no broker answers'
    """
    if not writes_json():
        return f"error: {message}"
    return _json_line({"at": _moment(time.time()), "level": "error", "msg": message})


def writes_json() -> bool:
    """Whether the logs of this process are JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


def _fields(record: logging.LogRecord, traceback: Callable[[Any], str]) -> dict[str, object]:
    fields: dict[str, object] = {
        "level": record.levelname.lower(),
        "logger": record.name,
        "msg": record.getMessage(),
        **getattr(record, "fields", {}),
    }
    if record.exc_info:
        error = record.exc_info[1]
        is_ours = isinstance(error, ClipperError)
        fields |= {"error": error} if is_ours else {"traceback": traceback(record.exc_info)}
    return fields


def _moment(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json_line(fields: Mapping[str, object]) -> str:
    return plain(json.dumps(fields, ensure_ascii=False))


def _json_value(value: object) -> object:
    is_number = isinstance(value, (int, float)) and math.isfinite(value)
    return value if is_number or value is None else str(value)


def _quoted(value: object) -> str:
    text = str(value)
    return text if text and _PLAIN.issuperset(text) else plain(json.dumps(text, ensure_ascii=False))


class FloodFilter(logging.Filter):
    """Lets a message of a noisy logger pass once a period."""

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
            if count > 1:
                record.fields = {**getattr(record, "fields", {}), "suppressed": count - 1}
            since_s, count = now_s, 0
        self._seen[key] = (since_s, count + 1)
        return count == 0

    def _is_passing(self, record: logging.LogRecord, now_s: float) -> bool:
        message = record.getMessage()
        if not any(words in message for words in PASSING):
            return False
        if self._passing_since_s is None or now_s - self._passing_since_s > PASSES_WITHIN_S + PERIOD_S:
            self._passing_since_s = now_s
        return now_s - self._passing_since_s <= PASSES_WITHIN_S
