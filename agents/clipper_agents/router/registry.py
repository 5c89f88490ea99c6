"""Applications as the control topic declares them now."""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aiokafka import ConsumerRecord

from clipper_agents.admin.manifests import Manifests, refusal
from clipper_agents.observability.logging import event
from clipper_stream.caching.keys import version_digest
from clipper_stream.errors import ClipperError
from clipper_stream.inputs import InputSpec
from clipper_stream.models.files import STRICT, FileRules
from clipper_stream.models.loading import check_declared
from clipper_stream.routing import Application, Candidate
from clipper_stream.selection.registry import make_policy
from clipper_topics.control import Manifest
from clipper_topics.manifests import ApplicationManifest, ModelManifest

logger = logging.getLogger(__name__)


class Registry:
    """Keeps the newest manifests, and resolves applications from them.

    A manifest that cannot be used (an unknown policy, a colocated model that this process may not load) is refused with
    a log line, and what was there before stays. A model counts as a candidate once its manifest is here and `reached`
    was called for it. Outputs of a model without a `sha256` are cached for the life of this process only: nobody can
    tell whether its code has changed.

    Args:
        changed: Called with the name of an application that is another than before.
        refused: Called once for each record that is refused.
        allowed: Packages, modules and directories that this process may load models from.
        files: What the operator says about model files.
    """

    def __init__(
        self,
        changed: Callable[[str], None] = lambda _: None,
        *,
        refused: Callable[[], None] = lambda: None,
        allowed: Sequence[str] = (),
        files: FileRules = STRICT,
    ) -> None:
        self._manifests = Manifests(accept=self._accept)
        self._changed = changed
        self._refused = refused
        self._allowed, self._files = allowed, files
        self._applications: dict[str, Application] = {}
        self._reachable: set[str] = set()
        self._salt = os.urandom(8).hex()

    def take(self, records: Iterable[ConsumerRecord[Any, Any]]) -> None:
        """Take in records of the control topic."""
        for record in records:
            reason = self._manifests.apply(record.key, record.value, record.headers)
            if reason is not None:
                event(logger, "manifest refused", logging.ERROR, **refusal(record, reason))
                self._refused()
        self._resolve()

    def application(self, name: str) -> Application | None:
        """The application of this name."""
        return self._applications.get(name)

    @property
    def applications(self) -> list[Application]:
        """Every registered application."""
        return list(self._applications.values())

    def model(self, ref: str) -> ModelManifest | None:
        """The manifest of a model version."""
        return self._manifests.models.get(ref)

    @property
    def unreached(self) -> list[ModelManifest]:
        """Models that are declared, and not reachable yet."""
        return [model for ref, model in self._manifests.models.items() if ref not in self._reachable]

    def reached(self, ref: str) -> None:
        """The model can be asked from now on."""
        self._reachable.add(ref)
        self._resolve()

    def _accept(self, manifest: Manifest) -> None:
        """What a host loads is the host's to accept; this process may run elsewhere."""
        if isinstance(manifest, ApplicationManifest):
            make_policy(manifest.policy.name, manifest.policy.parameters)
        elif manifest.colocated:
            declared = (manifest.runtime, manifest.uri, manifest.sha256, manifest.parameters)
            check_declared(*declared, self._allowed, self._files)

    def _resolve(self) -> None:
        for name in self._applications.keys() - self._manifests.applications.keys():
            del self._applications[name]
            self._changed(name)
        for name, manifest in self._manifests.applications.items():
            try:
                resolved = self._application(manifest)
            except (ClipperError, ArithmeticError, TypeError, ValueError) as error:  # a number that is none, say
                logger.error("application refused name=%s reason=%s", name, error)  # noqa: TRY400 (the reason is all)
                continue
            if resolved != self._applications.get(name):
                self._applications[name] = resolved
                self._changed(name)

    def _application(self, manifest: ApplicationManifest) -> Application:
        models = [self._manifests.models[ref] for ref in manifest.models if ref in self._manifests.models]
        shape = manifest.input.shape
        return Application(
            name=manifest.name,
            revision=manifest.revision,
            spec=InputSpec(manifest.input.dtype, None if shape is None else tuple(shape)),
            candidates=tuple(
                Candidate(
                    ref=model.ref,
                    digest=version_digest(model.ref, model.sha256 or f"{self._salt} {model.uri} {model.parameters}"),
                    deterministic=model.deterministic,
                )
                for model in models
                if model.ref in self._reachable
            ),
            policy=make_policy(manifest.policy.name, manifest.policy.parameters),
            combiner=manifest.combiner,
            loss=manifest.loss,
            objective_s=None if manifest.objective_ms is None else manifest.objective_ms / 1000,
            default_output=manifest.default_output,
            confidence_threshold=manifest.confidence_threshold,
            audit_ratio=manifest.audit_ratio,
            seed=manifest.seed,
        )
