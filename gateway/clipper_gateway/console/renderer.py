"""How a page becomes HTML: the templates, and numbers, times and texts as people read them.

Rules of this file:
- Whatever comes from outside is text: everything is escaped, and no template declares anything safe.
- A block of a template whose name begins with `live_` is a live region. It is rendered alone, from `Page.data` and
  nothing else, so that all viewers with the same rights share it.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from clipper_agents.status.texts import figure, numbers_of, span, value_text, when
from clipper_stream.evaluation.report.page import page_environment

TEMPLATES = Path(__file__).parent / "templates"
SHOWN_CHARACTERS = 4_000
"""Of an output: a screen or two."""
CACHED = ("action_form", "application", "model", "trial", "revision", "time", "stage")
"""Macros of what a page has by the hundred, and the same every second."""


class Page(NamedTuple):
    """What a template is rendered with: `data` by name; `status` is that of HTTP."""

    template: str
    title: str
    data: Mapping[str, Any]
    status: int = 200


class Renderer:
    """Renders templates; `static` returns the URL of a file in the folder of that name."""

    def __init__(self, static: Callable[[str], str]) -> None:
        self._environment = environment = page_environment(TEMPLATES)
        environment.filters.update(FILTERS)
        self._parts = cast("Any", environment.get_template("macros.html").module)
        for name in CACHED:
            setattr(self._parts, name, lru_cache(4096)(getattr(self._parts, name)))
        environment.filters |= {"code": self._parts.code, "command": self._parts.command}
        environment.globals.update(static=static, action_button=self._action_button, ui=self._parts)
        environment.globals["release"] = version("clipper-stream")
        for name in environment.list_templates():  # compiled now, not beside predictions
            environment.get_template(name)

    def render(self, template: str, **context: Any) -> str:
        return self._environment.get_template(template).render(context)

    def regions(self, page: Page) -> dict[str, str]:
        found: dict[str, str] = {}
        for template in map(self._environment.get_template, ("base.html", page.template)):
            context = template.new_context(dict(page.data))
            live = ((name, block) for name, block in template.blocks.items() if name.startswith("live_"))
            found |= {name: "".join(block(context)) for name, block in live}
        return found

    @pass_context
    def _action_button(self, context: Context, action: str, label: str, kind: str = "", **fields: Any) -> Markup:
        """Return a button that opens an action's preview, `primary`, `danger` or plain; nothing for who may not act."""
        if not context.get("can_operate", False):
            return Markup()
        form: Markup = self._parts.action_form(action, label, kind, tuple(fields.items()), context.get("csrf", ""))
        return form


def as_json(value: Any) -> str:
    """Return a value as JSON, cut where it is long."""
    text = msgspec.json.encode(value).decode()
    rest = len(text) - SHOWN_CHARACTERS
    return text if rest <= 0 else f"{text[:SHOWN_CHARACTERS]}... and {rest:,} characters more"


FILTERS: dict[str, Callable[..., Any]] = {
    "ms": figure(",.0f", "\xa0ms", below=10, small=".1f"),
    "percent": figure(".0f", "\xa0%", per=0.01, below=1, small=".1f"),
    "share": figure(".3g", "\xa0%", per=0.01),
    "number": figure(".3f"),
    "probability": figure(".4f"),
    "signed": figure("+.3f"),
    "count": figure(",.0f"),
    "rate": figure(",.0f", "/s", below=100, small=",.1f"),
    "moment": lambda at_s: when(round(1000 * at_s)),
    "span": span,
    "diff_kind": lambda line: {"+": "add", "-": "del"}.get(line[:1], ""),
    "json": as_json,
    "output": lambda said: as_json(said.outputs if said.output is msgspec.UNSET else said.output),
    "bytes": value_text,
    "evidence": numbers_of,
}
