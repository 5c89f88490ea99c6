"""Errors by whose fault they are.

    application --Query--> [decode] --> [input spec] --> [model] --> Prediction
                              |              |              |
                       (dead letter)   InvalidInput   ModelFailed
    operator ---manifest---> [registry]: InvalidSetting, UnknownName, ModelNotLoaded

A `RequestError` is the fault of who asked: the answer is a default output with this message, and the process goes
on. A `SetupError` is the fault of who configured: the process does not start, or the manifest is refused.
Each message states the value, the bound and what to do next. A value that came from outside is stated by `shown`.
"""

import json
import reprlib
from pathlib import Path
from typing import Any

SHOWN_CHARACTERS = 80
SHOWN_MEMBERS = 8
"""Of a list or a map: four levels of them are four thousand values, and more would not be seen."""
CLONE = Path(__file__).parents[1]
_shown = reprlib.Repr()
_shown.maxlevel, _shown.maxlist, _shown.maxtuple, _shown.maxdict = 4, SHOWN_MEMBERS, SHOWN_MEMBERS, SHOWN_MEMBERS
_shown.maxstring = _shown.maxother = _shown.maxlong = SHOWN_CHARACTERS


def shown(value: Any) -> str:
    """The value as a message states it: short, however long it is, and whatever its depth, without a RecursionError.

    >>> shown([[[[[[1]]]]]]), shown({"a": 1})
    ('[[[[[...]]]]]', "{'a': 1}")
    """
    text = _shown.repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def install_command(extra: str) -> str:
    """The command that installs an optional extra of this package, from where the package itself came.

    That is a clone, or what pip was given (PEP 610): a folder, a wheel, a URL; else a package index.
    """
    from importlib.metadata import distribution  # noqa: PLC0415 - of every process, an error has it alone

    if (CLONE / "pyproject.toml").exists():
        return f"pip install -e '{CLONE}[{extra}]'"
    url = json.loads(distribution("clipper-stream").read_text("direct_url.json") or "{}").get("url")
    return f"pip install 'clipper-stream[{extra}]{f' @ {url}' if url else ''}'"


def plain(text: str) -> str:
    r"""The text without anything that a terminal would obey; what is JSON stays the same JSON.

    >>> print(plain("red: \x1b[31m, \x9b31m"))
    red: \x1b[31m, \u009b31m
    """
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    if character < " ":  # JSON has none
        return character.encode("unicode_escape").decode()
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


class ClipperError(Exception):
    """Root of every error that this project raises on purpose."""


class RequestError(ClipperError):
    """The query or the feedback cannot be used as it is."""


class SetupError(ClipperError):
    """A setting, a manifest or a model cannot be used as it is."""


class InvalidInput(RequestError):
    """An input does not fit the application's input spec. Raised by `inputs`."""


class InvalidLabel(RequestError):
    """A label, loss or reward cannot be compared with the output. Raised by `feedback.update`."""


class ModelFailed(RequestError):
    """A model raised, or gave another number of outputs than it got rows. Raised by `models.runner`."""


class ModelUnavailable(RequestError):
    """A model's server is not there, too slow or refuses all: no row's fault. Raised by runtimes that ask a server."""


class InvalidSetting(SetupError):
    """A parameter lies outside its bound."""


class UnknownName(SetupError):
    """No policy, runtime, limit, combiner or loss has this name; the message lists those that exist."""


class ModelNotLoaded(SetupError):
    """A model file is missing, has another digest than its manifest says, or cannot be loaded safely."""
