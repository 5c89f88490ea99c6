"""Control topics and logs of rollouts in memory, and a fold of them."""

from types import SimpleNamespace

import msgspec
from builders.rollout_logs import records_of

from clipper_agents.control.state import ControlState
from clipper_agents.rollout.comparison_spec import comparison_specs
from clipper_agents.rollout.evidence import EvidenceFold
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.change import Change
from clipper_topics.control_keys import application_key, change_key
from clipper_topics.manifests import ApplicationManifest, ModelManifest, Trial

CATALOGUE = Catalogue(partitions=1)
SHADOW, CANARY = Trial(model="new:1"), Trial(model="new:1", stage="canary", share=1.0)
PLAIN = ApplicationManifest(name="digits", models=["a:1"])


def with_trials(*trials, **fields):
    return msgspec.structs.replace(PLAIN, trials=list(trials), **fields)


def control_record(key, value, at_ms=0):
    return SimpleNamespace(key=key, value=value, headers=(), timestamp=at_ms, offset=0)


def control_records(manifest, revision, *, noted=True):
    after = msgspec.structs.replace(manifest, revision=revision)
    change = Change(
        application=after.name, revision=revision, command="update", at_ms=revision * 1000, by="ada", after=after
    )
    yield control_record(application_key(after.name), codec.applications.encode(after), revision * 1000 + 7)
    if noted:
        yield control_record(change_key(after.name, revision), codec.changes.encode(change))


def control_of(*manifests, noted=True, published=()):
    """The control topic after these manifests of one application, revisions from 1 on, a second apart, and models."""
    control = ControlState(notes=("change", "drift"), saved_rows=False)
    for revision, manifest in enumerate(manifests, 1):
        control.take(control_records(manifest, revision, noted=noted))
    for ref in published:
        name, _, version = ref.partition(":")
        control.manifests.models[ref] = ModelManifest(name=name, version=version, uri="models:svm")
    return control


def specs_of(*manifests, **fields):
    return comparison_specs(control_of(*manifests, **fields)).get("digits")


def log_record(topic, value, offset=0, headers=()):
    return SimpleNamespace(topic=topic, partition=0, offset=offset, value=value, headers=headers)


def query(query_id, *served, beside=(), offset=0, **fields):
    """Records of a query, in order; its true output is 1."""
    records = records_of(CATALOGUE, query_id, served, beside, **fields)
    return [log_record(topic, value, offset) for topic, value in records]


def fold_of(control, known=None):
    fold = EvidenceFold(CATALOGUE, control.current, 3600.0, 1000, known)
    fold.follow(comparison_specs(control))
    return fold
