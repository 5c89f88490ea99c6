"""The rollout controller at work: follows the control topic and the logs, and has decisions carried out.

Rules of this file:
- A record that was decided under a revision waits until that revision is followed. So what a query is evidence of does
  not depend on how fast the control topic is read.
- A decision names the revision that it looked at. Once it is made, nothing more is decided about the application until
  it has another. One that is refused is not asked for again at that revision, and keeps no other from being made.
- Nothing is read while there is nothing to compare. Nothing is decided before all that there is has been read: what a
  part of the logs says is no reason for a change now.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from clipper_agents.control.errors import RefusedChange, StaleRevision, WriteContention
from clipper_agents.control.newest_records import NewestRecords
from clipper_agents.control.state import ControlState
from clipper_agents.kafka.errors import KafkaUnreachable
from clipper_agents.kafka.follower import TopicFollower
from clipper_agents.kafka.reader import Record
from clipper_agents.kafka.retry import RESTART_WAIT_S, reached_in, retry
from clipper_agents.observability.logging import event
from clipper_agents.observability.metrics import StewardMetrics
from clipper_agents.rollout.comparison_spec import ComparisonSpec, comparison_specs, needs_history
from clipper_agents.rollout.decisions import ControlChanges, RolloutDecision, is_newer
from clipper_agents.rollout.evidence import EvidenceFold, UnknownRevision
from clipper_agents.rollout.log_tailer import MergedLogTailer
from clipper_agents.settings.load import WorkerSettings
from clipper_agents.settings.sections import StewardSection
from clipper_topics import codec
from clipper_topics.comparison import Comparison, comparison_key
from clipper_topics.drift import DriftEvent

logger = logging.getLogger(__name__)

SLACK_MS = 5 * 60_000
"""Allowed difference between the clock of a change's author and the brokers' clock."""
REVISION_WITHIN_S = 10.0
"""A revision that somebody has decided under is on the control topic; one of an application that was deleted is not."""
REPORT_EVERY_S = 1.0
CHANGED_S = 5.0
"""At most so often is a comparison written that changes all the time."""
AGAIN_S = 60.0
LAST_WORD_S = 2.0
"""A broker that is away must not hold up the end of a process."""
ALL_READ_S = 2.0
"""Without a record for so long, nothing more comes about the queries that were read."""


def _is_delayed(error: Exception) -> bool:
    return isinstance(error, (KafkaUnreachable, WriteContention))


class _HistoryNeeded(Exception):
    """Something is compared now that began before what was read."""


class ComparisonReports:
    """Publishes how versions compare, by `write`, which gets None for a version that is compared no more.

    A comparison that stays the same is written again each `AGAIN_S`: a young record says that a steward is at work.
    """

    def __init__(self, write: Callable[[bytes, bytes | None], None]) -> None:
        self._write = write
        self._last: dict[bytes, tuple[Comparison, float]] = {}

    def put(self, comparisons: Iterable[Comparison], now_s: float) -> None:
        """Have written what is due of all comparisons that there are, at this monotonic time in seconds."""
        found = {comparison_key(one.application, one.model): one for one in comparisons}
        for key in self._last.keys() - found.keys():
            del self._last[key]
            self._write(key, None)
        for key, one in found.items():
            before, at_s = self._last.get(key, (None, float("-inf")))
            if now_s - at_s >= (AGAIN_S if one == before else CHANGED_S):
                self._last[key] = one, now_s
                self._write(key, codec.comparisons.encode(one))


class RolloutController:
    """One controller. Two of them at once do no harm: of two changes of one revision only one is made.

    Attributes:
        comparisons: How all versions stood when they were last reported, at most `REPORT_EVERY_S` ago.
    """

    def __init__(
        self, settings: WorkerSettings[StewardSection], changes: ControlChanges, metrics: StewardMetrics
    ) -> None:
        self._settings, self._changes, self._metrics = settings, changes, metrics
        self.comparisons: tuple[Comparison, ...] = ()
        self._written = NewestRecords(settings.kafka, settings.catalogue.comparisons, checks_topic=True)
        self._reports = ComparisonReports(self._written.write)
        self._control = ControlState(notes=("change", "drift"), saved_rows=False)
        self._control_moved = asyncio.Event()
        self._follower = TopicFollower(settings.kafka, settings.catalogue.control, self._take_control)
        self._missing: dict[str, int] = {}
        self._decided: dict[str, int] = {}
        """Revision of each application at which a change was made."""
        self._refused_changes: dict[tuple[str, str, str], int] = {}
        """Revision at which a change was refused, by application, model and command."""
        self._followed = -1
        self._specs: dict[str, ComparisonSpec] = {}
        self._revisions: dict[str, int] = {}
        self._reported_s = 0.0
        self._caught_up, self._news_s = False, 0.0
        self._changed: set[str] = set()
        """Applications of which something was read since all was."""
        self._refused: dict[str, str] = {}

    async def run(self, ready: Callable[[], None]) -> None:
        """Read the control topic to its end, be `ready`, then compare and decide, without end."""
        following = asyncio.ensure_future(self._follower.run())
        work = [following]
        try:
            await reached_in(following, self._follower.caught_up)
            ready()
            work.append(asyncio.ensure_future(self._compare_what_there_is()))
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in work:
                task.cancel()
            await asyncio.wait(work)
            await asyncio.to_thread(self._written.close, LAST_WORD_S)

    async def _compare_what_there_is(self) -> None:
        while True:
            self._control_moved.clear()
            if comparison_specs(self._control):
                with contextlib.suppress(_HistoryNeeded):
                    await self._compare()
            else:
                self._show(())
                self._reports.put((), time.monotonic())
                await self._control_moved.wait()

    # --- one reading of the logs ------------------------------------------------------------------------------------
    async def _compare(self) -> None:
        """Read the logs until there is nothing to compare any more.

        Raises:
            _HistoryNeeded: the logs have to be read again, from an earlier place.
        """
        settings, control = self._settings, self._control
        known = dict(control.drifts)
        fold = EvidenceFold(
            settings.catalogue, control.current, settings.horizon_s, settings.section.max_queries, known
        )
        logs = MergedLogTailer(settings.kafka, settings.catalogue)
        self._followed, self._specs, self._revisions, self._caught_up = -1, {}, {}, False
        try:
            await self._follow(fold)
            await logs.start(min(one.begins_ms for one in self._specs.values()) - SLACK_MS)
            async for records in logs.follow():
                if not comparison_specs(control):
                    return
                await self._follow(fold)
                for at_ms, record in records:
                    await self._take(fold, record, at_ms)
                self._caught_up = logs.caught_up
                await self._look(fold, news=bool(records))
                self._report(fold, logs.lag)
        finally:
            await logs.stop()

    async def _follow(self, fold: EvidenceFold) -> None:
        """Have the fold compare what the control topic says now; its rules may then decide something else."""
        control = self._control
        if self._followed == control.version:
            return
        specs = comparison_specs(control)
        if self._revisions and needs_history(self._specs, specs, self._revisions):
            raise _HistoryNeeded
        self._followed, self._specs = control.version, specs
        self._revisions = {name: one.revision for name, one in control.manifests.applications.items()}
        fold.follow(specs)
        self._log_refused(fold)
        await self._decide(fold, specs)

    async def _take(self, fold: EvidenceFold, record: Record, at_ms: int) -> None:
        while True:
            try:
                application = fold.take(record, at_ms)
                break
            except UnknownRevision as unknown:
                if not await self._wait_for_revision(unknown.application, unknown.revision):
                    return
                await self._follow(fold)
        while fold.detected:
            await self._note_drift(fold.detected.pop(0))
        if application is not None:
            self._changed.add(application)

    async def _look(self, fold: EvidenceFold, *, news: bool) -> None:
        """Decide about the applications of which something was read, and once more when nothing comes any more."""
        now_s = time.monotonic()
        self._news_s = now_s if news else self._news_s
        all_read = now_s - self._news_s > ALL_READ_S
        if news or all_read:
            await self._decide(fold, sorted(self._changed), all_read=all_read)
            await self._follow(fold)
        if all_read and self._caught_up:
            self._changed.clear()

    async def _wait_for_revision(self, application: str, revision: int) -> bool:
        if revision <= self._missing.get(application, 0):
            return False
        try:
            async with asyncio.timeout(REVISION_WITHIN_S):
                while self._control.current(application) < revision:
                    self._control_moved.clear()
                    await self._control_moved.wait()
        except TimeoutError:
            text = "queries were decided under a revision that the control topic does not have, they are left out"
            event(logger, text, logging.WARNING, application=application, revision=revision)
            self._missing[application] = revision
            return False
        return True

    def _take_control(self, records: Iterable[Record]) -> None:
        self._control.take(records)
        self._metrics.keep("application", self._control.manifests.applications)
        self._metrics.keep("model", self._control.manifests.models)
        self._control_moved.set()

    # --- decisions and detections -----------------------------------------------------------------------------------
    async def _decide(self, fold: EvidenceFold, applications: Iterable[str], *, all_read: bool = False) -> None:
        for decision in fold.decisions(applications, all_read=all_read) if self._caught_up else ():
            await self._carry_out(decision)

    async def _carry_out(self, decision: RolloutDecision) -> None:
        name, revision = decision.application, decision.revision
        change = name, decision.model, decision.command
        if revision in (self._decided.get(name), self._refused_changes.get(change)):
            return
        if self._control.current(name) != revision:
            return
        outcome = await self._applied(decision)
        if outcome == "refused":
            self._refused_changes[change] = revision
        else:
            self._decided[name] = revision
        self._metrics.counter("clipper_decisions_total", name, decision.command, outcome).inc()
        about = {"application": name, "model": decision.model, "revision": revision, "why": decision.why}
        event(logger, f"{decision.command} {outcome}", logging.INFO, **about)

    async def _applied(self, decision: RolloutDecision) -> str:
        what = f"{decision.command} of application {decision.application} waits for Kafka"
        try:
            await retry(what, partial(self._changes.apply, decision), wait_s=RESTART_WAIT_S, passes=_is_delayed)
        except StaleRevision:
            return "stale"
        except RefusedChange as error:
            event(logger, "change is impossible", logging.WARNING, command=decision.command, reason=error)
            return "refused"
        return "made"

    async def _note_drift(self, found: DriftEvent) -> None:
        """Have a detection written, unless it was already; then count and log it, once."""
        if not is_newer(found, self._control.drifts.get((found.application, found.model))):
            return
        what = f"detection of drift of {found.model} waits for Kafka"
        news = await retry(what, partial(self._changes.note_drift, found), wait_s=RESTART_WAIT_S, passes=_is_delayed)
        self._control.drifts[found.application, found.model] = found
        if news:
            direction = "up" if found.worse else "down"
            self._metrics.counter("clipper_drifts_total", found.application, found.model, direction).inc()
            text = "loss has risen" if found.worse else "loss has fallen"
            about = {"application": found.application, "model": found.model, "detector": found.detector}
            about |= {"before": f"{found.loss_before:.4f}", "after": f"{found.loss_after:.4f}"}
            event(logger, text, logging.WARNING if found.worse else logging.INFO, **about)

    def _log_refused(self, fold: EvidenceFold) -> None:
        for name, reason in fold.refused.items():
            if self._refused.get(name) != reason:
                self._refused[name] = reason
                self._metrics.counter("clipper_drift_refused_total", name).inc()
                event(logger, "drift is not watched", logging.WARNING, application=name, reason=reason)

    def _report(self, fold: EvidenceFold, lag: Mapping[tuple[str, int], int]) -> None:
        now_s = time.monotonic()
        if now_s - self._reported_s < REPORT_EVERY_S:
            return
        self._reported_s = now_s
        self._show(tuple(fold.comparisons()))
        if self._caught_up:  # what a part of the logs says is not how things are
            self._reports.put(self.comparisons, now_s)
        self._metrics.set_dropped(fold.dropped)
        self._metrics.gauge("clipper_comparison_queries").set(fold.remembered)
        self._metrics.set_consumer_lag(lag)

    def _show(self, comparisons: tuple[Comparison, ...]) -> None:
        self.comparisons = comparisons
        self._metrics.set_comparisons(comparisons)
