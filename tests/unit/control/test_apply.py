"""What is published of a configuration."""

import hashlib

import pytest

from clipper_agents.control.apply import pinned
from clipper_stream.errors import InvalidSetting
from clipper_topics.manifests import ModelManifest


def forest(path, **changes):
    return ModelManifest(name="forest", runtime="sklearn", uri=str(path), **changes)


def test_a_model_file_is_published_with_the_digest_that_it_has_here(tmp_path):
    path = tmp_path / "forest.skops"
    path.write_bytes(b"trees")
    python = ModelManifest(name="a", uri="m:f")
    stated = forest("/elsewhere", sha256="0" * 64)
    assert pinned([forest(path), python, stated]) == [
        forest(path, sha256=hashlib.sha256(b"trees").hexdigest()), python, stated
    ]  # fmt: skip


def test_a_model_file_that_is_not_here_needs_its_digest_stated(tmp_path):
    with pytest.raises(
        InvalidSetting, match=r"model 'forest:1' has no sha256, and its file cannot .*: state the digest"
    ):
        pinned([forest(tmp_path / "forest.skops")])
