"""What do the records of the control topic add up to?"""

from clipper_agents.admin.manifests import Manifests
from clipper_topics import codec
from clipper_topics.control import application_key, key_of, model_key
from clipper_topics.manifests import ApplicationManifest, ModelManifest

DIGITS = ApplicationManifest(name="digits", models=["svm:2"])
SVM = ModelManifest(name="svm", version="2", uri="models:svm")


def test_a_manifest_is_published_under_its_kind_and_name():
    assert key_of(DIGITS) == application_key("digits") == b"application/digits"
    assert key_of(SVM) == model_key("svm:2") == b"model/svm:2"


def test_a_record_that_cannot_be_read_is_kept_with_the_reason_until_a_better_one_comes():
    manifests = Manifests()
    manifests.apply(b"application/digits", b"{")
    manifests.apply(b"policy/x", b"{}")
    manifests.apply(None, b"{}")
    assert sorted(manifests.unreadable) == ["", "application/digits", "policy/x"]
    assert "expected application/<name> or model/<name>:<version>" in manifests.unreadable["policy/x"]
    manifests.apply(b"application/digits", codec.applications.encode(DIGITS))
    assert manifests.applications == {"digits": DIGITS}
    assert sorted(manifests.unreadable) == ["", "policy/x"]


def test_an_empty_value_takes_a_manifest_away_also_one_that_was_never_there():
    manifests = Manifests()
    manifests.apply(model_key("svm:2"), codec.models.encode(SVM))
    manifests.apply(model_key("svm:2"), None)
    manifests.apply(application_key("digits"), b"")
    assert (manifests.models, manifests.applications, manifests.unreadable) == ({}, {}, {})
