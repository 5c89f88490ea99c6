"""Whether a further call of an application may wait, and when one that may not should come again.

An application is overloaded when some of its answers are late while others are in time: its models work as fast as they
can, on too many queries. By Little's law as many calls may wait then as they answer in time in one objective. When all
answers are late the models are slow or gone, which fewer calls would not mend: defaults are answered as ever.

Rules of this file:
- Applications share nothing here: one whose models hang fills its own places only.
- No clock: times are arguments, in seconds of one that never goes back.
"""

from collections import Counter
from dataclasses import dataclass, field

CALLER_SHARE = 0.9
"""Of the places of an application, that one caller may have."""
LEAST_CALLS = 8
"""So many may wait whatever was measured: some must be asked to know what is answered."""
WINDOW_S = 0.25
"""Over which answers are counted."""
LATE_RATIO = 0.05
"""Of the answers of a window, from which on the application counts as overloaded; as many have to be in time."""
OBJECTIVE_SHARE = 0.8
"""Of the objective, which calls are meant to wait: the rest is for what varies."""
GROWTH = 1.1
"""Of the bound, in each window in which nothing was late."""
MOST_RETRY_S = 30.0


@dataclass(slots=True)
class AdmissionState:
    """What was seen of one application: `bound` calls may wait; answers are counted in windows."""

    bound: float
    waiting: int = 0
    of_callers: Counter[str] = field(default_factory=Counter)
    rate: float = 0.0
    """Answers in time, a second, over the last window that had any."""
    in_time: int = 0
    late: int = 0
    since_s: float = 0.0


class CallAdmission:
    """Counts the calls of each application.

    >>> admission = CallAdmission(most=2)
    >>> admission.wait_s("digits", "ada", now_s=0.0)
    >>> admission.begin("digits", "ada"); admission.begin("digits", "ada")
    >>> admission.wait_s("digits", "ada", now_s=0.0)
    1.0
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._states: dict[str, AdmissionState] = {}

    def wait_s(self, application: str, caller: str, now_s: float) -> float | None:
        """Return after how many seconds a call should come again, None when it may wait now."""
        state = self._states.get(application)
        if state is None or (state.waiting < state.bound and state.of_callers[caller] < state.bound * CALLER_SHARE):
            return None
        drained_s = state.waiting / state.rate if state.rate and now_s - state.since_s < MOST_RETRY_S else 1.0
        return min(MOST_RETRY_S, max(1.0, drained_s))

    def begin(self, application: str, caller: str) -> None:
        state = self._states.get(application)
        if state is None:
            state = self._states[application] = AdmissionState(self._most)
        state.waiting += 1
        state.of_callers[caller] += 1

    def end(
        self, application: str, caller: str, *, is_late: bool | None, objective_s: float | None, now_s: float
    ) -> None:
        """Count a call that waits no more; None: it was not answered."""
        state = self._states[application]
        state.waiting -= 1
        state.of_callers[caller] -= 1
        if not state.of_callers[caller]:
            del state.of_callers[caller]
        if is_late is not None:
            state.late += is_late
            state.in_time += not is_late
        if (passed_s := now_s - state.since_s) >= WINDOW_S:
            self._end_window(state, objective_s, passed_s, now_s)

    def _end_window(self, state: AdmissionState, objective_s: float | None, passed_s: float, now_s: float) -> None:
        answers = state.in_time + state.late
        if state.in_time:
            state.rate = state.in_time / passed_s
        if objective_s is not None and min(state.late, state.in_time) > LATE_RATIO * answers:
            state.bound = max(LEAST_CALLS, state.rate * objective_s * OBJECTIVE_SHARE)
        elif state.late <= LATE_RATIO * answers or not state.in_time:
            state.bound = min(self._most, state.bound * GROWTH + 1)
        state.in_time = state.late = 0
        state.since_s = now_s
