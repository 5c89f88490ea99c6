"""Weeks of an application whose truth is known: commands change it, and the library's choice decides each query.

Queries get easier through the week, and feedback rarer. Of every query each model's loss is drawn, asked or not.
"""

import numpy as np

from builders.columns import logged
from clipper_agents.control.change_records import Signature, records_of, sign
from clipper_agents.control.changes import create
from clipper_agents.control.plan import Plan
from clipper_agents.control.selection_states import StateSnapshot
from clipper_agents.control.state import ControlState
from clipper_agents.replay.export import configuration_of
from clipper_stream.query.application import Application, CandidateModel, TrialModel
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.rng import query_rng
from clipper_stream.selection.state import SelectionState
from clipper_topics.codec import JSON_HEADERS
from clipper_topics.manifests import ApplicationManifest, ModelManifest, PolicySpec

LOSSES = {"a:1": 0.30, "b:1": 0.22, "c:1": 0.36, "d:1": 0.48}
MODELS = tuple(LOSSES)
START_MS, STEP_MS, LEARN_EVERY = 1_700_000_000_000, 130_000, 25


def version(ref):
    name, _, number = ref.partition(":")
    return ModelManifest(name=name, version=number, uri="acme:model")


class Week:
    """What happens to it is told one after the other; `queries` is about how many there will be."""

    def __init__(self, seed, queries, policy="split", **fields):
        self.control, self.rng, self.seed, self.queries = ControlState(), np.random.default_rng(seed), seed, queries
        self.state, self.rows = SelectionState(), []
        spec = PolicySpec(name=policy, parameters={"epsilon": 0.3} if policy == "epsilon_greedy" else {})
        first = ApplicationManifest(name="shop", models=["a:1", "c:1"], policy=spec, **fields)
        self._commit(Plan(models=tuple(map(version, MODELS))))
        self._commit(create(self.control.manifests, first))

    @property
    def manifest(self):
        return self.control.manifests.applications["shop"]

    def do(self, rule, *given, **options):
        """A command, by its rule in `control.changes`."""
        return self._commit(rule(self.control.manifests, "shop", *given, **options))

    def _commit(self, plan):
        at_ms = START_MS + STEP_MS * len(self.rows)
        signed = sign(plan, self.control, Signature(by="ada"), StateSnapshot(), at_ms)
        for key, value in records_of(signed):
            self.control.apply(key, value, JSON_HEADERS)
        return self

    def ask(self, count, unready=()):
        """So many queries; hosts of `unready` versions are still loading."""
        said, here = self.manifest, lambda ref: CandidateModel(ref=ref, digest=b"")
        trials = [TrialModel(candidate=here(one.model), stage=one.stage, share=one.share)
                  for one in said.trials if one.model not in unready]  # fmt: skip
        application = Application(
            name="shop", candidates=tuple(map(here, said.models)), trials=tuple(trials),
            policy=make_policy(said.policy.name, said.policy.parameters), audit_ratio=said.audit_ratio,
        )  # fmt: skip
        for number in range(count):
            if number % LEARN_EVERY == 0:
                choice = application.choice(self.state)
                could, serves = chances(choice)
            self._ask(choice, application, could, serves)
        return self

    def _ask(self, choice, application, could, serves):
        number, rng = len(self.rows), self.rng
        progress = number / self.queries
        truth = np.array([*LOSSES.values()]) * (1.3 - 0.6 * progress)
        loss = (rng.random(len(MODELS)) < truth).astype(float)
        fed = rng.random() < 0.95 - 0.4 * progress
        decision = choice.select(query_rng(self.seed, f"0-{number}"))
        asked = dict(zip(decision.models, decision.propensities, strict=True))
        if fed:
            known = {model: float(loss[MODELS.index(model)]) for model in asked}
            self.state = application.policy.observe(self.state, known, asked)
        row = (self.manifest.revision, asked, decision.served, decision.served_propensity, loss, fed, truth)
        self.rows.append((*row, could, truth @ serves))

    def columns(self):
        """The decisions, as `replay export` writes them."""
        revision, asked, served, chance, loss, told, *_ = zip(*self.rows, strict=True)
        propensity = np.array([[one.get(model, 0.0) for model in MODELS] for one in asked])
        chosen = np.array([[model in one for model in MODELS] for one in served])
        losses, fed, numbers = np.array(loss), np.array(told), np.arange(len(self.rows))
        at_ms = START_MS + STEP_MS * numbers
        manifests = {one.revision: one for one in self.control.past_manifests("shop")}
        return logged(
            propensity, np.where((propensity > 0.0) & fed[:, None], losses, np.nan), models=MODELS, served=chosen,
            served_propensity=np.array(chance), policies=(self.manifest.policy.name,), revision=revision,
            outputs=losses.astype(int).tolist(), labels=np.zeros(len(numbers), int).tolist(), at_ms=at_ms,
            feedback_at_ms=np.where(fed, at_ms + 50, -1), feedback_offset=np.where(fed, numbers, -1),
            answer_loss=np.where(fed, (losses * chosen).sum(axis=1), np.nan),
            configs={number: configuration_of(one, "zero_one") for number, one in manifests.items()},
        )  # fmt: skip

    def truth_of(self, chosen):
        """Mean true loss of what `chosen` says of a revision's candidates, and what was lost beside it.

        Both over the decisions with feedback at whose time all models that it gives a probability could be asked.
        """
        numbers = []
        for revision, *_, fed, truth, could, logged_loss in self.rows:
            shares = chosen(self.control.history("shop")[revision].after.models)
            if fed and shares.keys() <= could:
                mine = sum(share * truth[MODELS.index(model)] for model, share in shares.items())
                numbers.append((mine, logged_loss))
        return np.mean(numbers, axis=0)


def chances(choice):
    """Models that can be asked at all, and the probability with which each serves, (M,)."""
    policy = getattr(choice, "choice", choice)
    treatments = getattr(choice, "treatments", ())
    canaries = {one.canary: one.serving for one in treatments if one.canary}
    could = {model for one in (*policy.decisions, *treatments) for model in one.models}
    serves = {model: weight * (1.0 - sum(canaries.values())) for model, weight in policy.weights.items()} | canaries
    return could, np.array([serves.get(model, 0.0) for model in MODELS])
