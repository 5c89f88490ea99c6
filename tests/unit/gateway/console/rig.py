"""A console's view of the invented deployment of `builders.status`, without a Kafka, and callers who look at it."""

from functools import cache
from types import SimpleNamespace
from typing import Any

from builders.status import CLUSTER, NOW_S, facts, recent
from unit.gateway.rig import NO_KAFKA

from clipper_gateway.callers import ANYBODY, Caller
from clipper_gateway.console.follower import LiveView
from clipper_gateway.console.renderer import Page, Renderer
from clipper_gateway.rest import HttpCall
from clipper_topics import codec
from clipper_topics.control_keys import key_of
from clipper_topics.manifests import ApplicationManifest

MARKUP = "<img src=x onerror=alert(1)>"
"""What somebody may call a thing, so that it is more than text."""
READER = Caller("reader", None, frozenset({"read"}))
STRANGER = Caller("stranger", frozenset({"others"}), frozenset({"read"}))


def followed() -> LiveView:
    """A view that has read the application `digits`, at a time that stands, and keeps no history."""
    history: Any = SimpleNamespace(reason="")
    return has_read(LiveView(*NO_KAFKA, history, lambda: NOW_S))


def has_read(view: LiveView) -> LiveView:
    view.facts, view.recent, view.is_read, view.stale_reason, view.at_s = facts(), recent(), True, "", NOW_S
    view.cluster.newest = CLUSTER
    return view


def declare(view: LiveView, count: int, model: str = "svm:1") -> list[str]:
    """Declare applications without queries, and return their names."""
    made = [ApplicationManifest(name=f"app-{number:04}", models=[model]) for number in range(count)]
    for one in made:
        view.facts.control(key_of(one), codec.applications.encode(one))
    return [one.name for one in made]


def asked(caller: Caller = ANYBODY, path: dict[str, str] | None = None, **query: str) -> HttpCall:
    return HttpCall(caller=caller, path=path or {}, query=query)


@cache
def renderer() -> Renderer:
    """A renderer whose files have no digests."""
    return Renderer(lambda name: f"/console/static/{name}")


def html(page: Page, caller: Caller = ANYBODY, **context: Any) -> str:
    about = {
        "title": page.title,
        "caller": caller,
        "csrf": "t0ken",
        "is_open": False,
        "path": "/console",
        "can_operate": "operate" in caller.rights,
    }
    return renderer().render(page.template, **{**about, **page.data, **context})
