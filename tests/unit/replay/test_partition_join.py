"""The rules of the join, one by one; that it equals a naive one on any log is in `property/`."""

import pytest
from builders.decision_logs import Log, answer, decided, joined, missing, naive, plain

from clipper_topics import codec
from clipper_topics.audit import Audit
from clipper_topics.feedback import FORWARDED, Feedback
from clipper_topics.restore import RESTORE


def told(query_id="0-1", label=1, **changes):
    return Feedback(
        query_id=query_id, **(changes if {"loss", "reward"} & changes.keys() else {"label": label} | changes)
    )


def only(log, **rules):
    """The one decision of a log."""
    columns, _ = joined(log, **rules)
    (row,) = plain(columns)
    assert [row] == naive(log, horizon_ms=rules.get("horizon_ms", float("inf")))
    return row


def test_a_decision_has_what_the_prediction_says_and_the_losses_of_the_learner():
    log = Log(partition=3).add(decided("3-1", answer("a:1", 1, 0.25, latency_ms=2.5), context="u", confidence=0.5))
    row = only(log.add(told("3-1", label=2)))
    assert row == dict(
        partition=3, offset=0, query_offset=0, at_ms=5, revision=2, confidence=0.5, default=False, context="u",
        policy="epsilon_greedy", answer="1", label="2", served_propensity=0.25, answer_loss=1.0,
        feedback=(0, 2_000), features=[],
        models={
            "a:1": dict(propensity=0.25, served=True, answered=True, latency_ms=2.5, output="1", loss=1.0),
        },
    )  # fmt: skip


def test_a_decision_without_feedback_has_no_losses():
    row = only(Log().add(decided("0-1", answer("a:1", 1))))
    assert (row["feedback"], row["answer_loss"], row["models"]["a:1"]["loss"]) == ((-1, -1), None, None)


def test_of_two_predictions_about_a_query_the_first_is_the_decision():
    log = Log().add(decided("0-1", answer("a:1", 1))).add(decided("0-1", answer("b:1", 2))).add(told())
    columns, counts = joined(log)
    assert plain(columns) == naive(log)
    assert columns.models == ("a:1",)
    assert counts["repeated"] == 1


def test_repetitions_in_one_list_leave_the_decisions_in_log_order():
    log = Log()
    for query_id in ("0-1", "0-2", "0-1", "0-3"):
        log.add(decided(query_id, answer("a:1", 1)))
    columns, _ = joined(log, lists_of=10)
    assert columns.offset.tolist() == [0, 1, 3]


def test_the_first_feedback_counts_and_later_ones_are_duplicates():
    log = Log().add(decided("0-1", answer("a:1", 1))).add(told(label=1)).add(told(label=2)).add(told(label=3))
    assert only(log)["feedback"][0] == 0
    assert joined(log)[1]["duplicates"] == 2


@pytest.mark.parametrize("wrong", [dict(context="other"), dict(label=None)])
def test_feedback_that_cannot_be_used_leaves_the_place_to_the_next(wrong):
    log = Log().add(decided("0-1", answer("a:1", 1), context="u")).add(told(**wrong)).add(told(context="u"))
    assert only(log)["feedback"][0] == 1
    assert joined(log)[1]["invalid"] == 1


def test_a_marker_is_no_feedback():
    log = Log().add(decided("0-1", answer("a:1", 1))).add(told(label=2), headers=[(RESTORE, b"r-1")]).add(told())
    assert only(log)["feedback"][0] == 1
    assert joined(log)[1]["markers"] == 1


@pytest.mark.parametrize("topic", ["predictions", "audits", "feedback"])
@pytest.mark.parametrize("value", [b"{", None, b"", b"\xff", b'{"query_id": 3}', b"[]"])
def test_what_cannot_be_read_is_counted_and_costs_nothing_else(topic, value):
    log = Log().add_bytes(topic, value).add(decided("0-1", answer("a:1", 1))).add_bytes(topic, value).add(told())
    log.add_bytes(topic, value)
    assert only(log)["models"]["a:1"]["loss"] == 0.0
    assert joined(log)[1]["undecodable"] == 3


@pytest.mark.parametrize(
    "said",
    [
        dict(),
        dict(label=1, loss=0.5),
        dict(loss=0.5, reward=0.5),
        dict(loss=1.5),
        dict(reward=-0.1),
        dict(query_id="", label=1),
    ],
)
def test_feedback_that_says_nothing_or_too_much_is_counted_as_such(said):
    log = Log().add(decided("0-1", answer("a:1", 1)))
    log.add_bytes("feedback", codec.feedback.encode(Feedback(**({"query_id": "0-1"} | said)))).add(told())
    assert only(log)["feedback"][0] == 1
    assert joined(log)[1]["undecodable"] == 1


@pytest.mark.parametrize(
    ("said", "loss"),
    [
        (b'"label": 2, "loss": null, "reward": null', 1.0),
        (b'"label": null, "loss": 0.25, "reward": null', 0.25),
        (b'"label": null, "loss": null, "reward": 0.25', 0.75),
    ],
)
def test_null_beside_another_truth_is_absent(said, loss):
    log = Log().add(decided("0-1", answer("a:1", 1)))
    log.add_bytes("feedback", b'{"query_id": "0-1", "application": null, "context": null, ' + said + b"}")
    assert only(log)["models"]["a:1"]["loss"] == loss
    assert not joined(log)[1]["undecodable"]


def test_msgpack_and_json_are_read_alike():
    log = Log().add(decided("0-1", answer("a:1", 1)), kind=codec.MSGPACK).add(told(), kind=codec.MSGPACK)
    assert only(log)["models"]["a:1"]["loss"] == 0.0
    log.add(decided("0-2", answer("a:1", 1))).add(told("0-2"))
    columns, _ = joined(log, lists_of=10)
    assert plain(columns) == naive(log)


def test_an_audit_adds_whom_it_asked_and_they_are_scored():
    log = Log().add(decided("0-1", answer("a:1", 1, 0.5), audited=True, query_offset=7))
    audit = Audit(query_id="0-1", application="app", models=[answer("b:1", 2, 0.1, served=False)], query_offset=7)
    audit.missing = [missing("c:1", 0.2, served=False)]
    row = only(log.add(audit).add(told(label=2)))
    assert [(ref, one["served"], one["loss"]) for ref, one in row["models"].items()] == [
        ("a:1", True, 1.0), ("b:1", False, 0.0), ("c:1", False, None),
    ]  # fmt: skip


def test_an_audit_of_another_record_of_the_query_is_another_decisions():
    log = Log().add(decided("0-1", answer("a:1", 1), audited=True, query_offset=7))
    for offset in (6, 7, 7):
        log.add(Audit(query_id="0-1", models=[answer("b:1", offset, 0.1, served=False)], query_offset=offset))
    assert only(log)["models"]["b:1"]["output"] == "7"


def test_an_audit_that_no_prediction_announces_is_left_out():
    log = Log().add(decided("0-1", answer("a:1", 1), query_offset=7))
    log.add(Audit(query_id="0-1", models=[answer("b:1", 2, 0.1, served=False)], query_offset=7))
    assert only(log)["models"].keys() == {"a:1"}


def test_an_audit_that_is_not_there_is_counted():
    log = Log().add(decided("0-1", answer("a:1", 1), audited=True)).add(told())
    assert joined(log)[1]["no_audit"] == 1


def test_feedback_and_audit_may_be_read_before_their_prediction():
    log = Log().add(told()).add(Audit(query_id="0-1", models=[answer("b:1", 1, 0.1, served=False)], query_offset=0))
    row = only(log.add(decided("0-1", answer("a:1", 1), audited=True)))
    assert [one["loss"] for one in row["models"].values()] == [0.0, 0.0]


def test_feedback_about_nothing_is_an_orphan_and_about_another_application_is_not():
    log = Log().add(told("0-9")).add(decided("0-1", answer("a:1", 1), application="other")).add(told("0-1"))
    log.add(told("0-8", application="other"))
    columns, counts = joined(log)
    assert len(columns) == 0
    assert (counts["orphans"], counts["not_wanted"]) == (1, 2)


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("first", ["app", "other"])
def test_an_id_of_two_applications_is_two_decisions(first, early):
    second = "other" if first == "app" else "app"
    log, asked = Log(), [decided("q", answer(f"{name}:1", 1), application=name) for name in (first, second)]
    said = [told("q"), told("q", application="other"), told("q", application="app"), told("q", application="third")]
    for one in (*said, *asked, *asked) if early else (*asked, *asked, *said):
        log.add(one)
    for memory in (1, 1_000):
        counts = joined(log, most_in_memory=memory)[1]
        assert only(log, most_in_memory=memory, lists_of=1)["feedback"][0] == (0 if first == "app" else 2)
        of_others = 2 if first == "app" else 3
        assert (counts["not_wanted"], counts["duplicates"], counts["repeated"]) == (of_others, 3 - of_others, 1)


def test_feedback_whose_id_names_another_partition_is_read_there():
    log = Log(partition=1).add(told("2@1")).add(told("2@2"), headers=[(FORWARDED, b"2")])
    log.add(told("9@1")).add(told("2-1"))
    counts = joined(log)[1]
    assert (counts["forwarded"], counts["orphans"]) == (1, 3)


def test_forwarded_feedback_counts_where_it_was_forwarded_to():
    log = Log(partition=2).add(decided("2-1", answer("a:1", 1))).add(told("2-1"), headers=[(FORWARDED, b"1")])
    assert only(log)["feedback"][0] == 0


def test_an_id_that_names_another_partition_and_was_decided_here_stays():
    assert only(Log(partition=1).add(decided("2-1", answer("a:1", 1))).add(told("2-1")))["feedback"][0] == 0


def test_feedback_counts_up_to_the_horizon_of_its_decision_and_not_behind_it():
    log = Log().add(decided("0-1", answer("a:1", 1)), at_ms=1_000).add(decided("0-2", answer("a:1", 1)), at_ms=2_000)
    log.add(told("0-2"), at_ms=11_000).add(told("0-1"), at_ms=11_001)
    columns, counts = joined(log, horizon_ms=10_000)
    assert plain(columns) == naive(log, horizon_ms=10_000)
    assert columns.feedback_offset.tolist() == [-1, 0]
    assert counts["late"] == 1


def test_a_decision_before_the_span_is_known_by_its_id_only():
    log = Log().add(decided("0-1", answer("a:1", 1))).add(decided("0-1", answer("a:1", 1))).add(told("0-1"))
    log.add(decided("0-2", answer("a:1", 1)))
    columns, counts = joined(log, first_offset=1)
    assert plain(columns) == naive(log, first_offset=1)
    assert (counts["repeated"], counts["not_wanted"]) == (1, 1)


def test_chunks_leave_as_soon_as_nothing_more_can_come():
    log = Log()
    for number in range(4):
        log.add(decided(f"0-{number}", answer("a:1", 1)), at_ms=number * 1_000)
    log.add(told("0-0"), at_ms=50_000)
    columns, counts = joined(log, chunk_rows=2, horizon_ms=5_000)
    assert (len(columns), counts["late"]) == (4, 1)


@pytest.mark.parametrize("memory", [1, 2, 5, 1_000])
@pytest.mark.parametrize("rows", [1, 3, 1_000])
def test_what_fits_into_memory_changes_nothing(memory, rows):
    log = Log()
    for number in range(40):
        log.add(told(f"0-{number + 1}", label=number % 3)).add(
            decided(f"0-{number}", answer("a:1", number % 3), audited=True)
        )
        log.add(decided(f"0-{number // 2}", answer("b:1", 1)))
    for number in reversed(range(40)):
        log.add(Audit(query_id=f"0-{number}", models=[answer("b:1", 2, 0.1, served=False)], query_offset=0))
        log.add(told(f"0-{number}", loss=0.5))
    columns, counts = joined(log, chunk_rows=rows, most_in_memory=memory)
    assert plain(columns) == naive(log)
    assert counts == joined(log)[1]
