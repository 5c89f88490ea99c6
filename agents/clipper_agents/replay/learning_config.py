"""The learning configurations of each application over time: its loss, and how its policy turns losses into sums.

Rules of this file:
- Two manifests with the same loss and the same sums are one configuration.
- A change records where the feedback topic ended when it was made, not the feedback at which each router followed it:
  `LearningConfig.since` is where a configuration is expected to begin, and not where it began.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from clipper_agents.control.state import ControlState
from clipper_stream.errors import ClipperError
from clipper_stream.query import Application
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.state import ModelTotals, SelectionState
from clipper_topics.manifests import ApplicationManifest

_STATE = SelectionState({"a:1": ModelTotals(3.0, 1.25, 7.5, 2.5), "b:1": ModelTotals(64.0, 31.0, 100.0, 48.0)})
_LOSSES: Sequence[Mapping[str, float]] = ({"a:1": 0.25}, {"a:1": 1.0, "b:1": 0.0}, {"c:1": 0.5, "b:1": 0.125}, {})
_PROPENSITIES = {"a:1": 0.3, "b:1": 0.7, "c:1": 0.01}
"""What two policies are compared by: they observe alike when they make the same sums of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningConfig:
    """One way of observing.

    Attributes:
        revision: Of the application's manifest that began it.
        application: Its policy and loss; None: it was deleted, and its feedback teaches nothing.
        since: End of each feedback partition when it was declared; empty: from the beginning; None: not known.
    """

    revision: int
    application: Application | None
    since: tuple[int, ...] | None = ()

    def expected(self, partition: int, offset: int) -> bool:
        """Whether a router is expected to observe like this at a feedback offset, or in a later way already."""
        if self.since is None:
            return False
        return partition >= len(self.since) or self.since[partition] <= offset


def learning_configs(control: ControlState) -> dict[str, tuple[LearningConfig, ...]]:
    """The ways of each application, oldest first; one application has at least one."""
    names = {*control.changes, *control.manifests.applications}
    found = {name: tuple(_distinct(_history(control, name))) for name in sorted(names)}
    return {name: ways for name, ways in found.items() if ways}


def _history(control: ControlState, name: str) -> Iterable[LearningConfig]:
    since: tuple[int, ...] | None = ()
    revision = 0
    for change in control.history(name).values():
        if not revision and change.before is not None:
            yield from _made(change.before.revision, change.before, since)
            since = tuple(change.feedback_ends)
        yield from _made(change.revision, change.after, since if not revision else tuple(change.feedback_ends))
        revision = change.revision
    now = control.manifests.applications.get(name)
    if now is not None and now.revision != revision:
        yield from _made(now.revision, now, None if revision else ())


def _made(
    revision: int, manifest: ApplicationManifest | None, since: tuple[int, ...] | None
) -> Iterable[LearningConfig]:
    """The way; none for a manifest that routers refuse: what was there before stays."""
    try:
        yield LearningConfig(
            revision=revision, application=None if manifest is None else _application(manifest), since=since
        )
    except (ClipperError, ArithmeticError, TypeError, ValueError):
        return


def _application(manifest: ApplicationManifest) -> Application:
    policy = make_policy(manifest.policy.name, manifest.policy.parameters)
    return Application(name=manifest.name, candidates=(), policy=policy, loss=manifest.loss)


def _distinct(ways: Iterable[LearningConfig]) -> Iterable[LearningConfig]:
    last: LearningConfig | None = None
    for way in ways:
        if last is None or not _alike(last.application, way.application):
            yield way
            last = way


def _alike(one: Application | None, other: Application | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.loss == other.loss and _sums(one.policy) == _sums(other.policy)


def _sums(policy: SelectionPolicy) -> list[dict[str, ModelTotals]]:
    return [dict(policy.observe(_STATE, losses, _PROPENSITIES).totals) for losses in _LOSSES]
