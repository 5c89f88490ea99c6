"""What each command makes of the manifests.

deploy --> shadow <--> canary --promote--> live --retire--> retired
             '---- abort ----'---------------------------------^

Rules of this file:
- Pure: from what is published and a command to a `Plan`; who writes it, when and why is not known here.
- A plan is empty when things are already as the command wants them, so that a command can be repeated.
- A version that no application names any more is retired, one that is named is not: its hosts follow that alone.
- What comes out is checked as a configuration file is: nothing is planned that routers would refuse.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from clipper_agents.control.errors import RefusedChange
from clipper_agents.control.plan import Edit, Plan, Published, refs_of, same
from clipper_agents.settings.checks import manifest_problems
from clipper_topics.change import Command
from clipper_topics.manifests import ApplicationManifest, ModelManifest, Trial

Stage = Literal["shadow", "canary", "live"]
replace = msgspec.structs.replace
FIXED = ("name", "revision", "models", "trials")
"""Fields of an application that `update` leaves alone: commands of their own change them, or nothing does."""


def shadow(
    published: Published, application: str, ref: str, share: float = 1.0, *, automatic: bool | None = None
) -> Plan:
    """Have a version asked beside the candidates, for the log only.

    Args:
        published: What is there.
        application: Its name.
        ref: The version, `name:version`.
        share: Of the queries that ask it, in [0, 1].
        automatic: Whether the application's rollout rule moves it on; None: as it was.

    Raises:
        RefusedChange: unknown, live already, or with another input.
    """
    before = existing(published, application)
    return _tried(published, before, Trial(model=ref, stage="shadow", share=share), automatic, "shadow")


def canary(published: Published, application: str, ref: str, share: float, *, automatic: bool | None = None) -> Plan:
    """Have a version answer a share of the queries instead of the policy's choice; arguments and errors as `shadow`."""
    before = existing(published, application)
    return _tried(published, before, Trial(model=ref, stage="canary", share=share), automatic, "canary")


def step(published: Published, application: str, ref: str, share: float) -> Plan:
    """Give a version on trial its next share, as a canary.

    Raises:
        RefusedChange: it is not on trial, or the canaries' shares would sum to more than 1.
    """
    before = existing(published, application)
    _trial_of(before, ref, "deploy it, or put it on trial")
    return _tried(published, before, Trial(model=ref, stage="canary", share=share), None, "step")


def promote(published: Published, application: str, ref: str) -> Plan:
    """Make a version on trial a candidate.

    Raises:
        RefusedChange: it is not on trial.
    """
    before = existing(published, application)
    if ref in before.models:
        return Plan()
    _trial_of(before, ref, "put it on trial first with `clipper-stream model shadow` or `canary`")
    after = replace(before, models=[*before.models, ref], trials=_others(before, ref))
    return _planned(published, before, after, "promote", ref)


def abort(published: Published, application: str, ref: str) -> Plan:
    """End a version's trial.

    Raises:
        RefusedChange: it is not on trial.
    """
    before = existing(published, application)
    if ref in before.models:
        raise RefusedChange(f"{ref} is live at application {application}, not on trial: `clipper-stream model retire`")
    _trial_of(before, ref, "there is nothing to abort")
    return _planned(published, before, replace(before, trials=_others(before, ref)), "abort", ref)


def retire(published: Published, application: str, ref: str) -> Plan:
    """Have an application ask a version no more, whatever its stage there.

    Raises:
        RefusedChange: no such version, or the last live one.
    """
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
    return _planned(published, before, replace(before, models=left, trials=_others(before, ref)), "retire", ref)


def deploy(
    published: Published,
    application: str,
    model: ModelManifest,
    stage: Stage = "shadow",
    share: float = 1.0,
    *,
    automatic: bool = False,
) -> Plan:
    """Publish a version and give it to an application at a stage.

    Raises:
        RefusedChange: its name and version are those of another model, or it does not fit the application.
    """
    there = published.models.get(model.ref)
    if there is not None and _identity(there) != _identity(model):
        raise RefusedChange(
            f"model {model.ref} is published already with another {_first_difference(there, model)}: "
            "deploy this one under another version"
        )
    before = existing(published, application)
    if stage == "live":
        models = before.models if model.ref in before.models else [*before.models, model.ref]
        after = replace(before, models=models, trials=_others(before, model.ref))
        return _planned(published, before, after, "promote", model.ref, model)
    trial = Trial(model=model.ref, stage=stage, share=share)
    return _tried(published, before, trial, automatic, stage, model)


def create(published: Published, manifest: ApplicationManifest) -> Plan:
    """Publish a new application.

    Raises:
        RefusedChange: there is one of this name, or it names models that are not there or do not fit.
    """
    there = published.applications.get(manifest.name)
    if there is not None:
        if same(there, manifest):
            return Plan()
        raise RefusedChange(
            f"application {manifest.name} exists, at revision {there.revision}: "
            f"`clipper-stream application update {manifest.name}`"
        )
    return _planned(published, None, manifest, "create")


def update(published: Published, application: str, fields: Mapping[str, Any]) -> Plan:
    """Change fields of an application, other than those of its models' stages.

    Args:
        published: What is there.
        application: Its name.
        fields: By name, as plain values (as JSON has them).

    Raises:
        RefusedChange: no such field, one with a command of its own, or a value that it does not take.
    """
    before = existing(published, application)
    known = [field.name for field in msgspec.structs.fields(before) if field.name not in FIXED]
    for name in fields:
        if name not in known:
            raise RefusedChange(f"{name}: use one of {', '.join(known)}; stages change by `clipper-stream model`")
    after = _manifest({**msgspec.to_builtins(before), **fields})
    return _planned(published, before, after, "update")


def delete(published: Published, application: str) -> Plan:
    """Take an application away, and retire the versions that no other one names.

    Raises:
        RefusedChange: there is none of this name.
    """
    return _planned(published, existing(published, application), None, "delete")


def replaced(
    published: Published, before: ApplicationManifest | None, after: ApplicationManifest, command: Command
) -> Plan:
    """Put an application's whole manifest in place of the one before.

    Raises:
        RefusedChange: it names models that are not there or do not fit.
    """
    return _planned(published, before, after, command)


def existing(published: Published, application: str) -> ApplicationManifest:
    """The application's manifest.

    Raises:
        RefusedChange: there is none.
    """
    found = published.applications.get(application)
    if found is None:
        raise RefusedChange(f"no application {application!r}: there {_listed(published.applications)}")
    return found


def application_of(published: Published, ref: str) -> str:
    """The one application that names a version.

    Raises:
        RefusedChange: none does, or several do.
    """
    naming = [name for name, each in published.applications.items() if ref in refs_of(each)]
    if len(naming) != 1:
        what = f"applications {', '.join(naming)} name {ref}" if naming else f"no application names {ref}"
        raise RefusedChange(f"{what}: say which is meant with --application")
    return naming[0]


def _tried(
    published: Published,
    before: ApplicationManifest,
    trial: Trial,
    automatic: bool | None,
    command: Command,
    model: ModelManifest | None = None,
) -> Plan:
    if trial.model in before.models:
        raise RefusedChange(
            f"{trial.model} is live at application {before.name}: only another version can be tried beside it"
        )
    found = [each for each in before.trials if each.model == trial.model]
    kept = found[0].automatic if found else False
    trial = replace(trial, automatic=kept if automatic is None else automatic)
    trials = [trial if each.model == trial.model else each for each in before.trials]
    after = _manifest(
        {**msgspec.to_builtins(before), "trials": msgspec.to_builtins(trials if found else [*trials, trial])}
    )
    return _planned(published, before, after, command, trial.model, model)


def _planned(
    published: Published,
    before: ApplicationManifest | None,
    after: ApplicationManifest | None,
    command: Command,
    ref: str | None = None,
    model: ModelManifest | None = None,
) -> Plan:
    """The plan, with the models that begin or cease to be needed."""
    models = dict(published.models) | ({} if model is None else {model.ref: model})
    if after is not None and (problems := list(manifest_problems([after], list(models.values())))):
        raise RefusedChange("\n".join(problems))
    name = (after or before or _NOTHING).name
    others = (each for each in published.applications.values() if each.name != name)
    named = {ref for each in (*others, after) for ref in refs_of(each)}
    touched: dict[str, None] = dict.fromkeys((*refs_of(before), *refs_of(after), *([model.ref] if model else [])))
    settled = (replace(models[each], retired=each not in named) for each in touched if each in models)
    changed = tuple(each for each in settled if published.models.get(each.ref) != each)
    edit = Edit(application=name, command=command, model=ref, before=before, after=after)
    return Plan(edits=() if same(before, after) else (edit,), models=changed)


_NOTHING = ApplicationManifest(name="nothing", models=[])


def _manifest(content: dict[str, Any]) -> ApplicationManifest:
    try:
        return msgspec.convert(content, ApplicationManifest)
    except ValueError as error:  # msgspec's own, and those of the records' checks
        raise RefusedChange(f"application {content['name']}: {error}".replace("`", "")) from error


def _trial_of(application: ApplicationManifest, ref: str, advice: str) -> Trial:
    for trial in application.trials:
        if trial.model == ref:
            return trial
    tried = _listed(trial.model for trial in application.trials)
    raise RefusedChange(f"{ref} is not on trial at application {application.name}, there {tried}: {advice}")


def _others(application: ApplicationManifest, ref: str) -> list[Trial]:
    return [trial for trial in application.trials if trial.model != ref]


def _identity(model: ModelManifest) -> dict[str, Any]:
    """What makes two manifests of one name and version the same model; how it is hosted may change."""
    loaded = {"sha256": model.sha256} if model.sha256 else {"uri": model.uri}
    return {"runtime": model.runtime, **loaded, "parameters": model.parameters, "input": model.input}


def _first_difference(one: ModelManifest, other: ModelManifest) -> str:
    first, second = _identity(one), _identity(other)
    return next(key for key in (*first, *second) if first.get(key) != second.get(key))


def _listed(names: Any) -> str:
    found = list(names)
    return f"are {', '.join(found)}" if found else "is none"
