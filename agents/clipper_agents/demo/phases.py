"""The three phases of a run, by the index of a query."""

from clipper_agents.demo.plan import DemoPlan

BEFORE, FAILED, RESTORED = "before", "failed", "restored"
PHASES = (BEFORE, FAILED, RESTORED)
TITLES = {BEFORE: "healthy", FAILED: "failed", RESTORED: "restored"}


def phase_of(query: int, plan: DemoPlan) -> str:
    """The phase that a query belongs to.

    >>> plan = DemoPlan(queries=400)
    >>> [phase_of(query, plan) for query in (0, 99, 100, 199, 200, 399)]
    ['before', 'before', 'failed', 'failed', 'restored', 'restored']
    """
    if query < plan.first_failed:
        return BEFORE
    return FAILED if query < plan.first_restored else RESTORED


def bounds_of(phase: str, plan: DemoPlan) -> tuple[int, int]:
    """First query of a phase, and the first one after it."""
    starts = {BEFORE: 0, FAILED: plan.first_failed, RESTORED: plan.first_restored}
    ends = {BEFORE: plan.first_failed, FAILED: plan.first_restored, RESTORED: plan.queries}
    return starts[phase], ends[phase]
