import dataclasses

import oracle
import pytest
from builders.decision_logs import answer
from builders.learner_logs import flipped
from unit.replay.deployment import CATALOGUE, SAVED, Deployment, is_told_alike, joined, manifest, verified

from clipper_agents.control.selection_states import state_of
from clipper_agents.replay.verify import BeginningDeleted
from clipper_agents.streaming.outbox import MAX_BATCH_BYTES
from clipper_stream.evaluation.sequential.replay import CandidateState
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.state import MOST_MODELS
from clipper_topics.manifests import REF_CHARACTERS
from clipper_topics.query import ID_CHARACTERS, MOST_FEATURES
from clipper_topics.selection_rows import MOST_CONFIGS, RowKey, config_context, decode_row, encode_key, encode_row

APP, KEY = ("app", None), encode_key(RowKey("app", None, 0))


@pytest.fixture
def at():
    return Deployment(manifest(), manifest("other"))


def test_a_verdict_counts_what_was_compared(at):
    found = verified(at.work(20, every=3).work(20, "other", partition=1, context="c").work(5, partition=1, first=100))
    assert (found.equal, found.feedbacks, found.rows) == (True, 45, 5)
    assert [one.position for one in found.partitions] == [19, 24]
    assert is_told_alike(at)


# --- what is false ----------------------------------------------------------------------------------------------------
def flip(at, number):
    """Another last bit in a row of the changelog."""
    one = at.changelog[number]
    at.changelog[number] = dataclasses.replace(one, value=encode_row(flipped(decode_row(one.value))))
    return at


def without_row(at):
    at.changelog[:] = [one for one in at.changelog if one.key != KEY]
    return at


def lose(at, topic, number):
    del at.logs.topics[topic, 0][number]
    return at


def append(at, key, value):
    at.logs.append(CATALOGUE.selection_changelog, value, 0, key)
    return at


def forget_configs(at):
    """The changelog and table as an older version has written them: nothing says what a row was folded under."""
    key = encode_key(RowKey("", config_context("app"), 0))
    at.changelog[:] = [one for one in at.changelog if one.key != key]
    del at.rows["", config_context("app"), 0]
    return at


# What happened; what is told of partition 0.
EQUAL = {
    "feedback that was not learned yet": (
        lambda at: at.work(4).tell("app-0").tell("nobody").learn().ask("later").tell("later"),
        dict(feedbacks=6, behind=1)),
    "rows without their position": (lambda at: lose(at.work(5), CATALOGUE.selection_changelog, -1), {}),
    "a row that was wrong only once": (lambda at: flip(at.work(8), 5), {}),
    "a row that is compacted": (lambda at: at.work(8).compact(), dict(feedbacks=8)),
    **{
        f"rows of which nothing says under what they were folded, and a change of {changes}": (
            lambda at, changes=changes: forget_configs(at.work(6).work(6, "other")).declare(manifest(**changes))
            .follow().work(3, first=20),
            dict(unlogged=unlogged),
        )
        for changes, unlogged in (({"audit_ratio": 0.5}, []), ({"half_life": 3.0}, ["app"]))
    },
}  # fmt: skip


@pytest.mark.parametrize(("happened", "described"), EQUAL.values(), ids=EQUAL)
def test_what_cannot_be_called_false_is_equal(at, happened, described):
    found = verified(happened(at))
    assert found.equal
    assert {name: getattr(found.partitions[0], name) for name in described} == described


# What happened, and how the one row that differs is described: as far as it is given.
APP_ROW = dict(application="app", context=None, partition=0)
FALSE = {
    "a bit of the newest row": (lambda at: flip(at.work(12), -2), APP_ROW),
    "a row behind feedback about nothing": (
        lambda at: flip(at.work(4).tell("nobody").ask("p").tell("p").learn(), -2), APP_ROW),
    "a row that a learner went on from": (
        lambda at: at.work(8).falsify(8).ask("lost").tell("lost").skip().work(10, first=20), APP_ROW),
    "a position that was not written": (lambda at: lose(
            at.work(8).falsify(8).ask("lost").tell("lost").skip(), CATALOGUE.selection_changelog, -1
        ).work(10, first=20), APP_ROW),
    "a row behind a step of several": (
        lambda at: at.work(6).ask("x", context="c").tell("x").work(2, first=20, every=0).learn().falsify(9), APP_ROW),
    "a row of which no feedback tells": (
        lambda at: at.work(4).put(("app", "nobody"), at.rows[*APP, 0]), dict(context="nobody", logs=None)),
    "a row of another partition": (
        lambda at: append(at.work(4), encode_key(RowKey("app", None, 1)), encode_row(at.rows[*APP, 0])),
        dict(partition=1)),
    "a row that is missing": (lambda at: without_row(at.work(4)), dict(table=None)),
    "an update that was lost": (lambda at: lose(at.work(4), CATALOGUE.selection_changelog, -2), APP_ROW),
    "an older row behind a newer one, which compaction keeps": (
        lambda at: append(at.work(4), KEY, next(one.value for one in at.changelog if one.key == KEY)), APP_ROW),
    "a row behind the position": (lambda at: flip(lose(at.work(5), CATALOGUE.selection_changelog, -1), -1), APP_ROW),
    "a row beside a change": (
        lambda at: at.work(6).declare(manifest(half_life=3.0)).follow().work(3, first=20).falsify(9), APP_ROW),
    **{
        f"a feedback that was lost {count} behind a change": (
            lambda at, count=count: at.work(6).declare(manifest(half_life=3.0)).follow().work(count, first=20)
            .ask("lost").tell("lost").skip().work(2, first=40),
            APP_ROW,
        )
        for count in (0, 3)
    },
    "a context that was deleted and not forgotten": (lambda at: append(
            at.work(3, context="a").work(3, first=10, context="b"), encode_key(RowKey("app", "b", 0)), None
        ),
        dict(context="b", table=None)),
}  # fmt: skip


@pytest.mark.parametrize(("happened", "described"), FALSE.values(), ids=FALSE)
def test_what_is_false_is_found_and_named(at, happened, described):
    found = verified(happened(at))
    (parting,) = found.partings
    assert {name: getattr(parting, name) for name in described} == described
    assert (found.equal, parting.table != parting.logs) == (False, True)


def test_a_row_that_differs_is_shown_beside_what_the_logs_lead_to(at):
    (parting,) = verified(flip(at.work(12), -2)).partings
    assert (parting.table.applied, parting.logs.applied, parting.logs.offset) == (12, 12, 11)
    assert parting.logs.totals["b:1"] == {
        name: getattr(at.rows[*APP, 0].totals[1], name) for name in ("count", "loss", "weighted_count", "weighted_loss")
    }


@pytest.mark.parametrize("topic", [CATALOGUE.predictions, CATALOGUE.audits, CATALOGUE.feedback])
def test_logs_whose_beginning_was_deleted_are_not_verified(at, topic):
    at.ask("q", audited=True).audit("q").tell("q").work(3).delete_before(1, [topic])
    with pytest.raises(BeginningDeleted, match=rf"{topic}\[0\] begins at offset 1"):
        verified(at)


def test_a_position_beyond_the_log_or_behind_a_marker_is_found(at):
    found = verified(lose(at.work(4), CATALOGUE.feedback, -1))
    assert {(one.application, one.table.offset) for one in found.partings} == {("", 3), ("app", 3)}
    passed_over = verified(Deployment().work(6).restore(SAVED).skip()).partings
    assert {(one.application, one.context) for one in passed_over} == {("app", None), ("", "app")}


# --- changes of which nothing tells -----------------------------------------------------------------------------------
def test_few_changes_are_remembered_and_it_is_said_when_one_was_forgotten(at):
    for number in range(MOST_CONFIGS):
        at.work(1, first=number).declare(manifest(half_life=2.0 + number)).follow()
    found = verified(at.work(1, first=50))
    assert len(at.rows["", config_context("app"), 0].configs) == MOST_CONFIGS
    assert (found.equal, found.partitions[0].unlogged) == (True, ["app"])


def test_a_step_done_again_after_a_crash_is_noted_where_it_began(at):
    at.work(5).ask("q").tell("q").learn(crash_after=1).declare(manifest(half_life=2.0)).follow().work(3, first=20)
    assert [one.first for one in at.rows["", config_context("app"), 0].configs] == [0, 5]


# --- bounds -----------------------------------------------------------------------------------------------------------
LONGEST = "m" * (REF_CHARACTERS - 33)
STAYS = f"{LONGEST}:stays"


@pytest.mark.parametrize(("policy", "features"), [("lin_ucb", MOST_FEATURES), ("exp4", 0)])
def test_a_row_of_hundreds_of_versions_fits_into_a_record(policy, features):
    at = Deployment(manifest(policy=policy))
    for number in range(700):
        outputs = [(f"{LONGEST}:{number:032}", number % 2), (STAYS, 1)]
        at.ask(f"{number}", outputs=outputs, features=[0.5 / (1 + number)] * features).tell(f"{number}")
        if number % 100 == 0:
            at.learn()
    changelog = at.learn().logs.every(CATALOGUE.selection_changelog)
    assert max(len(one.value) for one in changelog) < MAX_BATCH_BYTES // 2
    totals = oracle.table(changelog)["app", None, 0].totals
    assert (len(totals), totals[STAYS][0]) == (MOST_MODELS, 700.0)
    assert is_told_alike(at)


def test_a_version_that_was_dropped_and_comes_back_begins_anew(at):
    for place, number in enumerate([*range(MOST_MODELS), 0, MOST_MODELS, 1]):
        at.ask(f"{place}", outputs=((f"a:{number}", 1),)).tell(f"{place}")
    totals = {one.model: one.count for one in at.learn().rows[*APP, 0].totals}
    assert (totals["a:0"], totals["a:1"], len(totals)) == (2.0, 1.0, MOST_MODELS)
    assert is_told_alike(at)


@pytest.mark.parametrize(
    "forged",
    [
        {"context": "c" * (ID_CHARACTERS + 1)},
        {"features": [0.5] * (MOST_FEATURES + 1)},
        {"outputs": [("m" * REF_CHARACTERS + ":1", 1)]},
        {"outputs": [(f"m:{number}", 1) for number in range(MOST_MODELS + 1)]},
    ],
    ids=["context", "features", "name", "models"],
)
def test_what_no_row_can_hold_is_refused_and_the_next_feedback_counts(at, forged):
    at.ask("forged", **forged).tell("forged").work(2)
    (letter,) = at.logs.every(CATALOGUE.dead_letters)
    assert b"no router wrote it" in letter.headers["__streams.errors.message"]
    assert at.rows[*APP, 0].applied == 2
    assert verified(at).equal


@pytest.mark.parametrize("dirty", [None, 0, 5])
def test_contexts_that_were_forgotten_and_come_back_begin_anew(at, dirty):
    at.work(6)
    for turn, names in enumerate(["abc", "bcd", "ae", "af"]):
        for name in names:
            at.work(2, first=100 * turn + 10 * ord(name), context=name)
        if turn in {1, 2}:
            at.forget(at.position() - 3)
    assert {context for name, context, _ in at.rows if name and context} == {"a", "e", "f"}
    assert at.rows["app", "a", 0].applied == 4
    assert is_told_alike(at if dirty is None else at.compact(dirty))


def test_losses_by_confidence_and_what_was_expected_of_them_are_verified_to_the_bit():
    at = Deployment(manifest(policy="cascade"))
    for number in range(250):
        sure = number % 7 / 7
        models = [answer("a:1", number % 3, confidence=sure), answer("b:1", 1, 0.3, served=False, confidence=0.98)]
        at.ask(f"{number}", models=models[: 1 + number % 2], features=[sure]).tell(f"{number}", number % 2)
        if number % 20 == 0:
            at.learn()
    first, _ = at.learn().rows[*APP, 0].totals
    assert first.calibration[-4] == pytest.approx(123.0, rel=0.1), "labels that were expected after the first hundred"
    assert is_told_alike(at)


# --- what `replay learn` fits -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(("policy", "how"), [("exp3", {"half_life_s": 5.0}), ("lin_ucb", {"half_life": 9.0})])
def test_a_policy_that_is_fitted_to_a_file_has_learned_what_the_router_did(policy, how):
    at = Deployment(manifest(policy=policy, **how)).work(40, every=7, features=[0.25, -1.0])
    at.work(30, every=4, first=100, context="c", features=[0.5])
    columns, _ = joined(at.logs)
    parts = [columns.take(slice(0, 33)), columns.take(slice(33, None))]
    rows = {(context, 0): state_of(at.rows["app", context, 0]) for context in (None, "c")}
    assert CandidateState(make_policy(policy, how), columns.models).learn_all(parts) == rows
