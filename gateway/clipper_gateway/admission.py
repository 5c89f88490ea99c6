"""Whether a further call of an application may wait, and when one that may not should come again.

By Little's law a call that comes now waits about (calls that wait) / (answers a second). Once answers take long, and
that estimate is beyond the application's objective, a further call would only get its default, late: it is refused at
once, and what waits is answered in time.

Rules of this file:
- Applications share nothing here: one whose models hang fills its own places only.
- No clock: times are arguments, in seconds of one that never goes back.
"""

from dataclasses import dataclass

FREE_CALLS = 64
"""So many of an application may wait whatever was measured: the first calls after a pause say nothing of the rate."""
WINDOW_S = 0.25
"""Over which answers are counted: a quarter of a second after the load has fallen, nothing is refused any more."""
SLOW_SHARE = 0.5
"""Of the objective, from which on an answer counts as slow."""
MOST_RETRY_S = 30.0


@dataclass(slots=True)
class AdmissionState:
    """What was seen of one application.

    Attributes:
        waiting: Calls without an answer.
        rate: Answers a second over the last window; None until one has ended.
        latency_s: Moving average of what the last answers took.
    """

    waiting: int = 0
    rate: float | None = None
    latency_s: float = 0.0
    answered: int = 0
    since_s: float = 0.0


class CallAdmission:
    """Counts the calls of each application.

    >>> admission = CallAdmission(most=2)
    >>> admission.wait_s("digits", objective_s=0.1, now_s=0.0)
    >>> admission.begin("digits"); admission.begin("digits")
    >>> admission.wait_s("digits", objective_s=0.1, now_s=0.0)
    1.0

    Args:
        most: Calls of one application that wait at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._states: dict[str, AdmissionState] = {}

    def wait_s(self, application: str, objective_s: float | None, now_s: float) -> float | None:
        """Return after how many seconds a call should come again, None when it may wait now."""
        state = self._states.get(application)
        if state is None:
            return None
        _end_window(state, now_s)
        if state.waiting >= self._most:
            return _retry_s(state, 1.0)
        if objective_s is None or state.waiting < FREE_CALLS or state.latency_s < SLOW_SHARE * objective_s:
            return None
        is_beyond = not state.rate or state.waiting / state.rate > SLOW_SHARE * objective_s
        return _retry_s(state, objective_s) if is_beyond else None

    def begin(self, application: str) -> None:
        """Count a call that waits."""
        self._states.setdefault(application, AdmissionState()).waiting += 1

    def end(self, application: str, took_s: float | None, now_s: float) -> None:
        """Count a call that waits no more; it was answered after `took_s` seconds, or not at all."""
        state = self._states[application]
        state.waiting -= 1
        if took_s is not None:
            state.answered += 1
            state.latency_s += 0.05 * (took_s - state.latency_s)
        _end_window(state, now_s)


def _end_window(state: AdmissionState, now_s: float) -> None:
    passed_s = now_s - state.since_s
    if passed_s >= WINDOW_S:
        state.rate = state.answered / passed_s
        state.answered, state.since_s = 0, now_s


def _retry_s(state: AdmissionState, least_s: float) -> float:
    drained_s = state.waiting / state.rate if state.rate else 1.0
    return min(MOST_RETRY_S, max(least_s, drained_s))
