"""What an application's feedback is folded under: its policy and its loss, named by a digest in the selection table."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

from clipper_agents.control.state import ControlState
from clipper_stream.errors import ClipperError
from clipper_stream.query import Application
from clipper_stream.selection.registry import make_policy
from clipper_topics.manifests import ApplicationManifest

DIGEST_BYTES = 4


def config_digest(manifest: ApplicationManifest) -> int:
    """Return the digest of a manifest's policy and loss; never 0.

    >>> one = ApplicationManifest(name="digits", models=["svm:1"])
    >>> config_digest(one) == config_digest(msgspec.structs.replace(one, revision=2, audit_ratio=0.5))
    True
    """
    said = (manifest.policy.name, manifest.policy.parameters, manifest.loss)
    packed = msgspec.msgpack.encode(said, order="deterministic")
    return int.from_bytes(hashlib.blake2b(packed, digest_size=DIGEST_BYTES).digest()) or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningConfigs:
    """The policies and losses that an application has ever had.

    Attributes:
        applications: The application as it learned, by digest, oldest first.
        deleted: Whether it does not exist now, or did not at some time: its feedback taught nothing then.
    """

    applications: Mapping[int, Application]
    deleted: bool

    @property
    def only(self) -> Application | None:
        """The application, when it has always learned alike."""
        return next(iter(self.applications.values())) if len(self.applications) == 1 and not self.deleted else None


def learning_configs(control: ControlState) -> dict[str, LearningConfigs]:
    """Return the learning configurations of each application by name; a manifest that routers refuse is none."""
    found = {}
    for name in sorted({*control.changes, *control.manifests.applications}):
        history = list(_manifests(control, name))
        applications = dict(one for manifest in history if manifest is not None for one in _learning(manifest))
        found[name] = LearningConfigs(
            applications=applications, deleted=None in history or name not in control.manifests.applications
        )
    return found


def _manifests(control: ControlState, name: str) -> Iterator[ApplicationManifest | None]:
    for number, change in enumerate(control.history(name).values()):
        if not number and change.before is not None:
            yield change.before
        yield change.after
    if name in control.manifests.applications:
        yield control.manifests.applications[name]


def _learning(manifest: ApplicationManifest) -> Iterator[tuple[int, Application]]:
    try:
        policy = make_policy(manifest.policy.name, manifest.policy.parameters)
    except (ClipperError, ArithmeticError, TypeError, ValueError):
        return
    yield config_digest(manifest), Application(name=manifest.name, candidates=(), policy=policy, loss=manifest.loss)
