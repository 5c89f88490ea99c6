"""Records as routers and applications write them, which a rollout controller reads."""

from clipper_topics import codec
from clipper_topics.audit import Audit
from clipper_topics.feedback import Feedback
from clipper_topics.prediction import Missing, ModelAnswer, PolicyRef, Prediction


def answered(ref, output, **fields):
    model, _, version = ref.rpartition(":")
    return ModelAnswer(model=model, version=version, output=output, **{"propensity": 1.0, **fields})


def missing(ref, **fields):
    model, _, version = ref.rpartition(":")
    return Missing(model=model, version=version, **{"propensity": 1.0, "reason": "late", **fields})


def parted(asked):
    return {
        "models": [one for one in asked if isinstance(one, ModelAnswer)],
        "missing": [one for one in asked if isinstance(one, Missing)],
    }


def decided(query_id, *served, revision=1, output=None, **fields):
    """A prediction; the first of those who answered gives its output."""
    known = parted(served)
    if known["models"]:
        output = known["models"][0].output if output is None else output
    else:
        known |= {"default": True, "reason": "late"}
    usual = {"application": "digits", "audited": False, "served_propensity": 1.0 / max(1, len(served))}
    policy = PolicyRef(name="exp3", version=revision)
    return Prediction(query_id=query_id, output=output, policy=policy, **usual | known | fields)


def audit_of(query_id, *asked, application="digits"):
    return Audit(query_id=query_id, application=application, **parted(asked))


def records_of(catalogue, query_id, served, audited=(), label=1, **fields):
    """Topics and values of the records of one query, in order: prediction, audit where others were asked, feedback."""
    prediction = decided(query_id, *served, audited=bool(audited), **fields)
    yield catalogue.predictions, codec.predictions.encode(prediction)
    if audited:
        audit = audit_of(query_id, *audited, application=prediction.application)
        yield catalogue.audits, codec.audits.encode(audit)
    yield catalogue.feedback, codec.feedback.encode(Feedback(query_id=query_id, label=label))
