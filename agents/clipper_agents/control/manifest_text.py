"""Manifests as text: the difference of two, a line a field, and the registry as a file that `apply` takes back."""

from collections.abc import Iterator
from typing import Any

import msgspec
import tomli_w

from clipper_agents.control.errors import RefusedChange
from clipper_agents.control.host_reports import one_line
from clipper_agents.control.plan import Plan, stated
from clipper_agents.control.rollback import RolledBack
from clipper_agents.control.state import ControlState, Manifests
from clipper_topics.change import Change
from clipper_topics.control_keys import Manifest

SHOWN_CHARACTERS = 100


# --- differences --------------------------------------------------------------------------------------------------
def plan_lines(state: ControlState, plan: Plan) -> Iterator[str]:
    """Yield a line for each difference that a plan makes, models first: `+` is new, `-` is withdrawn, `~` changes.

    >>> from clipper_topics.manifests import ModelManifest
    >>> print(*plan_lines(ControlState(), Plan(models=(ModelManifest(name="svm", uri="m:f"),))), sep=chr(10))
    + model svm:1
        name     "svm"
        uri      "m:f"
    """
    for model in plan.models:
        yield from manifest_lines(f"model {model.ref}", state.manifests.models.get(model.ref), model)
    for change in plan.changes:
        yield from manifest_lines(f"application {change.application}", change.before, change.after)
    yield from (f"- model {ref}" for ref in plan.withdrawn)


def change_text(change: Change) -> str:
    """Return a change in one line: what, of whom, by whom and why.

    >>> change_text(Change(application="a", revision=5, command="retire", model="m:1", at_ms=0, by="ada", why="late"))
    'a revision 5: retire m:1 by ada: late'
    """
    model, why = f" {change.model}" if change.model else "", f": {one_line(change.why)}" if change.why else ""
    return f"{change.application} revision {change.revision}: {change.command}{model} by {one_line(change.by)}{why}"


def manifest_lines(title: str, before: Manifest | None, after: Manifest | None) -> Iterator[str]:
    """Yield the difference of one manifest, field by field; of a new one the fields that it states."""
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
    return {
        field.name: msgspec.to_builtins(getattr(manifest, field.name)) for field in msgspec.structs.fields(manifest)
    }


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


# --- what was written -----------------------------------------------------------------------------------------------
def written_lines(written: Plan) -> list[str]:
    """Return a line for each manifest that was written."""
    if not written:
        return ["nothing changed"]
    lines = [f"model {each.ref}{' retired' if each.retired else ''}" for each in written.models]
    for made in written.changes:
        about = f" {made.model}" if made.model else ""
        lines.append(f"application {made.application} revision {made.revision}: {made.command}{about}")
    return [*lines, *(f"model {ref} withdrawn" for ref in written.withdrawn)]


def rollback_lines(done: RolledBack) -> list[str]:
    """Return what a rollback undid and wrote, and what became of the selection state."""
    if not done.written:
        return ["nothing changed"]
    undone = (f"undone: {change_text(each)}" for each in done.undone)
    return [*undone, *written_lines(done.written), f"selection state {done.selection_state}"]


# --- the whole registry -------------------------------------------------------------------------------------------
def as_toml(published: Manifests) -> str:
    """Return every manifest as the TOML tables of a configuration.

    >>> from clipper_topics.manifests import ModelManifest
    >>> print(as_toml(Manifests(models={"svm:1": ModelManifest(name="svm", uri="m:f")})).splitlines()[:3])
    ['[[model]]', 'name = "svm"', 'uri = "m:f"']
    """
    content = _content(published)
    for application in content["application"]:
        if application.get("objective_ms", 0) is None:
            application["objective_ms"] = "none"  # as a configuration has it
    for path in _nulls("", content):
        raise RefusedChange(f"{path} is null, which TOML cannot say: export with --json")
    return "\n".join(_table(kind, each) for kind, tables in content.items() for each in tables)


def _table(kind: str, content: dict[str, Any]) -> str:
    return "[" + tomli_w.dumps({kind: content}).replace("]\n", "]]\n", 1)


def as_json(published: Manifests) -> str:
    """Return every manifest as JSON of the same shape."""
    return msgspec.json.format(msgspec.json.encode(_content(published)), indent=2).decode() + "\n"


def _content(published: Manifests) -> dict[str, list[dict[str, Any]]]:
    return {
        "model": [stated(model) for _, model in sorted(published.models.items())],
        "application": [stated(each) for _, each in sorted(published.applications.items())],
    }


def _nulls(path: str, value: Any) -> Iterator[str]:
    if value is None:
        yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield from _nulls(f"{path}.{key}".lstrip("."), member)
