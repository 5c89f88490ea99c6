"""Applications as the control topic declares them now."""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aiokafka import ConsumerRecord

from clipper_agents.control.state import ControlState, DeclaredRestore, RefusedRecord
from clipper_agents.feedback.feedback_step import config_digest
from clipper_agents.observability.logging import event
from clipper_stream.caching.cache import version_digest
from clipper_stream.errors import ClipperError
from clipper_stream.models.registry import check_declared
from clipper_stream.models.row_spec import RowSpec
from clipper_stream.models.runtimes.model_files import STRICT, FileRules
from clipper_stream.query import Application, CandidateModel, TrialModel
from clipper_stream.selection.registry import make_policy
from clipper_topics.control_keys import Manifest
from clipper_topics.manifests import ApplicationManifest, ModelManifest

logger = logging.getLogger(__name__)

KEPT_RESTORES = 1_000
"""Declarations of restores that are kept, the newest: every router is far beyond the markers of older ones."""


class ApplicationRegistry:
    """Keeps the newest manifests, and resolves applications from them.

    A manifest that cannot be used (an unknown policy, a colocated model that this process may not load) is refused with
    a log line, and what was there before stays. A model counts as a candidate once its manifest is here and not
    retired, `reached` was called for it, and a host of it is ready (or it is colocated). Outputs of a model without a
    `sha256` are cached for the life of this process only: nobody can tell whether its code has changed.

    Attributes:
        applications: What can be asked now, by name.
    """

    def __init__(
        self,
        changed: Callable[[str], None] = lambda _: None,
        *,
        refused: Callable[[], None] = lambda: None,
        allowed: Sequence[str] = (),
        files: FileRules = STRICT,
        ready: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._control = ControlState(
            notes=("restore",), saved_rows=False, most_restores=KEPT_RESTORES, accept=self._accept
        )
        self._manifests = self._control.manifests
        self._changed = changed
        self._refused = refused
        self._allowed, self._files, self._ready = allowed, files, ready
        self.applications: dict[str, Application] = {}
        self._reachable: dict[str, bool | None] = {}
        """Whether each runs in this process; None: not known when it was reached."""
        self._salt = os.urandom(8).hex()

    def take(self, records: Iterable[ConsumerRecord[Any, Any]]) -> None:
        for refused in self._control.take(records):
            if not isinstance(refused, RefusedRecord):
                continue
            if refused.kind == "restore":
                event(logger, "restore ignored", logging.ERROR, **refused.details)
                continue
            event(logger, "manifest refused", logging.ERROR, **refused.details)
            self._refused()
        self.resolve()

    def model(self, ref: str) -> ModelManifest | None:
        return self._manifests.models.get(ref)

    def restore(self, restore_id: str) -> DeclaredRestore | None:
        return self._control.restores.get(restore_id)

    def dtype_of(self, ref: str) -> str:
        model = self.model(ref)
        return model.input.dtype if model else "json"

    @property
    def hosted(self) -> list[str]:
        return [ref for ref, model in self._manifests.models.items() if model.is_hosted]

    @property
    def unreached(self) -> list[ModelManifest]:
        """Models that are declared and not retired, and not reachable yet."""
        models = self._manifests.models.items()
        return [model for ref, model in models if ref not in self._reachable and not model.retired]

    @property
    def leaving(self) -> list[str]:
        """Models that were askable until they were withdrawn, retired or moved."""
        return [ref for ref in self._reachable if not self._is_here(self._manifests.models.get(ref))]

    def reached(self, ref: str) -> None:
        model = self.model(ref)
        self._reachable[ref] = model.colocated if model else None
        self.resolve()

    def left(self, ref: str) -> None:
        """Forget the model; if it is declared again, it has to be reached again."""
        self._reachable.pop(ref, None)

    def _is_here(self, model: ModelManifest | None) -> bool:
        if model is None or model.retired or model.ref not in self._reachable:
            return False
        return self._reachable[model.ref] in {model.colocated, None}

    def _may_be_asked(self, model: ModelManifest) -> bool:
        return self._is_here(model) and (model.colocated or self._ready(model.ref))

    def _accept(self, manifest: Manifest) -> None:
        """Raise for a manifest that this process cannot use; hosts check what they load themselves."""
        if isinstance(manifest, ApplicationManifest):
            make_policy(manifest.policy.name, manifest.policy.parameters)
        elif manifest.colocated:
            declared = (manifest.runtime, manifest.uri, manifest.sha256, manifest.parameters)
            check_declared(*declared, self._allowed, self._files)

    def resolve(self) -> None:
        for name in self.applications.keys() - self._manifests.applications.keys():
            del self.applications[name]
            self._changed(name)
        for name, manifest in self._manifests.applications.items():
            try:
                resolved = self._application(manifest)
            except (ClipperError, ArithmeticError, TypeError, ValueError) as error:  # a number that is none, say
                logger.error("application refused name=%s reason=%s", name, error)  # noqa: TRY400 (the reason is all)
                continue
            if resolved != self.applications.get(name):
                self.applications[name] = resolved
                self._changed(name)

    def _candidate(self, ref: str) -> CandidateModel | None:
        model = self._manifests.models.get(ref)
        if model is None or not self._may_be_asked(model):
            return None
        return CandidateModel(
            ref=ref,
            digest=version_digest(ref, model.sha256 or f"{self._salt} {model.uri} {model.parameters}"),
            deterministic=model.deterministic,
        )

    def _application(self, manifest: ApplicationManifest) -> Application:
        candidates = [self._candidate(ref) for ref in manifest.models]
        trials = [(self._candidate(trial.model), trial) for trial in manifest.trials]
        return Application(
            name=manifest.name,
            revision=manifest.revision,
            spec=RowSpec.of(manifest.input),
            candidates=tuple(candidate for candidate in candidates if candidate is not None),
            trials=tuple(
                TrialModel(candidate=candidate, stage=trial.stage, share=trial.share, shadow_share=trial.shadow_share)
                for candidate, trial in trials
                if candidate is not None
            ),
            draws_contexts=manifest.assign == "context",
            policy=make_policy(manifest.policy.name, manifest.policy.parameters),
            combiner=manifest.combiner,
            loss=manifest.scaled_loss,
            learning_config=config_digest(manifest),
            objective_s=None if manifest.objective_ms is None else manifest.objective_ms / 1000,
            default_output=manifest.default_output,
            confidence_threshold=manifest.confidence_threshold,
            audit_ratio=manifest.audit_ratio,
            seed=manifest.seed,
            input_features=manifest.input_features,
        )
