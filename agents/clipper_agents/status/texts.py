"""Times, evidence and values of records as people read them, on a terminal and in the console."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from clipper_stream.errors import plain

if TYPE_CHECKING:
    from clipper_topics.change import Change

DAY_S = 86_400
SHOWN_BYTES = 4_096
"""Of a value: a screen or two."""
NUMBER_DIGITS = 2
UNKNOWN = "-"
TOLD_ELSEWHERE = {
    *("feedbacks", "scores", "waiting", "since_s", "upto_s"),
    *("trial_feedbacks", "trial_loss", "answer_feedbacks", "answer_loss"),
    *("difference", "standard_error", "paired", "finding", "lower", "upper", "confidence", "margin"),
}
"""Numbers that have a place in a sentence, or that the manifest states."""


def span(from_s: float, upto_s: float) -> str:
    """Two moments in UTC, with their dates when a day or more lies between them.

    >>> span(1_700_000_000.0, 1_700_000_060.0)
    '22:13:20Z to 22:14:20Z'
    """
    first = 11 if upto_s - from_s < DAY_S else 0
    return " to ".join(when(round(1000 * at_s))[first:] for at_s in (from_s, upto_s))


def figure(form: str, behind: str = "", per: float = 1.0, below: float = 0.0, small: str = "") -> Callable[..., str]:
    """Return a function that writes numbers, a dash for None, in a format; those below a bound in the format `small`.

    >>> milliseconds = figure(".0f", " ms", below=10, small=".1f")
    >>> milliseconds(3.14159), milliseconds(41.7), milliseconds(None)
    ('3.1 ms', '42 ms', '-')
    """

    def write(value: float | None) -> str:
        if value is None:
            return UNKNOWN
        shown = value / per
        return f"{shown:{small if 0.0 < shown < below else form}}{behind}"

    return write


def numbers_of(change: "Change") -> str:
    """Return the evidence of an automatic decision, short.

    >>> from clipper_topics.change import Change
    >>> numbers_of(Change(application="a", revision=1, command="step", at_ms=0, by="rollout", numbers={"least": 0.25}))
    'least 0.25'
    """
    numbers = change.numbers
    told = [f"{numbers['feedbacks']} feedbacks"] if "feedbacks" in numbers else []
    if numbers.get("scores"):
        between = span(numbers["since_s"], numbers["upto_s"])
        told.append(f"{numbers['scores']} queries {between}, {numbers['waiting']} open")
    told += [
        f"{whose} loss {_short(numbers[f'{whose}_loss'])} of {count} feedbacks"
        for whose in ("trial", "answer")
        if (count := numbers.get(f"{whose}_feedbacks"))
    ]
    if {"difference", "lower", "upper"} <= numbers.keys():
        told.append(
            "difference {} [{}, {}]".format(*(_short(numbers[name]) for name in ("difference", "lower", "upper")))
        )
    elif {"lower", "upper"} <= numbers.keys():
        told.append(f"in [{_short(numbers['lower'])}, {_short(numbers['upper'])}]")
    return ", ".join(
        [*told, *(f"{name} {_short(value)}" for name, value in numbers.items() if name not in TOLD_ELSEWHERE)]
    )


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.{NUMBER_DIGITS}g}"
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(member)}" for name, member in value.items())
    return str(value)


def when(at_ms: int) -> str:
    """A timestamp in UTC, to the second; a record's may be anything.

    >>> when(0), when(2**62)
    ('1970-01-01 00:00:00Z', '4611686018427387904 ms')
    """
    try:
        return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%SZ}"
    except (OverflowError, ValueError, OSError):
        return f"{at_ms} ms"


def value_text(value: bytes | None) -> str:
    r"""The beginning of a record's value as text, with what is no UTF-8, or not printable, escaped.

    >>> print(value_text(b'{"a": 1}'), value_text(b"\xff\x00"), value_text(None))
    {"a": 1} \xff\x00 (null)
    """
    if value is None:
        return "(null)"
    text = "\n".join(map(plain, value[:SHOWN_BYTES].decode("utf-8", "backslashreplace").split("\n")))
    return f"{text}\n... and {rest} bytes more" if (rest := len(value) - SHOWN_BYTES) > 0 else text
