"""Records as routers and applications write them, which a rollout controller reads."""

from functools import partial

from builders import decision_logs
from builders.decision_logs import answer as answered
from builders.decision_logs import missing, parted
from clipper_topics import codec
from clipper_topics.feedback import Feedback
from clipper_topics.prediction import PolicyRef, Prediction

__all__ = ["answered", "audit_of", "decided", "missing", "records_of"]
audit_of = partial(decision_logs.audit_of, application="digits")


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


def records_of(catalogue, query_id, served, audited=(), label=1, **fields):
    """Topics and values of the records of one query, in order: prediction, audit where others were asked, feedback."""
    prediction = decided(query_id, *served, audited=bool(audited), **fields)
    yield catalogue.predictions, codec.predictions.encode(prediction)
    if audited:
        audit = audit_of(query_id, *audited, application=prediction.application)
        yield catalogue.audits, codec.audits.encode(audit)
    yield catalogue.feedback, codec.feedback.encode(Feedback(query_id=query_id, label=label))
