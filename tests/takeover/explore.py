"""Breadth-first exploration of a model: every state within its sizes, or the shortest way to one that is wrong."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

Successors = Callable[[Any], Iterable[tuple[str, Any]]]


class Exploration(NamedTuple):
    """How many states were reached, and how many actions lead to the furthest of them."""

    states: int
    depth: int
    wrong: str | None = None  # what is wrong in the last state of `trace`; None: nothing is, anywhere
    trace: tuple[str, ...] = ()  # what happened, from the start on

    def __str__(self) -> str:
        counts = f"{self.states:,} states, {self.depth} actions deep"
        return "\n".join([counts, *self.trace, self.wrong or "nothing is wrong"])


def explore(start: Any, successors: Successors, wrong: Callable[[Any], str | None]) -> Exploration:
    """Look at each state that can be reached, those with fewer actions first, until one is wrong.

    A state that was seen is known by its hash of 64 bits: among a million, two agree by chance once in 10^7 runs.
    """
    before: dict[int, int] = {hash(start): 0}
    states, depth = [start], 0
    while states:
        following = []
        for state in states:
            known = hash(state)
            for _, after in successors(state):
                if (new := hash(after)) in before:
                    continue
                before[new] = known
                following.append(after)
                if (found := wrong(after)) is not None:
                    return Exploration(len(before), depth + 1, found, _trace(start, successors, before, new))
        states = following
        depth += bool(following)
    return Exploration(len(before), depth)


def _trace(start: Any, successors: Successors, before: dict[int, int], last: int) -> tuple[str, ...]:
    way = [last]
    while way[-1] != hash(start):
        way.append(before[way[-1]])
    state, trace = start, []
    for wanted in reversed(way[:-1]):
        done, state = next((done, after) for done, after in successors(state) if hash(after) == wanted)
        trace.append(done)
    return tuple(trace)
