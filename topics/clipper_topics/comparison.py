"""How the versions of applications compare: what the steward has made of the logs, a record a version each minute.

The record of a key counts for as long as it is young: a steward that is away writes none, and what it wrote last is
then true of an earlier time. An empty value: the version is not compared any more.
"""

import msgspec

from clipper_topics.manifests import ModelRef, Name


class Comparison(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """What the log says about one version of an application, with intervals that hold at all times at once."""

    application: Name
    """The application."""
    model: ModelRef
    """The version, `name:version`."""
    stage: str
    """`shadow`, `canary`, or `live` for a candidate."""
    feedbacks: int
    """How many gave its loss."""
    difference: float | None = None
    """Estimate of the loss of the trial minus that of the answers, of the same queries and weights as its interval;
    absent: not known, or a candidate."""
    standard_error: float | None = None
    """Of that estimate at this one time; absent: not known."""
    paired: bool = False
    """Whether labels say of each query how good both versions are; else those that each answered are compared."""
    finding: str = "undecided"
    """What the rule says of a trial for sure: `better`, `not worse`, `no difference that matters`, `worse`."""
    lower: float
    """Lower end of the interval of the difference, of all `scores`, with or without feedback; -1: nothing is known."""
    upper: float
    """Upper end of that interval; 1: nothing is known."""
    loss: float | None = None
    """Mean of its own losses, in [0, 1]; of a candidate, estimated for all queries by the probabilities with which it
    was asked, and cut to that range; absent: not known."""
    loss_lower: float
    """Lower end of the interval of its loss."""
    loss_upper: float
    """Upper end of that interval."""
    scores: int = 0
    """How many decisions, or contexts that are drawn once, the interval of the difference is made of."""
    waiting: int = 0
    """How many of these decisions still wait for feedback."""
    since_s: int | None = None
    """The second, since the epoch, from which on its queries count; absent: it has not answered yet."""
    upto_s: int = 0
    """The second up to which they do."""
    waits_for: str = ""
    """Why nothing is decided about a trial, or what is to be done and why."""
    trial_loss: float | None = None
    """Mean of the trial's losses that feedback told about these decisions, weighted as in the interval: by how probably
    the other side was asked, so that a share that was raised meanwhile does not compare different times."""
    trial_feedbacks: int = 0
    """How many gave that mean."""
    answer_loss: float | None = None
    """The same of the answers that it is compared with."""
    answer_feedbacks: int = 0
    """How many gave that one."""


def comparison_key(application: str, model: str) -> bytes:
    """Return the key of the comparison of a version."""
    return f"{application}/{model}".encode()
