"""Predictions of one model or an ensemble, and what each of them said."""

from clipper_topics.audit import Audit
from clipper_topics.prediction import Missing, ModelAnswer, PolicyRef, Prediction


def answer(ref, output, propensity=1.0, **changes):
    name, _, version = ref.partition(":")
    return ModelAnswer(model=name, version=version, propensity=propensity, output=output, **changes)


def missing(ref, propensity=1.0, **changes):
    name, _, version = ref.partition(":")
    return Missing(model=name, version=version, propensity=propensity, reason="late", **changes)


def decided(query_id, *models, application="app", **changes):
    answers = [one for one in models if isinstance(one, ModelAnswer)]
    served = [one for one in models if one.served]
    settings = dict(
        output=answers[0].output if answers else None,
        policy=PolicyRef(name="epsilon_greedy", version=2),
        served_propensity=served[0].propensity if len(served) == 1 else 1.0,
        models=answers,
        missing=[one for one in models if isinstance(one, Missing)],
        query_offset=0,
        predicted_at_ms=5,
    )
    return Prediction(query_id=query_id, application=application, **(settings | changes))


def audit_of(query_id, *models, **changes):
    answers, missing = ([one for one in models if isinstance(one, kind)] for kind in (ModelAnswer, Missing))
    return Audit(query_id=query_id, models=answers, missing=missing, **changes)
