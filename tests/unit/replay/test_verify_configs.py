"""Where an application's policy or loss changes, each feedback is folded again under those of then."""

import msgspec
import pytest
from builders.learner_logs import CATALOGUE, Deployment, flipped, manifest, verified

from clipper_topics.selection_rows import MOST_CONFIGS, RowKey, config_context, encode_key, note_row


@pytest.mark.parametrize("every", [1, 4])
def test_a_half_life_that_changes_is_followed_from_where_the_change_says(every):
    at = Deployment(manifest())
    at.work(8, every=every)
    at.declare(manifest(revision=2, half_life=3.0))
    at.follow()
    at.work(8, first=20, every=every)
    found = verified(at)
    assert found.equal


@pytest.mark.parametrize("every", [1, 3])
def test_a_router_that_follows_a_change_late_is_no_difference(every):
    at = Deployment(manifest())
    at.work(6, every=every)
    at.declare(manifest(revision=2, half_life=3.0))
    at.work(6, first=20, every=every)
    at.follow()
    at.work(6, first=40, every=every)
    found = verified(at)
    assert found.equal


def test_a_router_behind_with_feedback_at_a_change_is_no_difference():
    at = Deployment(manifest())
    at.work(4)
    for number in range(6):
        at.ask(f"late-{number}")
        at.tell(f"late-{number}", number % 2)
    at.learn(most=2)
    at.declare(manifest(revision=2, half_life=2.0))
    at.follow()
    at.learn()
    found = verified(at)
    assert found.equal


def test_the_offset_of_a_change_is_found_when_the_rows_around_it_are_compacted():
    at = Deployment(manifest())
    at.work(9)
    at.declare(manifest(revision=2, half_life=3.0))
    at.work(3, first=20)
    at.follow()
    at.work(6, first=40)
    at.logs.compact(CATALOGUE.selection_changelog, 0, dirty=0)
    found = verified(at)
    assert found.equal


def test_a_change_that_observes_alike_is_no_change():
    at = Deployment(manifest())
    at.work(4)
    at.declare(manifest(revision=2, audit_ratio=0.5))
    at.follow()
    at.work(4, first=20)
    found = verified(at)
    assert found.equal


def test_a_row_that_is_wrong_is_found_beside_a_change():
    at = Deployment(manifest())
    at.work(6)
    at.declare(manifest(revision=2, half_life=3.0))
    at.follow()
    at.work(3, first=20)
    at.write(("app", None), flipped(msgspec.structs.replace(at.rows["app", None, 0], offset=9)))
    (parting,) = verified(at).partings
    assert parting.last_equal == 8


def test_a_loss_that_changes_decides_which_feedback_counts():
    at = Deployment(manifest())
    at.work(4)
    at.declare(manifest(revision=2, loss="absolute"))
    at.follow()
    at.ask("text")
    at.tell("text", "no number")
    at.tell("text", 0)
    at.learn()
    assert at.rows["app", None, 0].applied == 5
    assert verified(at).equal


def forget_configs(at, name="app", partition=0):
    """The changelog and table as an older version has written them: nothing says what a row was folded under."""
    log = at.logs.topics[CATALOGUE.selection_changelog, partition]
    key = encode_key(RowKey("", config_context(name), partition))
    log[:] = [one for one in log if one.key != key]
    del at.rows["", config_context(name), partition]


def test_a_step_done_again_after_a_crash_is_folded_under_the_policy_of_then():
    at = Deployment(manifest())
    at.work(6)
    at.logs.topics[CATALOGUE.selection_changelog, 0].pop()  # the rows were stored and their position was not
    at.rows["", None, 0] = note_row(4)
    at.declare(manifest(revision=2, half_life=2.0))
    at.follow()
    at.work(3, first=20)
    assert [one.first for one in at.rows["", config_context("app"), 0].configs] == [0, 6]
    assert verified(at).equal


def test_labels_that_the_former_loss_refused_are_no_difference():
    at = Deployment(manifest(loss="absolute"))
    at.work(4)
    for number in range(6):
        at.ask(f"text-{number}")
        at.tell(f"text-{number}", "no number")
        at.learn()
    at.declare(manifest(revision=2))
    at.follow()
    at.work(4, first=20)
    assert at.rows["app", None, 0].applied == 8
    at.logs.compact(CATALOGUE.selection_changelog, 0, dirty=0)
    assert verified(at).equal


@pytest.mark.parametrize("before", [0, 3])
def test_a_feedback_that_was_lost_near_a_change_is_found(before):
    at = Deployment(manifest())
    at.work(6)
    at.declare(manifest(revision=2, half_life=3.0))
    at.follow()
    at.work(before, first=20)
    at.ask("lost")
    at.write(("", None), msgspec.structs.replace(at.rows["", None, 0], offset=at.tell("lost")))
    at.work(2, first=40)
    found = verified(at)
    assert [one.application for one in found.partings] == ["app"]


def test_rows_of_an_older_version_are_verified_where_nothing_changed():
    at = Deployment(manifest())
    at.work(6)
    forget_configs(at)
    at.declare(manifest(revision=2, audit_ratio=0.5))
    at.follow()
    at.work(3, first=20)
    found = verified(at)
    assert (found.equal, found.partitions[0].unlogged) == (True, [])


def test_rows_of_an_older_version_are_refused_in_words_where_the_policy_changed():
    at = Deployment(manifest(), manifest("other"))
    at.work(6)
    at.work(6, "other")
    forget_configs(at)
    at.declare(manifest(revision=2, half_life=3.0))
    at.follow()
    at.work(3, first=20)
    found = verified(at)
    assert (found.equal, found.partitions[0].unlogged) == (True, ["app"])


def test_feedback_of_an_application_that_was_deleted_for_a_while_teaches_nothing():
    at = Deployment(manifest())
    at.work(4)
    at.withdraw("app", revision=2)
    at.work(3, first=20)
    at.declare(manifest(revision=3))
    at.follow()
    at.work(4, first=40)
    assert at.rows["app", None, 0].applied == 8
    assert verified(at).equal


def test_few_changes_are_remembered_and_it_is_said_when_one_was_forgotten():
    at = Deployment(manifest())
    for revision in range(2, MOST_CONFIGS + 2):
        at.work(1, first=revision)
        at.declare(manifest(revision=revision, half_life=float(revision)))
        at.follow()
    at.work(1)
    assert len(at.rows["", config_context("app"), 0].configs) == MOST_CONFIGS
    found = verified(at)
    assert (found.equal, found.partitions[0].unlogged) == (True, ["app"])


def test_a_name_that_is_no_application_has_no_note():
    at = Deployment()
    at.work(3, "nobody")
    assert set(at.rows) == {("", None, 0)}
    assert verified(at).equal
