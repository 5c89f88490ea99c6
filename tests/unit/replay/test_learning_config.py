"""Of an application's history only what changes the fold is kept, from where it is expected on."""

from builders.learner_logs import manifest

from clipper_agents.control.state import ControlState
from clipper_agents.replay.learning_config import learning_configs
from clipper_topics import codec
from clipper_topics.change import Change
from clipper_topics.control_keys import application_key, change_key
from clipper_topics.manifests import PolicySpec


def ways(*changes, now=None):
    """Revisions and where they are expected, of changes with the ends of one partition."""
    control = ControlState()
    for revision, before, after, end in changes:
        one = Change(
            application="app", revision=revision, command="update", at_ms=0, by="a", before=before, after=after,
            feedback_ends=[end],
        )  # fmt: skip
        control.apply(change_key("app", revision), codec.changes.encode(one))
    if now is not None:
        control.apply(application_key("app"), codec.applications.encode(now))
    return [(way.revision, way.since) for way in learning_configs(control).get("app", ())]


def test_the_first_manifest_counts_from_the_beginning():
    assert ways((1, None, manifest(), 50)) == [(1, ())]
    assert ways((3, manifest(revision=2), manifest(revision=3, half_life=2.0), 50)) == [(2, ()), (3, (50,))]


def test_changes_that_observe_alike_are_one_way():
    other = manifest(revision=2)
    other.policy = PolicySpec(name="exp3", parameters={"eta": 0.3})
    forgets = manifest(revision=3, half_life=5.0)
    same = manifest(revision=4, half_life=5.0, audit_ratio=0.5)
    history = [(1, None, manifest(), 0), (2, manifest(), other, 5), (3, other, forgets, 9), (4, forgets, same, 12)]
    assert ways(*history, now=same) == [(1, ()), (3, (9,))]


def test_another_loss_is_another_way_and_so_is_a_deletion():
    absolute = manifest(revision=2, loss="absolute")
    assert ways((1, None, manifest(), 0), (2, manifest(), absolute, 5), (3, absolute, None, 9)) == [
        (1, ()),
        (2, (5,)),
        (3, (9,)),
    ]


def test_a_manifest_without_a_change_is_a_way_of_which_the_beginning_is_not_known():
    assert ways(now=manifest()) == [(1, ())]
    assert ways((1, None, manifest(), 0), now=manifest(revision=7, half_life=1.0)) == [(1, ()), (7, None)]


def test_a_manifest_that_routers_refuse_is_no_way():
    refused = manifest(revision=2)
    refused.policy = PolicySpec(name="nobody")
    assert ways((1, None, manifest(), 0), (2, manifest(), refused, 5)) == [(1, ())]
