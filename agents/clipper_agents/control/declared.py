"""From the manifests that somebody declares whole, as a file does, to what has to be written."""

from collections.abc import Collection, Iterable

import msgspec

from clipper_agents.control.plan import Edit, Plan, Published, same
from clipper_topics.change import Command
from clipper_topics.control_keys import application_key, model_key
from clipper_topics.manifests import ApplicationManifest, ModelManifest


def declared(
    published: Published,
    applications: Iterable[ApplicationManifest],
    models: Iterable[ModelManifest],
    *,
    broken: Collection[str] = (),
    prune: bool = False,
) -> Plan:
    """What differs from the control topic.

    Args:
        published: What is there.
        applications: As they shall be; a revision above the published one is kept.
        models: As they shall be.
        broken: Keys whose newest record everybody refuses: they are written again, though what is in force is the same.
        prune: Take away what is not declared.
    """
    wanted = {each.name: each for each in applications}
    by_ref = {each.ref: each for each in models}
    edits = [
        _edit(published.applications.get(name), each)
        for name, each in wanted.items()
        if not same(published.applications.get(name), each) or application_key(name).decode() in broken
    ]
    changed = [
        each for ref, each in by_ref.items() if published.models.get(ref) != each or model_key(ref).decode() in broken
    ]
    if not prune:
        return Plan(edits=tuple(edits), models=tuple(changed))
    edits += [
        Edit(application=name, command="delete", before=each)
        for name, each in published.applications.items()
        if name not in wanted
    ]
    gone = tuple(ref for ref in published.models if ref not in by_ref)
    return Plan(edits=tuple(edits), models=tuple(changed), withdrawn=gone)


def as_they_are(
    published: Published, applications: Iterable[ApplicationManifest], models: Iterable[ModelManifest]
) -> Plan:
    """Manifests of a program, each of the revision that it says where that is new."""
    edits = []
    for each in applications:
        there = published.applications.get(each.name)
        if there is None or each.revision > there.revision or not same(there, each):
            edits.append(_edit(there, each))
    return Plan(edits=tuple(edits), models=tuple(each for each in models if published.models.get(each.ref) != each))


def _edit(before: ApplicationManifest | None, after: ApplicationManifest) -> Edit:
    command: Command = "create" if before is None else "update"
    return Edit(application=after.name, command=command, before=before, after=after)


def numbered(after: ApplicationManifest, last: int) -> ApplicationManifest:
    """A manifest with the revision that follows the last one, or its own when that is higher.

    The revision is logged with each decision, so that two ways of deciding never share one.

    >>> numbered(ApplicationManifest(name="a", models=["m:1", "m:2"]), 4).revision
    5
    """
    return msgspec.structs.replace(after, revision=max(after.revision, last + 1))
