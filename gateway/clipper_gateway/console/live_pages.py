"""What the pages that follow the deployment show: plain data for the templates, from a view and a request.

Rules of this file:
- A caller sees the applications that its key names, and what is about them; hosts' events and problems of the whole
  deployment are for who sees all.
- A page is made again every second for as long as somebody looks at it, so that lists are cut into sheets.
"""

import difflib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from clipper_agents.status.health import Gauge, board, unanswered_ratio, worst
from clipper_agents.status.model import ApplicationStatus, VersionStatus
from clipper_agents.status.problems import UNKNOWN, StatusProblem
from clipper_gateway.console.follower import LiveView
from clipper_gateway.console.renderer import Page
from clipper_gateway.errors import Refusal
from clipper_gateway.rest import HttpCall
from clipper_stream.errors import shown
from clipper_topics.change import Change
from clipper_topics.manifests import ApplicationManifest
from clipper_topics.prediction import REASONS

APPLICATIONS, MODELS, CHANGES = 200, 100, 50
"""Rows of a sheet."""
SHOWN_EVENTS, MARKS = 10, 50
"""The newest, in the overview and in the charts of an application."""
OF_ALL = StatusProblem("something is wrong with the whole deployment", "answers may not come", "ask its operator")
OF_PIPELINE = {"good": "serves", "warn": "serves", "bad": "down", "unknown": "not known"}
"""For who does not see all of it."""
MARKED_S = 48 * 3600.0
"""As far back as charts go."""


# --- the deployment -------------------------------------------------------------------------------------------------
SORTED_BY: Mapping[str, Callable[[ApplicationStatus], float]] = {
    "queries": lambda one: one.queries_per_s,
    "p99": lambda one: one.latency.p99_ms if one.latency else -1.0,
    "unanswered": lambda one: unanswered_ratio([one]),
    "feedback": lambda one: one.feedback_per_s,
    "lag": lambda one: sum(each.declared.lag or 0 for each in one.versions if each.declared),
    "trials": lambda one: len(one.trials),
}
"""What applications can be sorted by, the largest first."""


def overview(view: LiveView, call: HttpCall) -> Page:
    """What is wrong, the health of what all applications share, every application in a line, and what happened last."""
    part, order = call.text("q").lower(), call.text("sort") or "state"
    sees_all = call.caller.applications is None
    seen = [one for one in view.applications() if call.caller.sees(one.name)]
    wrong, gauges = _wrong(view, call, seen), board(view.status(), seen)
    pipeline = worst(gauges[:2])
    if not sees_all:
        gauges = [Gauge("Pipeline", OF_PIPELINE[pipeline], "", pipeline), gauges[-1]]
    found = [one for one in seen if part in one.name]
    if order != "application":
        found.sort(key=SORTED_BY.get(order, lambda one: len(wrong.get(one.name, ()))), reverse=True)
    events = (one for one in reversed(view.facts.events) if sees_all or call.caller.sees(one.application or ""))
    data = {
        "q": part,
        "order": order,
        "orders": ("state", "application", *SORTED_BY),
        "sheet": sheet_of(found, call, APPLICATIONS),
        "problems": wrong,
        "applications": len(seen),
        "gauges": gauges,
        "pipeline": pipeline,
        "is_well": not wrong and worst(gauges) == "good",
        "events": [*islice(events, SHOWN_EVENTS)],
    }
    return _page(view, call, "overview.html", "Overview", **data)


def _wrong(view: LiveView, call: HttpCall, seen: Iterable[ApplicationStatus]) -> dict[str, list[StatusProblem]]:
    """What is wrong, by application, those with most first; before them, under "", with the whole deployment."""
    found, users = defaultdict[str, list[StatusProblem]](list), defaultdict[str, set[str]](set)
    for one in seen:
        for version in one.versions:
            users[version.model].add(one.name)
    for problem in view.problems():
        for name in [problem.application] if problem.application else users.get(problem.model, [""]):
            found[name].append(problem)
    if call.caller.applications is not None:
        is_wrong = any(not one.model and one.effect != UNKNOWN for one in found[""])
        found.update({one.name: [*view.problems(one.name)] for one in seen}, **{"": [OF_ALL] * is_wrong})
    shown = {"", *(one.name for one in seen)}
    ordered = sorted(found.items(), key=lambda pair: (pair[0] != "", -len(pair[1]), pair[0]))
    return {name: problems for name, problems in ordered if problems and name in shown}


def models(view: LiveView, call: HttpCall) -> Page:
    """Every declared version with its hosts; charts of the one that the request names."""
    part, sees_all = call.text("q").lower(), call.caller.applications is None
    uses: defaultdict[str, list[tuple[str, VersionStatus]]] = defaultdict(list)
    for each in filter(lambda one: call.caller.sees(one.name), view.applications()):
        for version in each.versions:
            if version.stage != "retired":
                uses[version.model].append((each.name, version))
    seen = [one for one in view.status().models.values() if sees_all or one.ref in uses]
    found = sorted((one for one in seen if part in one.ref.lower()), key=attrgetter("retired", "ref"))
    sheet = sheet_of(found, call, MODELS)
    chosen = next((one for one in seen if one.ref == call.text("model")), None)
    refs = {one.ref for one in (sheet.rows if chosen is None else [chosen])}
    reports = (one for one in view.facts.hosts.reports.values() if one.model in refs)
    data = {
        "q": part,
        "sheet": sheet,
        "chosen": chosen,
        "uses": uses,
        "cache_hits": {ref: _cache_hits([version for _, version in uses.get(ref, ())]) for ref in refs},
        "followed": None if chosen is None else next((name for name, _ in uses.get(chosen.ref, ())), None),
        "reports": sorted(reports, key=attrgetter("model", "instance")),
    }
    return _page(view, call, "models.html", "Models and hosts", **data)


def _cache_hits(versions: Iterable[VersionStatus]) -> float | None:
    known = [(one.cache_hit_ratio, one.queries) for one in versions if one.cache_hit_ratio is not None]
    queries = sum(count for _, count in known)
    return sum(ratio * count for ratio, count in known) / queries if queries else None


def changes(view: LiveView, call: HttpCall) -> Page:
    """Who changed what and why, the newest first: of all applications or of one; or one change with its difference."""
    name, revision, declared = call.text("application"), int(call.number("revision", 0)), view.facts.declared
    seen = [each for each in declared.changes if call.caller.sees(each) and name in ("", each)]
    found = [one for each in seen for one in declared.changes[each].values()]
    if not name or not revision:
        found.sort(key=attrgetter("at_ms", "revision"), reverse=True)
        title, sheet = f"Changes of {name}" if name else "Changes", sheet_of(found, call, CHANGES)
        return _page(view, call, "changes.html", title, application=name, sheet=sheet)
    change = next((one for one in found if one.revision == revision), None)
    if change is None:
        raise Refusal(404, f"application {shown(name)} has no change of revision {revision}: see its changes")
    title, current = f"Revision {revision} of {name}", declared.current(name)
    return _page(view, call, "change.html", title, change=change, current=current, difference=[*_difference(change)])


# --- an application -------------------------------------------------------------------------------------------------
def application(view: LiveView, call: HttpCall) -> Page:
    """One application: its versions, its latency and defaults, its trials and its last changes."""
    name = call.path["name"]
    _, status = _application(view, name)
    data = {
        "name": name,
        "status": status,
        "problems": _wrong(view, call, [status]),
        "marks": _marks(view, name),
        "reason_texts": REASONS,
    }
    return _page(view, call, "application.html", name, **data)


def trial(view: LiveView, call: HttpCall) -> Page:
    """One version on trial, or that was: where it stands, what was decided about it, and what comes next."""
    name, ref = call.path["name"], call.path["ref"]
    manifest, status = _application(view, name)
    on_trial = next((one for one in manifest.trials if one.model == ref), None)
    decided = [one for one in view.facts.changes_of(name) if one.model == ref]
    manifests = (one.after for one in decided if isinstance(one.after, ApplicationManifest))
    stations = (one for each in manifests for one in each.trials if one.model == ref)
    if on_trial is None and not decided:
        raise Refusal(404, f"version {shown(ref)} was never on trial for {shown(name)}: see the application")
    data = {
        "name": name,
        "ref": ref,
        "trial": on_trial,
        "had": {0 if one.stage == "shadow" else one.share for one in stations},
        "rule": manifest.scaled_rollout,
        "version": next((one for one in status.versions if one.model == ref), None),
        "decided": decided[:CHANGES],
        "marks": _marks(view, name),
    }
    return _page(view, call, "trial.html", f"Trial of {ref} for {name}", **data)


def _application(view: LiveView, name: str) -> tuple[ApplicationManifest, ApplicationStatus]:
    manifest, status = view.facts.declared.manifests.applications.get(name), view.application(name)
    if manifest is None or status is None:
        raise Refusal(404, f"no application {shown(name)} is declared: the overview has those that are")
    return manifest, status


# --- parts ----------------------------------------------------------------------------------------------------------
class Sheet(NamedTuple):
    """Some rows of a list that is shown in sheets, of which the first has number 1; `total` are all rows."""

    rows: Sequence[Any]
    number: int
    sheets: int
    total: int


def sheet_of(rows: Sequence[Any], call: HttpCall, size: int) -> Sheet:
    """Return the sheet of so many rows that the parameter `sheet` names, or the nearest one.

    >>> sheet_of("abcde", HttpCall(query={"sheet": "9"}), 2)
    Sheet(rows='e', number=3, sheets=3, total=5)
    """
    sheets = max(1, -(-len(rows) // size))
    number = max(1, min(int(call.number("sheet", 1)), sheets))
    return Sheet(rows[size * (number - 1) : size * number], number, sheets, len(rows))


def _page(view: LiveView, call: HttpCall, template: str, title: str, **data: Any) -> Page:
    can_operate = "operate" in call.caller.rights
    state = {"at_s": view.at_s, "stale": view.stale_reason, "is_live": True, "can_operate": can_operate}
    return Page(template, title, state | data)


def _marks(view: LiveView, name: str) -> list[tuple[float, str]]:
    """Return what is drawn into the charts of an application, with times in seconds since the epoch."""
    changed = ((one.at_ms, f"{one.command} {one.model or ''}".strip()) for one in view.facts.changes_of(name))
    found = (one for one in view.facts.declared.drifts.values() if one.application == name)
    marks = (*changed, *((one.at_ms, f"drift {one.model}") for one in found))
    return sorted((at_ms / 1000, text) for at_ms, text in marks if at_ms / 1000 > view.at_s - MARKED_S)[-MARKS:]


def _difference(change: Change) -> Iterable[str]:
    before, after = (
        [] if one is None else msgspec.json.format(msgspec.json.encode(one), indent=2).decode().splitlines()
        for one in (change.before, change.after)
    )
    return islice(difflib.unified_diff(before, after, n=2, lineterm=""), 2, None)
