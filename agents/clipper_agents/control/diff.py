"""The difference between two manifests, for people: a line a field."""

from collections.abc import Iterator
from typing import Any

import msgspec

from clipper_agents.control.plan import Plan, Published, stated
from clipper_topics.manifests import ApplicationManifest, ModelManifest

Manifest = ApplicationManifest | ModelManifest
SHOWN_CHARACTERS = 100


def plan_lines(published: Published, plan: Plan) -> Iterator[str]:
    """What a plan changes, models first: `+` comes, `-` goes, `~` changes.

    >>> from clipper_agents.control.state import Manifests
    >>> print(*plan_lines(Manifests(), Plan(models=(ModelManifest(name="svm", uri="m:f"),))), sep=chr(10))
    + model svm:1
        name     "svm"
        uri      "m:f"
    """
    for model in plan.models:
        yield from manifest_lines(f"model {model.ref}", published.models.get(model.ref), model)
    for edit in plan.edits:
        yield from manifest_lines(f"application {edit.application}", edit.before, edit.after)
    yield from (f"- model {ref}" for ref in plan.withdrawn)


def manifest_lines(title: str, before: Manifest | None, after: Manifest | None) -> Iterator[str]:
    """One manifest's difference; the fields that it states, when it is new."""
    if after is None:
        yield f"- {title}"
        return
    new, old = (stated(after), {}) if before is None else (_fields(after), _fields(before))
    yield f"{'+' if before is None else '~'} {title}"
    names = [
        name for name in (*new, *(old.keys() - new.keys())) if name != "revision" and new.get(name) != old.get(name)
    ]
    width = max((len(name) for name in names), default=0)
    for name in names:
        if before is None:
            yield f"    {name:<{max(width, 8)}} {_shown(new[name])}"
        else:
            yield f"    {name:<{width}} {_shown(old[name])} -> {_shown(new[name])}"


def _fields(manifest: Manifest) -> dict[str, Any]:
    """Every field of a changed one could differ from its default or not: both are written out whole."""
    return {
        field.name: msgspec.to_builtins(getattr(manifest, field.name)) for field in msgspec.structs.fields(manifest)
    }


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
