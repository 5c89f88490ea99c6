"""What the demo declares: five models, one of them breakable, and an application a policy."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from clipper_agents.demo.data import SIDE
from clipper_agents.demo.models import TrainedModel, best_of
from clipper_agents.demo.plan import POLICIES, DemoPlan, application_of
from clipper_agents.settings import BrokerSection, Settings, load_settings
from clipper_topics.manifests import ApplicationManifest, BatchSpec, InputSpec, ModelManifest, PolicySpec

PICTURE = InputSpec(dtype="float32", shape=[SIDE * SIDE])
NO_DIGIT = -1
"""The default output: wrong for every picture, so that a default counts as an error."""
FAULTY_MODEL = "clipper_agents.demo.fault:FaultyModel"

# The queries come one by one, and a call of a scikit-learn model costs half a millisecond whatever it is about: waiting
# 4 ms for company halves the number of calls. The objective leaves room for it.
BATCH = BatchSpec(limit="aimd", target_ms=25.0, max_rows=256, max_delay_ms=4.0)


def demo_settings(
    plan: DemoPlan, models: Sequence[TrainedModel], flag: Path, environ: Mapping[str, str], overrides: Mapping[str, str]
) -> Settings:
    """The settings of the whole deployment: its Kafka is the one of the environment, or a temporary one.

    Args:
        plan: The run.
        models: Every model.
        flag: File whose existence breaks the best of them.
        environ: The environment variables.
        overrides: `section.key` to text: topics and folders of its own.

    Raises:
        InvalidSetting: the environment has a wrong setting.
    """
    best = best_of(models)
    applications = [
        ApplicationManifest(
            name=application_of(policy),
            input=PICTURE,
            models=[model.ref for model in models],
            policy=PolicySpec(name=policy, parameters=dict(parameters)),
            objective_ms=plan.objective_ms,
            default_output=NO_DIGIT,
            seed=plan.seed,
        )
        for policy, parameters in POLICIES.items()
    ]
    return msgspec.structs.replace(
        load_settings(None, environ, overrides),
        broker=BrokerSection(),
        applications=applications,
        models=[model_manifest(model, flag if model is best else None) for model in models],
    )


def model_manifest(model: TrainedModel, flag: Path | None = None) -> ModelManifest:
    """How a model is served; with a flag, by a wrapper that the flag's file breaks."""
    manifest = ModelManifest(
        name=model.name,
        runtime="sklearn",
        uri=str(model.path),
        sha256=model.sha256,
        parameters={"trusted": list(model.trusted)},
        input=PICTURE,
        batch=BATCH,
    )
    if flag is None:
        return manifest
    parameters = {"uri": manifest.uri, "sha256": model.sha256, "flag": str(flag)}
    return msgspec.structs.replace(manifest, runtime="python", uri=FAULTY_MODEL, sha256=None, parameters=parameters)
