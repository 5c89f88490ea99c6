"""What is exported is taken back without a change, whatever the manifests say."""

import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper_agents.control.apply import plan_declared
from clipper_agents.control.errors import RefusedChange
from clipper_agents.control.manifest_text import as_json, as_toml
from clipper_agents.control.plan import Plan
from clipper_agents.control.state import Manifests
from clipper_agents.settings import load_settings
from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest, PolicySpec, RolloutRule, Trial

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**64 - 1)


def plain(leaves):
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
    )


VALUES = plain(NUMBERS | TEXT | st.booleans())
ANYTHING = plain(NUMBERS | TEXT | st.booleans() | st.none())
NAMES = st.lists(
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True), min_size=1, max_size=4, unique=True
)


@st.composite
def registries(draw, values=VALUES):
    spec = InputSpec(dtype=draw(st.sampled_from(["float32", "json"])), shape=draw(st.sampled_from([None, [8, 8]])))
    models = [
        ModelManifest(
            name=name,
            version=draw(st.sampled_from(["1", "v-2"])),
            uri="package.module:attribute",
            parameters=draw(st.dictionaries(TEXT, values, max_size=3)),
            input=spec,
            replicas=draw(st.integers(1, 4)),
            memory_mib=draw(st.none() | st.just(64)),
            retired=draw(st.booleans()),
        )
        for name in draw(NAMES)
    ]
    refs = [each.ref for each in models]
    live = draw(st.integers(1, len(refs)))
    applications = {
        name: ApplicationManifest(
            name=name,
            revision=draw(st.integers(1, 2**53)),
            input=spec,
            models=refs[:live],
            trials=[Trial(model=ref, stage="canary", share=draw(st.floats(0, 0.2))) for ref in refs[live:]],
            rollout=RolloutRule(steps=draw(st.lists(st.floats(0, 1), min_size=1, max_size=3))),
            keep_best=draw(st.none() | st.just(2)),
            policy=PolicySpec(name="exp3"),
            objective_ms=draw(st.none() | st.integers(1, 1000)),
            default_output=draw(values | st.none()),
            seed=draw(st.integers(-(2**63), 2**63 - 1)),
        )
        for name in draw(st.just([]) | NAMES)
    }
    return Manifests(applications=applications, models={each.ref: each for each in models})


def taken_back(published, text, suffix):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"registry{suffix}"
        file.write_text(text, encoding="utf-8")
        settings = load_settings(file, {})
    return plan_declared(published, settings.applications, settings.models, prune=True)


@settings(max_examples=25)  # each loads a configuration
@given(registries())
def test_toml_is_taken_back_without_a_change(published):
    assert taken_back(published, as_toml(published), ".toml") == Plan()


@settings(max_examples=25)  # each loads a configuration
@given(registries(values=ANYTHING))
def test_json_is_taken_back_without_a_change(published):
    assert taken_back(published, as_json(published), ".json") == Plan()


@settings(max_examples=25)  # each loads a configuration
@given(registries(values=ANYTHING))
def test_what_toml_cannot_say_is_refused_and_never_left_out(published):
    unlimited = [each for each in published.applications.values() if each.objective_ms is None]
    encoded = msgspec.json.encode([published.applications, published.models])
    if sum(encoded.count(null) for null in (b":null", b"[null", b",null")) > len(unlimited):
        with pytest.raises(RefusedChange, match="export with --json"):
            as_toml(published)


def test_a_null_is_named_with_its_place():
    published = Manifests(models={"svm:1": ModelManifest(name="svm", uri="m:f", parameters={"a": [1, None]})})
    with pytest.raises(RefusedChange, match=r"^model\.0\.parameters\.a\.1 is null, which TOML cannot say"):
        as_toml(published)
