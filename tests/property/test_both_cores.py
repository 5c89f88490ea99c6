"""The core that is replaced beside the one that replaces it, on random schedules, for the time of the change.

Equal are requests, predictions and audits byte for byte, and counts.
"""

import random
from collections import Counter

import pytest
from builders.query_router import NOW_S, application, batches_of, make_turn, query
from old_core import DecodedBlock, DecodedQuery
from old_core import Failure as OldFailure
from old_core import OutputPiece as OldPiece
from old_core.answer import answers_of
from old_core.builders import make_router
from old_core.prediction_records import encode_answer, encode_block
from old_core.prediction_records import encode_audit as old_encode_audit

from clipper_agents.router.prediction_records import encode_answers, encode_audits
from clipper_stream.query import Failure, OutputPiece


def decoded(one):
    """A query as the old core takes it."""
    return DecodedQuery(**one._asdict() | {"rows": [*one.rows]})


def block_of(queries):
    """The block of queries of one application, each of one row."""
    first, deadlines_s = queries[0], [one.deadline_s for one in queries]
    return DecodedBlock(
        [one.query_id for one in queries], first.application, [one.rows[0] for one in queries],
        [one.queried_at_s for one in queries], first.partition, [one.offset for one in queries], first.generation,
        [one.key for one in queries], first.content_type, None if first.deadline_s is None else deadlines_s,
    )  # fmt: skip


MODELS = {"a:1": int, "b:1": lambda x: int(x) % 2, "c:1": lambda x: 7, "d:1": lambda x: -int(x)}
VOLATILE = ("c:1",)
APPLICATIONS = {
    app.name: app
    for app in (
        application("all", ("a:1", "b:1", "c:1"), volatile=VOLATILE),
        application("sure", ("a:1", "b:1"), confidence_threshold=0.9, objective_s=3.0),
        application("mean", ("a:1", "b:1", "d:1"), combiner="mean", confidence_threshold=0.3),
        application("one", ("a:1", "b:1", "c:1"), "exp3", objective_s=None, audit_ratio=0.3, volatile=VOLATILE),
        application("tried", ("a:1",), canaries={"b:1": 0.3}, shadows={"c:1": 0.6, "d:1": 1.0}, volatile=VOLATILE),
        application("single", ("a:1", "b:1", "c:1"), "exp3", volatile=VOLATILE),
        application("patient", ("a:1", "b:1"), "exp3", objective_s=None),
        application("features", ("a:1", "b:1"), "lin_ucb", input_features=1),
        application("only a canary", (), canaries={"a:1": 0.5}),
        application("none", ()),
    )
}
TYPES = ["application/json", "application/msgpack"]


class Schedule:
    """One random schedule, given to both."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        budget = self.random.choice([0, 100_000])
        most = self.random.choice([1 << 62, 1 << 62, 12])
        self.old = make_router(*APPLICATIONS.values(), budget_bytes=budget, most_waiting=most)
        self.turn = make_turn(*APPLICATIONS.values(), budget_bytes=budget, most_waiting=most)
        self.new = self.turn.router
        self.old.admission.shared = self.new.admission.shared = self.random.random() < 0.5
        self.now_s, self.count = NOW_S, 0
        self.frames = {}  # token of the new one: (old token, ref, rows, whether the rows are in the same order)
        self.known = []  # queries that were read
        self.old_answers, self.new_answers = {}, {}  # by key of the query, not recorded yet
        self.compared = Counter()

    def run(self, steps=40):
        kinds = [self.queries_come] * 4 + [self.a_query_is_read_again] + [self.outputs_come] * 6
        kinds += [self.time_passes] * 3 + [self.an_answer_is_recorded] * 3 + [self.audits_end, self.settings_change]
        for _ in range(steps):
            if self.random.random() < 0.01:
                self.partitions_are_taken_away()
            self.random.choice(kinds)()
            self.check()
        self.now_s += 1000
        self.expire()
        while self.old_answers:
            self.an_answer_is_recorded()
        self.now_s += 1000
        self.expire()
        assert self.old.in_flight == self.new.in_flight == 0
        assert len(self.old._tracker) == len(self.new._rows) == self.new._rows._overdue_rows == 0
        assert not self.new._rows._others
        assert self.new.next_deadline_s is None
        assert self.old.admission.waiting == self.new.admission.waiting == 0

    def check(self):
        assert self.old.in_flight == self.new.in_flight
        assert self.old.admission.waiting == self.new.admission.waiting
        assert (self.old.next_deadline_s is None) == (self.new.next_deadline_s is None)
        assert self.old.surplus_audits == self.new.surplus_audits
        if self.old.next_deadline_s is not None:
            assert self.new.next_deadline_s <= self.old.next_deadline_s

    # --- what happens ---------------------------------------------------------------------------------------------
    def queries_come(self):
        pick = self.random.choice
        names = [pick([*APPLICATIONS, "unknown"])]  # of two, today's router makes two requests for one model
        partition, kind, together = pick([0, 1]), pick(TYPES), self.random.random() < 0.3
        broken = self.random.random() < 0.2  # today a packed query comes behind the others then
        arriving, blocks = [], []
        for name in names:
            some = []
            for _ in range(pick([1, 1, 2, 3, 5, 9])):
                self.count += 1
                values = [pick(range(5)) for _ in range(pick([1, 1, 1, 1, 2, 3]) if not together and not broken else 1)]
                if broken and self.random.random() < 0.3:
                    values[-1] = "text"
                changes = {}
                if not together:
                    changes = {
                        "models": pick([None] * 6 + [["a"], ["b:1", "a"], ["z"]]),
                        "context": pick([None, None, None, "ada"]),
                        "invalid": pick([None] * 12 + ["wrong"]),
                        "features": pick([None, None, [0.5, 2.0]]),
                    }
                at_s = self.now_s - pick([0.0, 0.0, 0.0, 0.5, 0.9, 2.0, -100.0])
                some.append(query(
                    f"q{self.count}", *values, application=name, partition=partition, offset=self.count,
                    content_type=kind, queried_at_s=at_s, deadline_s=pick([None, None, 0.2, 50.0]) if not together else None,
                    **changes,
                ))  # fmt: skip
            arriving += some
            blocks += [block_of(some)] if together else map(decoded, some)
            self.known += some
        self.reads(arriving, blocks)

    def a_query_is_read_again(self):
        if self.known:
            one = self.random.choice(self.known)
            self.count += 1
            again = one._replace(offset=self.random.choice([one.offset, self.count]), rows=[[1.0] for _ in range(1)])
            again = again._replace(packed=False, features=None)
            if self.random.random() < 0.2:
                again = again._replace(application=self.random.choice(["one", "all"]), models=None)
            if again.application != one.application or again.offset != one.offset:
                again = again._replace(offset=self.count)
            if (again.partition, again.offset) in {
                (q.partition, q.offset) for q in self.known if q.application != again.application
            }:
                return
            self.known.append(again)
            self.reads([again], [decoded(again)])

    def reads(self, queries, old_queries):
        old = self.old.receive(old_queries, self.now_s)
        for batch in batches_of(queries):
            self.new.admit(batch)
            self.turn.decide(batch, self.now_s)
        new, sending = self.carried_out(self.new.end_turn(self.now_s))
        self.compare(old, new, sending)

    def outputs_come(self):
        sent_old, sent_new = [], []
        for _ in range(self.random.choice([1, 1, 2, 3])):
            if not self.frames:
                return
            frame = self.random.choice([*self.frames][-6:])
            old_frame, ref, rows, in_order = self.frames[frame]
            first = self.random.randrange(len(rows)) if in_order and self.random.random() < 0.5 else 0
            last = self.random.randint(first + 1, len(rows) + 1) if in_order and first else len(rows)
            said = {}
            for row in range(first, last):
                said[row] = self.random.choice(["output"] * 5 + ["late", "error"])
            outputs = [MODELS[ref](rows[row]) if said[row] == "output" and row < len(rows) else None for row in said]
            failed = {row: (word, "because") for row, word in said.items() if word != "output"}
            sent_new.append(OutputPiece(frame, first, outputs, {row: Failure(*why) for row, why in failed.items()}))
            order = range(first, last)
            if not in_order:
                order = [rows.index(value) for value in self.old_rows[old_frame]]
            place = {row: index for index, row in enumerate(order, first)}
            old_outputs = [outputs[row - first] for row in order]
            old_failed = {place[row]: OldFailure(*why) for row, why in failed.items()}
            sent_old.append(OldPiece(old_frame, first, old_outputs, old_failed))
        old = self.old.gather(sent_old, self.now_s)
        new, sending = self.carried_out(self.new.gather(sent_new, self.now_s))
        self.compare(old, new, sending)

    def time_passes(self):
        self.now_s += self.random.choice([0.01, 0.1, 0.2, 0.5, 1.0, 3.0, 70.0])
        if self.old.next_deadline_s is not None and self.old.next_deadline_s <= self.now_s:
            self.expire()

    def expire(self):
        old = self.old.expire(self.now_s)
        new, sending = self.carried_out(self.new.expire(self.now_s))
        gone = {self.frames.pop(frame)[0] for frame in new.forgotten if frame in self.frames}
        assert {*old.forgotten} >= gone
        self.compare(old, new, sending)

    def audits_end(self):
        old = self.old.end_audits(self.now_s)
        self.compare(old, *self.carried_out(self.new.end_audits(self.now_s)))

    def carried_out(self, effects):
        """The effects, and the answers with the bytes of each."""
        self.turn.keep(effects)
        return effects, [encode_answers(some) for some in effects.answers]

    def settings_change(self):
        self.old.return_s = self.new.return_s = self.random.choice([0.0, 0.01, 5.0])

    def an_answer_is_recorded(self):
        if not self.old_answers:
            return
        key = self.random.choice([*self.old_answers])
        what, _ = self.old_answers.pop(key)
        batch, entry = self.new_answers.pop(key)
        if key[0] == "audit":
            self.old.audit_recorded(what.query)
            self.new.audits_recorded(batch, [entry])
            return
        old = self.old.block_recorded(what) if hasattr(what, "block") else self.old.recorded(what.query)
        new = self.new.recorded(batch, [entry])
        assert [one.offset for one in old] == [other.offsets[query] for other, query in new]

    def partitions_are_taken_away(self):
        self.old.reset()
        self.new.reset()
        self.frames, self.old_answers, self.new_answers = {}, {}, {}

    # --- comparing ------------------------------------------------------------------------------------------------
    def compare(self, old, new, sending):
        said = {}
        for some in old.block_answers:
            values = encode_block(some)
            singles = answers_of(some)
            if values is None:
                values = [encode_answer(answer)[1] for answer in singles]
            for n, (index, value) in enumerate(zip(some.indices, values, strict=True)):
                own = {"combined": some.combined[n : n + 1], "refusals": some.refusals[n : n + 1]}
                said["query", some.block.partition, some.block.queries.offsets[index]] = value
                self.old_answers["query", some.block.partition, some.block.queries.offsets[index]] = (
                    some._replace(indices=[index], **own),
                    value,
                )
        for answer in old.answers:
            key = "query", answer.query.partition, answer.query.offset
            said[key] = encode_answer(answer)[1]
            self.old_answers[key] = answer, said[key]
        for audit in old.audits:
            key = "audit", audit.query.partition, audit.query.offset
            said[key] = old_encode_audit(audit)
            self.old_answers[key] = audit, said[key]
        found = {}
        for one, values in sending:
            for entry, value in zip(one.entries, values, strict=True):
                key = "query", one.batch.partition, one.batch.offsets[entry]
                found[key] = value
                self.new_answers[key] = one.batch, entry
        for some in new.audits:
            for entry, value in zip(some.entries, encode_audits(some), strict=True):
                key = "audit", some.batch.partition, some.batch.offsets[some.batch.query_of(entry)]
                found[key] = value
                self.new_answers[key] = some.batch, entry
        assert found == said
        self.compared["records"] += len(found)
        self.compared["audits"] += len(new.audits)
        self.compared["defaults"] += sum(b'"default":true' in value for value in found.values())
        assert new.coalesced == old.coalesced
        for count in ("hits", "lookups", "queries", "behind"):
            assert +Counter(getattr(new, count)) == +Counter(getattr(old, count)), count
        assert sorted((b.partition, b.offsets[q], s) for b, q, s in new.deferred) == sorted(
            (q.partition, q.offset, s) for q, s in old.deferred
        )
        self.compared["deferred"] += len(new.deferred)
        self.requested(old.requests, new.requests)

    def requested(self, old, new):
        order = lambda one: one.ref
        old, new = sorted(old, key=order), sorted(new, key=order)
        assert [one.ref for one in old] == [one.ref for one in new]
        for before, now in zip(old, new, strict=True):
            rows, old_rows = [row[0] for row in now.rows.tolist()], [row[0] for row in before.rows.tolist()]
            same = rows == old_rows and list(before.deadlines_s) == list(now.deadlines_s)
            if not same:
                assert len({*rows}) == len(rows)
                assert sorted(zip(rows, now.deadlines_s)) == sorted(zip(old_rows, before.deadlines_s))
                self.compared["other order"] += 1
                self.old_rows = getattr(self, "old_rows", {}) | {before.frame: old_rows}
            self.frames[now.frame] = before.frame, now.ref, rows, same
            self.compared["rows"] += len(rows)


@pytest.mark.parametrize("first", range(0, 400, 50))
def test_both_forms_do_the_same(first):
    for seed in range(first, first + 50):
        Schedule(seed).run()
