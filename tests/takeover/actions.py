"""Whatever may happen next in the model of takeover and learning.

    client        appends queries, and feedback about them: early, in time, late, twice
    broker        stamps and appends what is on its way to it, ends transactions, compacts the changelog
    coordinator   gives the partition to a router, whatever the other one believes
    router        takes over, restores, decides, learns, forgets; is killed, and may lose what it has stored

Rules of this file:
- `successors` gives each state that may follow one, with what happened in words.
- A frozen router is one that does nothing for a while. So a router that has lost the partition goes on as if it had
  not, and each of its steps may come at any later time.
- Requests outlive their sender: they are taken later, or never. So a router that is killed before its request is taken
  is one that does nothing more; between that and what it stores then it can be killed as well.
- What else a kill costs is lost when the router comes back, with any part of what it had stored: a takeover begins so.
- Compaction shows only to who reads; so it comes, or does not, before a takeover reads.
- What is taken from Kafka as it is promised: the order of a log, a transaction is read as one or not at all, a takeover
  ends the open transaction of the earlier epoch and refuses its requests (KIP-98), a member of an older generation
  commits no offsets.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, product
from typing import TypeAlias

from takeover import index
from takeover.state import (
    APART,
    EARLY,
    HORIZON,
    NOTHING,
    Committed,
    Phase,
    Prediction,
    Query,
    Request,
    Router,
    Rules,
    Sizes,
    Step,
    Table,
    World,
    compacted,
    learned,
    table_of,
)

Next: TypeAlias = Iterator[tuple[str, World]]
NAMES = "AB"


def successors(world: World, rules: Rules, sizes: Sizes) -> Next:
    """What may happen next, and the state after it."""
    yield from _client(world, sizes)
    yield from _arrivals(world, rules)
    for number, router in enumerate(world.routers):
        if router.phase is Phase.TAKEN_OVER:
            yield from _restore(world, number, rules)
        elif router.phase is Phase.RUNNING:
            yield from _decide(world, number)
            yield from _learn(world, number, rules)
            yield from _forget(world, number, rules)
    if world.epoch < sizes.takeovers:
        for number in reversed(range(len(world.routers))):
            yield from _take_over(world, number, rules)


def settled(world: World, rules: Rules) -> World:
    """The state once time has passed, and one router without any state has taken over and done all that is left."""
    world = world._replace(now=world.now + EARLY + 1, requests=frozenset(), routers=(Router(), Router()))
    _, world = next(_take_over(world, 0, rules))
    _, world = next(_restore(world, 0, rules))
    while (after := next(chain(_arrivals(world, rules), _decide(world, 0), _learn(world, 0, rules)), None)) is not None:
        _, world = after
    return world


def _client(world: World, sizes: Sizes) -> Next:
    if world.now < sizes.ticks:
        yield f"it is {world.now + 1}", world._replace(now=world.now + 1)
    for new in (Query(query, world.now) for query in range(sizes.ids)):
        if len(world.queries) < sizes.queries:
            yield f"query {new.query} is asked", world._replace(queries=(*world.queries, new))
        if len(world.feedback) < sizes.feedback:
            yield f"feedback about query {new.query} comes", world._replace(feedback=(*world.feedback, new))


def _arrivals(world: World, rules: Rules) -> Next:
    for request in sorted(world.requests, key=_order):
        arrive = _append_prediction if request.step is None else _commit_step
        yield from arrive(world._replace(requests=world.requests - {request}), request, rules)


def _commit_step(world: World, request: Request, rules: Rules) -> Next:
    written = Committed(world.end, request.step.row, request.step.position)
    world = world._replace(changelog=(*world.changelog, written), end=world.end + 1)
    done = f"the step of router {NAMES[request.router]} is committed"
    if world.routers[request.router].epoch == request.epoch:
        yield done, _stored(world, request.router, request.step, written.offset, rules)
        yield f"{done}, and that router is killed before it stores it", _killed(world, request.router)
    else:
        yield done, world


def _append_prediction(world: World, request: Request, rules: Rules) -> Next:
    """Append it; its router, if that is still of its epoch, indexes it, and what others wrote before."""
    offset, (query, queried_at) = len(world.predictions), world.queries[request.query_offset]
    content = offset
    if request.repeated != NOTHING:
        _, _, content, queried_at, _ = world.predictions[request.repeated]
    new = Prediction(query, request.query_offset, content, queried_at, world.now)
    world = world._replace(predictions=(*world.predictions, new))
    done = f"the prediction of router {NAMES[request.router]} about query {query} is appended"
    router = world.routers[request.router]
    if router.epoch != request.epoch:
        yield done, world
        return
    pending = tuple(one for one in router.pending if one != request.query_offset)
    alone = offset == index.indexed_upto(router.ages) + 1
    for end in (offset + 1,) if alone else _ends(world, "predictions", rules):
        indexed = router._replace(pending=pending, ages=_caught_up(world, router.ages, end))
        yield f"{done}{_upto(world, 'predictions', end)}", _with(world, request.router, indexed)
    yield f"{done}, and that router is killed before it indexes it", _killed(world, request.router)


def _take_over(world: World, number: int, rules: Rules) -> Next:
    epoch = world.epoch + 1
    requests = frozenset(one for one in world.requests if one.step is None or not rules.fencing)
    logs = {compacted(world.changelog): "the changelog is compacted, and "} | {world.changelog: ""}
    losses, offsets = _losses(world.routers[number]), range(world.committed, world.answered + 1)
    for log, (disk, lost), committed in product(logs, losses.items(), offsets):
        for end in _ends(world, "changelog", rules):
            table, ages = disk
            rows = table_of(log, table if table.upto < end else Table(), end, rules)
            router = Router(rows, ages, Phase.TAKEN_OVER, epoch, committed)
            after = world._replace(
                epoch=epoch, changelog=log, committed=committed, answered=committed, requests=requests
            )
            done = f"{logs[log]}router {NAMES[number]}{lost} takes over{_upto(world, 'changelog', end)}"
            yield done, _with(after, number, router)


def _losses(router: Router) -> dict[tuple[Table, index.Ages], str]:
    """What a router may still have stored, and what it has lost then."""
    table, ages = router.table, router.ages
    return {
        (table, ages): "",
        (table, ages[:-1]): " loses its newest decisions, and",
        (table, ()): " loses its decisions, and",
        (Table(), ages): " loses its rows, and",
        (Table(), ()): " loses everything, and",
    } | {(table, ages): ""}


def _restore(world: World, number: int, rules: Rules) -> Next:
    """Read decisions, and which feedback counted for them."""
    router = world.routers[number]
    for (since, told_since), end in product(_since(world, router, rules), _ends(world, "predictions", rules)):
        ages = _caught_up(world, router.ages, end, since)
        restored = router._replace(ages=ages, phase=Phase.RUNNING)
        told = range(index.noted_upto(ages) + 1, router.table.position + 1)
        read = [offset for offset in told if world.feedback[offset].at >= told_since]
        if read:
            _, counted = _learned(world, restored, read)
            ages = index.with_notes(ages, counted, read[-1], world.feedback[read[-1]].at)
        done = f"router {NAMES[number]} reads decisions since {since}{_upto(world, 'predictions', end)}"
        yield done, _with(world, number, restored._replace(ages=ages))


def _since(world: World, router: Router, rules: Rules) -> list[tuple[int, int]]:
    """Since when decisions and feedback are needed, for each end that the router may take for true."""
    if not rules.log_time:
        return [(world.now - HORIZON, world.now - HORIZON)]
    told, found = router.table.position + 1, set()
    for end, queries in product(_ends(world, "feedback", rules), _ends(world, "queries", rules)):
        unread = [world.feedback[told].at] if told < end else []
        unread += [world.queries[world.committed].at] if world.committed < queries else []
        at = min(unread) if unread else max((one.at for one in world.predictions), default=0)
        found.add((max(0, at - 2 * APART), max(0, at - APART)))
    return sorted(found)


def _caught_up(world: World, ages: index.Ages, end: int, since: int = 0) -> index.Ages:
    first = index.indexed_upto(ages) + 1
    offsets = [one for one in range(first, end) if world.predictions[one].at >= since]
    return index.with_predictions(ages, world.predictions, offsets)


def _decide(world: World, number: int) -> Next:
    """Send a prediction about the next query, unless it is the one that was answered."""
    router = world.routers[number]
    if router.read >= len(world.queries):
        return
    offset, query = router.read, world.queries[router.read].query
    if any(world.queries[one].query == query for one in router.pending):
        return
    known = index.decision_of(router.ages, world.predictions, world.queries[offset])
    router = router._replace(read=offset + 1)
    if known is not None and world.predictions[known].query_offset == offset:
        yield f"router {NAMES[number]} finds query {query} answered", _with(world, number, router)
        return
    request = Request(number, router.epoch, query_offset=offset, repeated=NOTHING if known is None else known)
    sent = world._replace(requests=world.requests | {request})
    done = "decides about" if known is None else "repeats its prediction about"
    router = router._replace(pending=(*router.pending, offset))
    yield f"router {NAMES[number]} {done} query {query}", _with(sent, number, router)


def _learn(world: World, number: int, rules: Rules) -> Next:
    """Send the transaction of a step over the next feedbacks, unless Kafka would refuse it whenever it arrives."""
    router = world.routers[number]
    if router.busy or (rules.fencing and router.epoch != world.epoch):
        return
    first = router.table.position + 1
    for last in range(first, len(world.feedback)):
        offsets = range(first, last + 1)
        for waited, ages in _decisions_known(world, router, offsets, rules):
            indexed = router._replace(ages=ages, busy=True)
            step = Step(*_learned(world, indexed, offsets), last)
            requests = world.requests | {Request(number, router.epoch, step=step)}
            after = _with(world._replace(requests=requests), number, indexed)
            yield f"router {NAMES[number]} sends what it learned from feedback {first} to {last}{waited}", after


def _decisions_known(
    world: World, router: Router, offsets: Sequence[int], rules: Rules
) -> Iterator[tuple[str, index.Ages]]:
    """The index once it has all decisions, or the others can come no more."""
    told = [world.feedback[offset] for offset in offsets]
    missing = [one.at for one in told if index.decision_about(router.ages, world.predictions, one) is None]
    if not missing:
        yield "", router.ages
    elif world.now > max(missing) + EARLY and router.finished >= min(_ends(world, "queries", rules)):
        for end in _ends(world, "predictions", rules):
            waited = f", after it has waited{_upto(world, 'predictions', end)}"
            yield waited, _caught_up(world, router.ages, end)


def _learned(world: World, router: Router, offsets: Sequence[int]) -> tuple[bytes | None, tuple[tuple[int, int], ...]]:
    notes, joined = index.notes(router.ages), []
    for offset in offsets:
        number = index.decision_about(router.ages, world.predictions, world.feedback[offset])
        decision = None if number is None else world.predictions[number]
        joined.append((offset, decision, NOTHING if number is None else number, notes.get(number)))
    return learned(tuple(joined), router.table.row)


def _stored(world: World, number: int, step: Step, offset: int, rules: Rules) -> World:
    router, at = world.routers[number], world.feedback[step.position].at
    table = Table(offset, router.table.row if step.row is None else step.row, step.position)
    noted = router._replace(ages=index.with_notes(router.ages, step.notes, step.position, at))
    return _with(world, number, noted._replace(table=table, ages=_kept(world, noted, at, rules), busy=False))


def _forget(world: World, number: int, rules: Rules) -> Next:
    """Forget what is old while no feedback comes: what comes is younger than the newest prediction."""
    router = world.routers[number]
    if router.table.position + 1 >= min(_ends(world, "feedback", rules)):
        newest = max((world.predictions[one].at for age in router.ages for one in age.decisions), default=0)
        ages = _kept(world, router, newest, rules)
        if ages != router.ages:
            yield f"router {NAMES[number]} forgets old decisions", _with(world, number, router._replace(ages=ages))


def _kept(world: World, router: Router, feedback_at: int, rules: Rules) -> index.Ages:
    queried_at = world.queries[router.read - 1].at if router.read else 0
    since = min(feedback_at, queried_at) - APART if rules.log_time else world.now - HORIZON
    return index.without_old(router.ages, since)


def _killed(world: World, number: int) -> World:
    table, ages, *_ = world.routers[number]
    return _with(world, number, Router(table, ages))


def _order(request: Request) -> tuple[int, int, int]:
    return request.epoch, request.query_offset, NOTHING if request.step is None else request.step.position


def _ends(world: World, log: str, rules: Rules) -> Sequence[int]:
    """Ends of a log that a router may take for true."""
    end = _end(world, log)
    return (end,) if log in rules.proven else range(end + 1)


def _end(world: World, log: str) -> int:
    return world.end if log == "changelog" else len(getattr(world, log))


def _upto(world: World, log: str, end: int) -> str:
    actual = _end(world, log)
    return "" if end == actual else f" (takes {end} for the end of {log}, which is {actual})"


def _with(world: World, number: int, router: Router) -> World:
    first, second = world.routers
    world = world._replace(routers=(router, second) if number == 0 else (first, router))
    if router.epoch == world.epoch and router.phase is Phase.RUNNING and router.finished > world.answered:
        return world._replace(answered=router.finished)
    return world
