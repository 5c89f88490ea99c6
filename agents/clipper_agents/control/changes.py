"""The rules of each command: from the manifests in force to the plan of a change.

deploy --> shadow <--> canary --promote--> live --retire--> retired
             '---- abort ----'---------------------------------^ --delete--> withdrawn

Rules of this file:
- Rules are pure: who writes a plan, when and why is not known here.
- A plan is empty when things are already as the command wants them, so that a command can be repeated.
- A version that no application names any more is retired, and one that is named is not. Hosts follow that alone.
- The resulting manifests are checked as those of a configuration are: nothing is planned that routers would refuse.
- What a rule forbids raises RefusedChange, which says what to do instead.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from clipper_agents.control.errors import RefusedChange
from clipper_agents.control.plan import Plan, refs_of, same, unsigned
from clipper_agents.control.state import Manifests
from clipper_agents.settings.checks import manifest_problems
from clipper_topics.change import Command
from clipper_topics.manifests import ApplicationManifest, ModelManifest, Trial

Stage = Literal["shadow", "canary", "live"]
replace = msgspec.structs.replace
FIXED = ("name", "revision", "models", "trials")
"""Fields of an application that `update` does not change: other commands do, or nothing does."""


def shadow(
    published: Manifests, application: str, ref: str, share: float = 1.0, *, automatic: bool | None = None
) -> Plan:
    """Put a version on trial as a shadow: it is asked beside the candidates, for the log only."""
    return _tried(published, application, Trial(model=ref, stage="shadow", share=share), automatic, "shadow")


def canary(
    published: Manifests,
    application: str,
    ref: str,
    share: float,
    *,
    automatic: bool | None = None,
    shadow_share: float | None = None,
) -> Plan:
    """Put a version on trial as a canary: it answers a share of the queries, and is a shadow of `shadow_share`."""
    trial = Trial(model=ref, stage="canary", share=share)
    return _tried(published, application, trial, automatic, "canary", shadow_share=shadow_share)


def step(published: Manifests, application: str, ref: str, share: float) -> Plan:
    """Give a version on trial its next share, as a canary."""
    _check_on_trial(existing(published, application), ref, _put_on_trial(application, ref))
    return _tried(published, application, Trial(model=ref, stage="canary", share=share), None, "step")


def promote(published: Manifests, application: str, ref: str) -> Plan:
    """Make a version on trial a candidate."""
    before = existing(published, application)
    if ref in before.models:
        return Plan()
    _check_on_trial(before, ref, _put_on_trial(application, ref))
    after = replace(before, models=[*before.models, ref], trials=_others(before, ref))
    return plan_edit(published, before, after, "promote", ref)


def abort(published: Manifests, application: str, ref: str) -> Plan:
    """End a version's trial."""
    before = existing(published, application)
    if ref in before.models:
        raise RefusedChange(
            f"{ref} is live at application {application}, not on trial: "
            f"`clipper-stream model retire {ref} --application {application}` takes it away"
        )
    _check_on_trial(before, ref, "there is nothing to abort")
    return plan_edit(published, before, replace(before, trials=_others(before, ref)), "abort", ref)


def retire(published: Manifests, application: str, ref: str) -> Plan:
    """Remove a version from an application, whatever its stage there."""
    before = existing(published, application)
    if ref not in refs_of(before):
        if ref in published.models:
            return Plan()
        raise RefusedChange(f"{ref} is none of application {application}'s versions: {_listed(refs_of(before))}")
    if before.models == [ref]:
        raise RefusedChange(
            f"{ref} is the last live version of application {application}: promote another first, "
            f"or `clipper-stream application delete {application}`"
        )
    left = [each for each in before.models if each != ref]
    return plan_edit(published, before, replace(before, models=left, trials=_others(before, ref)), "retire", ref)


def deploy(
    published: Manifests,
    application: str,
    model: ModelManifest,
    stage: Stage = "shadow",
    share: float = 1.0,
    *,
    automatic: bool = False,
) -> Plan:
    """Publish a version and give it to an application at a stage."""
    there = published.models.get(model.ref)
    if there is not None and _identity(there) != _identity(model):
        raise RefusedChange(
            f"model {model.ref} is published already with another {_first_difference(there, model)}: "
            f"deploy this one under another version, or `clipper-stream model delete {model.ref}` first"
        )
    if stage == "live":
        before = existing(published, application)
        models = before.models if model.ref in before.models else [*before.models, model.ref]
        after = replace(before, models=models, trials=_others(before, model.ref))
        return plan_edit(published, before, after, "promote", model.ref, model)
    trial = Trial(model=model.ref, stage=stage, share=share)
    return _tried(published, application, trial, automatic, stage, model)


def create(published: Manifests, manifest: ApplicationManifest) -> Plan:
    """Publish a new application."""
    there = published.applications.get(manifest.name)
    if there is not None:
        if same(there, manifest):
            return Plan()
        raise RefusedChange(
            f"application {manifest.name} exists, at revision {there.revision}: "
            f"`clipper-stream application update {manifest.name}`"
        )
    return plan_edit(published, None, manifest, "create")


def update(published: Manifests, application: str, fields: Mapping[str, Any]) -> Plan:
    """Change fields of an application, other than those of its models' stages; values are plain, as JSON has them."""
    before = existing(published, application)
    known = [field.name for field in msgspec.structs.fields(before) if field.name not in FIXED]
    for name in fields:
        if name not in known:
            raise RefusedChange(f"{name}: use one of {', '.join(known)}; stages change by `clipper-stream model`")
    after = _manifest({**msgspec.to_builtins(before), **fields})
    return plan_edit(published, before, after, "update")


def delete(published: Manifests, application: str) -> Plan:
    """Withdraw an application, and retire the versions that no other one names."""
    return plan_edit(published, existing(published, application), None, "delete")


def delete_model(published: Manifests, ref: str) -> Plan:
    """Withdraw a version's manifest, so that its name and version are free again."""
    if ref not in published.models:
        raise RefusedChange(f"no model {ref}: there {_listed(published.models)}")
    if naming := [name for name, each in published.applications.items() if ref in refs_of(each)]:
        raise RefusedChange(
            f"{ref} is used by application {', '.join(naming)}: "
            f"`clipper-stream model retire {ref} --application {naming[0]}` first"
        )
    return Plan(withdrawn=(ref,))


def plan_edit(
    published: Manifests,
    before: ApplicationManifest | None,
    after: ApplicationManifest | None,
    command: Command,
    ref: str | None = None,
    model: ModelManifest | None = None,
) -> Plan:
    """Return the plan of an edit, with the models that it retires or brings back, and one to publish with it."""
    models = dict(published.models) | ({} if model is None else {model.ref: model})
    if after is not None and (problems := list(manifest_problems([after], list(models.values())))):
        raise RefusedChange("\n".join(problems))
    others = (each for each in published.applications.values() if each != before)
    named = {ref for each in (*others, after) for ref in refs_of(each)}
    touched: dict[str, None] = dict.fromkeys((*refs_of(before), *refs_of(after), *([model.ref] if model else [])))
    settled = (replace(models[each], retired=each not in named) for each in touched if each in models)
    changed = tuple(each for each in settled if published.models.get(each.ref) != each)
    changes = () if same(before, after) else (unsigned(before, after, command, ref),)
    return Plan(changes=changes, models=changed)


def existing(published: Manifests, application: str) -> ApplicationManifest:
    """Return the application's manifest."""
    found = published.applications.get(application)
    if found is None:
        raise RefusedChange(f"no application {application!r}: there {_listed(published.applications)}")
    return found


def application_of(published: Manifests, ref: str) -> str:
    """Return the one application that names a version."""
    naming = [name for name, each in published.applications.items() if ref in refs_of(each)]
    if len(naming) != 1:
        what = f"applications {', '.join(naming)} name {ref}" if naming else f"no application names {ref}"
        raise RefusedChange(f"{what}: say which is meant with --application {naming[0] if naming else 'NAME'}")
    return naming[0]


def _tried(
    published: Manifests,
    application: str,
    trial: Trial,
    automatic: bool | None,
    command: Command,
    model: ModelManifest | None = None,
    shadow_share: float | None = None,
) -> Plan:
    before = existing(published, application)
    if trial.model in before.models:
        raise RefusedChange(
            f"{trial.model} is live at application {before.name}: only another version can be tried beside it"
        )
    found = [each for each in before.trials if each.model == trial.model]
    kept = found[0] if found else trial
    trial = replace(
        trial,
        automatic=kept.automatic if automatic is None else automatic,
        shadow_share=kept.shadow_share if shadow_share is None else shadow_share,
    )
    trials = [trial if each.model == trial.model else each for each in before.trials]
    after = _manifest(
        {**msgspec.to_builtins(before), "trials": msgspec.to_builtins(trials if found else [*trials, trial])}
    )
    return plan_edit(published, before, after, command, trial.model, model)


def _manifest(content: dict[str, Any]) -> ApplicationManifest:
    try:
        return msgspec.convert(content, ApplicationManifest)
    except ValueError as error:  # msgspec's own, and those of the records' checks
        raise RefusedChange(f"application {content['name']}: {error}".replace("`", "")) from error


def _check_on_trial(application: ApplicationManifest, ref: str, advice: str) -> None:
    tried = [trial.model for trial in application.trials]
    if ref not in tried:
        raise RefusedChange(
            f"{ref} is not on trial at application {application.name}, there {_listed(tried)}: {advice}"
        )


def _put_on_trial(application: str, ref: str) -> str:
    return f"put it on trial first: `clipper-stream model shadow {ref} --application {application}`"


def _others(application: ApplicationManifest, ref: str) -> list[Trial]:
    return [trial for trial in application.trials if trial.model != ref]


def _identity(model: ModelManifest) -> dict[str, Any]:
    """Return the fields that no manifest of the same name and version may change; how it is hosted may change."""
    loaded = {"sha256": model.sha256} if model.sha256 else {"uri": model.uri}
    return {"runtime": model.runtime, **loaded, "parameters": model.parameters, "input": model.input}


def _first_difference(one: ModelManifest, other: ModelManifest) -> str:
    first, second = _identity(one), _identity(other)
    return next(key for key in (*first, *second) if first.get(key) != second.get(key))


def _listed(names: Any) -> str:
    found = list(names)
    return f"are {', '.join(found)}" if found else "is none"
