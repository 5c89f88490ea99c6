"""The router against a naive model: every query answered once, in time, and with what the outputs so far say."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from builders.query_router import NOW_S, application, make_router, prepare, query, query_at
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from clipper_stream.combining.combiner import combine
from clipper_stream.query import Failure, OutputPiece
from clipper_stream.query.in_flight import ShortestTrips
from clipper_stream.query.planner import THROUGHPUT_WAIT_S
from clipper_stream.selection.distribution import forced_decision
from clipper_stream.selection.rng import query_rng

OPEN = object()
UNSURE = "e:1"
"""Says how sure it is, of labels that are its inputs."""
MODELS = {
    "a:1": int,
    "b:1": lambda x: int(x) % 2,
    "c:1": lambda x: 7,
    "d:1": lambda x: -int(x),
    UNSURE: lambda x: {"label": int(x), "confidence": float(x) / 4},
}
VOLATILE = "c:1"
ALWAYS_NEW = {"volatile": (VOLATILE,), "objective_s": 3.0, "confidence_threshold": 0.6}
APPLICATIONS = {
    app.name: app
    for app in (
        application("all", ("a:1", "b:1", "c:1"), volatile=(VOLATILE,)),
        application("sure", ("a:1", "b:1"), confidence_threshold=0.9, objective_s=3.0),
        application("one", ("a:1", "b:1", "c:1"), "exp3", objective_s=None, audit_ratio=0.3, volatile=(VOLATILE,)),
        application("tried", ("a:1",), canaries={"b:1": 0.3}, shadows={"c:1": 0.6, "d:1": 1.0}, volatile=(VOLATILE,)),
        application("single", ("a:1", "b:1", "c:1"), "exp3", volatile=(VOLATILE,)),
        application("patient", ("a:1", "b:1"), "exp3", objective_s=None),
        application("cascade", (UNSURE, "b:1"), "cascade", {"budget": 0.6}),
        application("tried cascade", (UNSURE, "c:1"), "cascade", {"budget": 0.6}, shadows={"b:1": 0.6}, **ALWAYS_NEW),
        application("only a canary", (), canaries={"a:1": 0.5}),
        application("none", ()),
    )
}


@dataclass(eq=False)
class Naive:
    """One query, and what has arrived for it by model and row."""

    query: Any
    rows: list
    """Of the query: the router empties its list."""
    decision: Any = None
    audits: bool = False
    """Whether this is what is asked about the query for the log only."""
    deadline_s: float = 0.0
    decided_again: bool = False
    slots: dict = field(default_factory=dict)
    failures: dict = field(default_factory=dict)

    def open(self, ref, value):
        return [
            (ref, row) for row, one in enumerate(self.rows) if one[0] == value and self.slots.get((ref, row)) is OPEN
        ]

    def fill(self, slot, output, failure):
        self.slots[slot] = output
        if failure:
            self.failures[slot] = failure[0]

    @property
    def name(self):
        return f"{self.query.query_id}{'/audit' if self.audits else ''}"

    @property
    def complete(self):
        return OPEN not in self.slots.values()

    def said(self, ref, row):
        """The output, None where there is none."""
        output = self.slots[ref, row]
        if output is OPEN or (ref, row) in self.failures:
            return None
        return output["label"] if ref == UNSURE else output

    def asks_again(self, in_time):
        """Decide by the confidence of the first model, once; whether another one is asked."""
        app, rows = APPLICATIONS.get(self.query.application), range(len(self.rows))
        if self.audits or self.decision is None or not app.policy.asks_again or self.query.models:
            return False
        if self.decided_again or not in_time or self.decision.models != (UNSURE,):
            return False
        self.decided_again = True
        sure = [0.0 if (UNSURE, row) in self.failures else self.slots[UNSURE, row]["confidence"] for row in rows]
        choice = prepare(app, 0, None).given([sum(sure) / len(sure)])
        self.decision = choice.select(query_rng(app.seed, self.query.query_id))
        return len(self.decision.models) > 1

    def used(self):
        """Outputs of the models that answered a row at least."""
        used = {ref: [self.said(ref, row) for row in range(len(self.rows))] for ref in self.decision.models}
        return {ref: outputs for ref, outputs in used.items() if any(one is not None for one in outputs)}

    def answer(self):
        """Outputs, reason and models used, by the plainest code."""
        rows, app = range(len(self.rows)), APPLICATIONS.get(self.query.application)
        if self.decision is None:
            default = app.default_output if app else None
            return [default] * len(rows), None, {}
        used = self.used()
        weights, combined, models = prepare(app, 0, None).weights, [], self.decision.models
        for row in rows:
            said = {ref: used[ref][row] for ref in models if ref in used and used[ref][row] is not None}
            own = {ref: output for ref, output in said.items() if ref in self.decision.served}
            asked = len(self.decision.served) if own else len(models)
            combined.append(combine("vote", own or said, weights, asked) if said else None)
        if None in combined:
            empty = [row for row in rows if combined[row] is None]
            late = any(self.failures.get((ref, row), "late") == "late" for ref in models for row in empty)
            outputs = [one.output if one else app.default_output for one in combined]
            return outputs, "late" if late else "errors", used
        if min(one.confidence for one in combined) < app.confidence_threshold:
            return [app.default_output] * len(rows), "low_confidence", used
        return [one.output for one in combined], None, used


class RouterMachine(RuleBasedStateMachine):
    """Queries come, hosts answer in pieces, late, wrongly or never, time passes, partitions are taken away."""

    @initialize(cached=st.booleans())
    def start(self, cached):
        self.router = make_router(*APPLICATIONS.values(), budget_bytes=100_000 if cached else 0)
        self.cache = set() if cached else None
        self.now_s = NOW_S
        self.waiting, self.answered, self.repeats = {}, {}, Counter()
        self.requests, self.askers, self.flying = {}, {}, {}
        self.answers = {}
        self.trips, self.asked_at_s = ShortestTrips(), {}
        self.count = 0

    # --- what happens -----------------------------------------------------------------------------------------
    @rule(
        name=st.sampled_from([*APPLICATIONS, "unknown"]),
        batch=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), min_size=1, max_size=4),
        models=st.sampled_from([None, None, None, ["a"], ["b:1", "a"], ["z"]]),
        age_s=st.sampled_from([0.0, 0.5, 2.0, -100.0]),
        bound_s=st.sampled_from([None, None, 0.2, 50.0]),
        partition=st.integers(0, 1),
        spread_s=st.sampled_from([0.0, 0.3]),
        alike=st.booleans(),
    )
    def queries_come(self, *, name, batch, models, age_s, bound_s, partition, spread_s, alike):
        if alike:
            models, batch = None, [values[:1] for values in batch]
        settings = dict(application=name, models=models, deadline_s=bound_s, partition=partition)
        arriving = []
        for number, values in enumerate(batch):
            self.count += 1
            at_s = self.now_s - age_s - number * spread_s
            arriving.append(query(f"q{self.count}", *values, queried_at_s=at_s, **settings, offset=self.count))
            self.waiting |= {one.name: one for one in self.naive(arriving[-1])}
        self.compare(self.router.receive(arriving, self.now_s))

    @rule(random=st.randoms(use_true_random=False))
    def a_query_is_read_again(self, random):
        known = [one for one in (self.waiting | self.answered).values() if not one.audits]
        if known:
            again = random.choice(known).query
            self.repeats[again.query_id] += 1
            self.trip_s(APPLICATIONS.get(again.application))
            self.compare(self.router.receive([again], self.now_s))

    @rule(random=st.randoms(use_true_random=False), pieces=st.integers(1, 3))
    def outputs_come(self, random, pieces):
        sent = []
        for _ in range(pieces):
            open_frames = list(dict.fromkeys(frame for frame, _ in self.askers)) or list(self.requests)
            if open_frames:
                sent.append(self.piece(self.requests[random.choice(open_frames)], random))
        for piece in sent:
            self.observe_trip(piece)
            for row, output in enumerate(piece.outputs, piece.row0):
                self.arrives(piece.frame, row, output, piece.failures.get(row))
        self.compare(self.router.gather(sent, self.now_s))

    @rule(seconds=st.sampled_from([0.1, 0.2, 0.5, 1.0, 3.0, 70.0]))
    def time_passes(self, seconds):
        self.now_s += seconds
        due = self.router.next_deadline_s
        if due is not None and due <= self.now_s:
            self.expire()

    @rule(random=st.randoms(use_true_random=False))
    def an_answer_is_recorded(self, random):
        if self.answered:
            self.record(self.answered.pop(random.choice(list(self.answered))))

    @rule()
    def partitions_are_taken_away(self):
        self.router.reset()
        self.waiting, self.answered, self.repeats = {}, {}, Counter()
        self.flying, self.askers = {}, {}

    # --- what must hold ---------------------------------------------------------------------------------------
    @invariant()
    def every_query_is_in_flight_until_it_is_recorded(self):
        assert self.router.in_flight == len(self.waiting) + len(self.answered) + self.repeats.total()
        assert all(one.deadline_s > self.now_s for one in self.waiting.values())

    def teardown(self):
        if not hasattr(self, "router"):
            return
        self.now_s += 1000
        self.expire()
        assert not self.waiting
        for one in self.answered.values():
            self.record(one)
        self.now_s += 1000
        self.router.expire(self.now_s)
        asking = self.router._rows
        assert self.router.in_flight == len(asking) == len(asking._overdue) == asking._overdue_rows == 0
        assert self.router.next_deadline_s is None

    # --- the naive model --------------------------------------------------------------------------------------
    def naive(self, one):
        app = APPLICATIONS.get(one.application)
        found = Naive(one, list(one.rows))
        trip_s, self.asked_at_s[one.query_id] = self.trip_s(app), self.now_s
        if app is None or not app.answers or one.models == ["z"]:
            return [found]
        asked_at_s = min(one.queried_at_s, self.now_s)
        deadline_s = self.now_s + THROUGHPUT_WAIT_S if app.objective_s is None else asked_at_s + app.objective_s
        found.deadline_s = deadline_s if one.deadline_s is None else min(deadline_s, asked_at_s + one.deadline_s)
        left_s = found.deadline_s - self.now_s
        no_model_answers = left_s < min(trip_s, self.now_s - one.queried_at_s)
        if left_s <= 0 or no_model_answers or None in map(app.candidate_ref, one.models or ()):
            return [found]
        decision = (
            prepare(app, 0, None).select(query_rng(app.seed, one.query_id))
            if one.models is None
            else forced_decision([app.candidate_ref(model) for model in one.models])
        )
        if not decision.served:
            return [found]
        found.decision, besides = decision.split()
        audit = Naive(one, list(one.rows), besides, audits=True, deadline_s=found.deadline_s)
        for part in (found, audit):
            for ref in part.decision.models:
                for row, (value,) in enumerate(part.rows):
                    known = ref != VOLATILE and self.cache and (one.partition, ref, value) in self.cache
                    part.slots[ref, row] = MODELS[ref](value) if known else OPEN
        return [found, audit] if besides.models else [found]

    def in_time_for_another(self, one):
        app = APPLICATIONS.get(one.query.application)
        trip_s = self.trips.least_s(app.refs[-1:], self.now_s) if app else 0.0
        return one.deadline_s > max(self.now_s, self.asked_at_s[one.query.query_id] + trip_s)

    def ask_again(self, one):
        ref = one.decision.models[-1]
        for row, (value,) in enumerate(one.rows):
            known = ref != VOLATILE and self.cache and (one.query.partition, ref, value) in self.cache
            one.slots[ref, row] = MODELS[ref](value) if known else OPEN

    def trip_s(self, app):
        return 0.0 if app is None else self.trips.least_s(app.refs, self.now_s)

    def observe_trip(self, piece):
        """Note how long the first of the rows was under way that the piece answers for the first time."""
        rows = range(piece.row0, piece.row0 + len(piece.outputs))
        askers = [self.askers[piece.frame, row] for row in rows if (piece.frame, row) in self.askers]
        if len(piece.failures) < len(askers):
            asked_at_s = self.asked_at_s[askers[0][0].removesuffix("/audit")]
            self.trips.observe(self.requests[piece.frame].ref, self.now_s - asked_at_s, self.now_s)

    def piece(self, request, random):
        first = random.randrange(len(request.rows))
        outputs, failed = [], {}
        for row in range(first, random.randint(first + 1, len(request.rows) + 1)):  # a row too many sometimes
            outcome = random.choice(["output", "output", "output", "late", "error"])
            value = request.rows[row][0] if row < len(request.rows) else 0
            outputs.append(MODELS[request.ref](value) if outcome == "output" else None)
            if outcome != "output":
                failed[row] = Failure(outcome, "because")
        return OutputPiece(request.frame, first, outputs, failed)

    def arrives(self, frame, row, output, failure):
        asker = self.askers.pop((frame, row), None)
        if asker is None:
            return  # answered before, or never asked
        request, (query_id, slot, partition) = self.requests[frame], asker
        key = request.ref, float(request.rows[row][0])
        current = self.flying.get(key) == (frame, row)
        late = failure is not None and failure[0] == "late"
        if current or (key[0] != VOLATILE and not late):
            self.flying.pop(key, None)
        if failure is None and key[0] != VOLATILE and self.cache is not None:
            self.cache.add((partition, *key))
        if key[0] == VOLATILE or late:
            own = self.waiting.get(query_id) if current or key[0] == VOLATILE else None
            slots = [(own, slot)] if own and own.slots[slot] is OPEN else []
        else:
            slots = [(one, place) for one in self.waiting.values() for place in one.open(*key)]
        for one, place in slots:
            one.fill(place, output, failure)

    def expire(self):
        for one in [one for one in self.waiting.values() if one.deadline_s <= self.now_s]:
            self.answered[one.name] = self.waiting.pop(one.name)
        self.flying = {
            key: (frame, row) for key, (frame, row) in self.flying.items()
            if self.requests[frame].deadlines_s[row] > self.now_s
        }  # fmt: skip
        effects = self.router.expire(self.now_s)
        for frame in effects.forgotten:
            assert max(self.requests[frame].deadlines_s) <= self.now_s
            for row in range(len(self.requests[frame].rows)):
                self.askers.pop((frame, row), None)
        self.compare(effects)

    def record(self, one):
        if one.audits:
            assert self.router.is_audited(one.query)
            self.router.audit_recorded(self.answers.pop(one.name))
            return
        again = self.router.recorded(self.answers.pop(one.name))
        assert len(again) == self.repeats.pop(one.query.query_id, 0)

    # --- comparing --------------------------------------------------------------------------------------------
    def compare(self, effects):
        for name, one in [*self.waiting.items()]:
            if one.complete and one.asks_again(self.in_time_for_another(one)):
                self.ask_again(one)
            if one.complete:
                self.answered[name] = self.waiting.pop(name)
        told = getattr(self, "told", set()) & self.answered.keys()
        named = [(answer.query.query_id, answer) for answer in effects.answers]
        named += [(f"{answer.query.query_id}/audit", answer) for answer in effects.audits]
        self.answers |= dict(named)
        assert sorted(name for name, _ in named) == sorted(self.answered.keys() - told)
        self.told = set(self.answered)
        for audit in effects.audits:
            one = self.answered[f"{audit.query.query_id}/audit"]
            used = one.used()
            assert {use.ref: use.outputs for use in audit.used} == used
            assert [each.ref for each in audit.missing] == [ref for ref in one.decision.models if ref not in used]
            assert not any(each.served for each in (*audit.used, *audit.missing))
        for answer in effects.answers:
            one = self.answered[answer.query.query_id]
            outputs, reason, used = one.answer()
            assert (answer.outputs, {use.ref: use.outputs for use in answer.used}) == (outputs, used)
            assert (answer.failure and answer.failure.reason) == reason if one.decision else answer.default
        for request in effects.requests:
            self.asked(request)

    def asked(self, request):
        assert request.frame not in self.requests
        assert min(request.deadlines_s) > self.now_s
        self.requests[request.frame] = request
        asked = [(part.batch, slot) for part in request.asked for slot in part.slots]
        for row, (batch, slot) in enumerate(asked):
            key, entry = (request.ref, float(request.rows[row][0])), batch.slot_entry[slot]
            assert request.rows[row][0] == batch.rows[batch.slot_row[slot]][0]
            query_id = query_at(batch, batch.query_of(entry)).query_id
            name = query_id if entry not in batch.audit.values() else f"{query_id}/audit"
            assert name in self.waiting
            in_query = (slot - batch.slot_start[entry]) % batch.count(entry)
            self.askers[request.frame, row] = name, (request.ref, in_query), batch.partition
            if request.ref != VOLATILE:
                assert key not in self.flying
                self.flying[key] = request.frame, row


TestRouter = RouterMachine.TestCase
TestRouter.settings = settings(max_examples=200, stateful_step_count=30)
