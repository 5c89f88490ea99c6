"""What the demo declares: five models, one of them breakable, and an application a policy."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from clipper_agents.demo.data import SIDE
from clipper_agents.demo.models import TrainedModel
from clipper_agents.demo.plan import POLICIES, DemoPlan, application_of
from clipper_agents.settings import Settings, load_settings
from clipper_topics.manifests import ApplicationManifest, BatchSpec, InputSpec, ModelManifest, PolicySpec

PICTURE = InputSpec(dtype="float32", shape=[SIDE * SIDE])
NO_DIGIT = -1
"""The default output: wrong for every picture, so that a default counts as an error."""

# The queries come one by one, and a call of a scikit-learn model costs half a millisecond whatever it is about: waiting
# 4 ms for company halves the number of calls. The objective leaves room for it.
BATCH = BatchSpec(limit="aimd", target_ms=25.0, max_rows=256, max_delay_ms=4.0)


def applications(plan: DemoPlan, models: Sequence[TrainedModel]) -> list[ApplicationManifest]:
    """One application a policy, over the same models."""
    return [
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


def model_manifest(model: TrainedModel, flag: Path | None = None) -> ModelManifest:
    """How a model is served; with a flag, by a wrapper that the flag's file breaks."""
    common = {"name": model.name, "input": PICTURE, "batch": BATCH}
    file = {"uri": str(model.path), "sha256": model.sha256}
    trusted = {"trusted": list(model.trusted)}
    if flag is None:
        return msgspec.convert(
            {**common, **file, "runtime": "sklearn", "parameters": trusted}, ModelManifest, from_attributes=True
        )
    parameters = {**file, "flag": str(flag)}
    uri = "clipper_agents.demo.fault:FaultyModel"
    return msgspec.convert({**common, "uri": uri, "parameters": parameters}, ModelManifest, from_attributes=True)


def demo_settings(
    plan: DemoPlan,
    models: Sequence[TrainedModel],
    broken: TrainedModel,
    flag: Path,
    *,
    environ: Mapping[str, str],
    overrides: Mapping[str, str],
) -> Settings:
    """The settings of the whole deployment.

    Args:
        plan: The run.
        models: Every model.
        broken: The one that is to break.
        flag: Whose existence breaks it.
        environ: The environment variables.
        overrides: `section.key` to text: topics and folders of its own.

    Raises:
        InvalidSetting: the environment has a wrong setting.
    """
    return msgspec.structs.replace(
        load_settings(None, environ, overrides),
        applications=applications(plan, models),
        models=[model_manifest(model, flag if model is broken else None) for model in models],
    )
