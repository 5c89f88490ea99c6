"""Predictions of one model or an ensemble, and what each of them said."""

from clipper_topics.audit import Audit
from clipper_topics.prediction import Missing, ModelAnswer, PolicyRef, Prediction


def answer(ref, output, propensity=1.0, **changes):
    name, _, version = ref.partition(":")
    return ModelAnswer(model=name, version=version, propensity=propensity, output=output, **changes)


def missing(ref, propensity=1.0, reason="late", **changes):
    name, _, version = ref.partition(":")
    return Missing(model=name, version=version, propensity=propensity, reason=reason, **changes)


def parted(asked):
    """Who answered, and who did not."""
    return {
        "models": [one for one in asked if isinstance(one, ModelAnswer)],
        "missing": [one for one in asked if isinstance(one, Missing)],
    }


def decided(query_id, *models, application="app", **changes):
    known, served = parted(models), [one for one in models if one.served]
    settings = dict(
        output=known["models"][0].output if known["models"] else None,
        policy=PolicyRef(name="epsilon_greedy", version=2),
        served_propensity=served[0].propensity if len(served) == 1 else 1.0,
        query_offset=0,
        predicted_at_ms=5,
    )
    return Prediction(query_id=query_id, application=application, **(settings | known | changes))


def audit_of(query_id, *models, **changes):
    return Audit(query_id=query_id, **parted(models), **changes)
