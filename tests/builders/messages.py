"""One exchange in records: the examples of the schemas, the documentation and the contract tests.

`MESSAGES` has each kind of record with its examples, for whatever is generated.
"""

from dataclasses import dataclass

import msgspec

from clipper_topics.audit import Audit
from clipper_topics.change import Change
from clipper_topics.comparison import Comparison
from clipper_topics.drift import DriftEvent
from clipper_topics.feedback import Feedback, FeedbackAck
from clipper_topics.host_report import HostReport
from clipper_topics.manifests import ApplicationManifest, BatchSpec, InputSpec, ModelManifest, PolicySpec, Trial
from clipper_topics.prediction import Missing, ModelAnswer, PolicyRef, Prediction
from clipper_topics.query import Query
from clipper_topics.restore import Restore, digests_of, markers_of
from clipper_topics.selection_rows import SavedRow

QUERY = Query(application="digits", query_id="order-7", input=[0.0, 0.5, 1.0], deadline_ms=50)
QUERY_OF_ROWS = Query(application="digits", inputs=[[0.0, 0.5, 1.0], [1.0, 0.5, 0.0]])
QUERY_IN_CONTEXT = Query(application="spam", context="user-42", input="Dear friend", models=["bayes:2"])
QUERY_WITH_FEATURES = Query(application="digits", query_id="order-8", input=[0.0, 0.5, 1.0], features=[0.25, -1.0])

PREDICTION = Prediction(
    query_id="order-7",
    application="digits",
    output=3,
    confidence=1.0,
    policy=PolicyRef(name="exp4", version=2),
    models=[ModelAnswer(model="svm", version="1", propensity=1.0, output=3, latency_ms=8.5)],
    missing=[Missing(model="forest", version="2", propensity=1.0, reason="late")],
    query_offset=41,
    queried_at_ms=1_764_000_000_000,
    predicted_at_ms=1_764_000_000_010,
    latency_ms=10.0,
)
PREDICTION_BY_FEATURES = Prediction(
    query_id="order-8",
    application="digits",
    output=3,
    confidence=1.0,
    policy=PolicyRef(name="lin_ucb", version=2),
    served_propensity=0.975,
    models=[ModelAnswer(model="svm", version="1", propensity=0.975, output=3, latency_ms=8.5)],
    features=[0.25, -1.0],
    query_offset=42,
    queried_at_ms=1_764_000_000_000,
    predicted_at_ms=1_764_000_000_010,
    latency_ms=10.0,
)
DEFAULT_PREDICTION = Prediction(
    query_id="2@17",
    application="digits",
    output=None,
    default=True,
    reason="arrived_late",
    explanation="the query was read 120 ms after its timestamp, its deadline is 50 ms",
    query_offset=17,
    queried_at_ms=1_764_000_000_000,
    predicted_at_ms=1_764_000_000_120,
    latency_ms=120.0,
)

AUDIT = Audit(
    query_id="order-7",
    application="digits",
    models=[ModelAnswer(model="svm", version="2", propensity=1.0, output=8, latency_ms=21.0, served=False)],
    query_offset=41,
    audited_at_ms=1_764_000_000_021,
)

LABEL = Feedback(query_id="order-7", application="digits", label=3)
REWARD = Feedback(query_id="2@17", reward=0.25, ack=True)
ACK = FeedbackAck(query_id="2@17", outcome="applied", feedback_offset=12)
ORPHAN_ACK = FeedbackAck(
    query_id="order-9",
    application="digits",
    outcome="orphan",
    explanation="no decision about query 'order-9' of application 'digits' in partition 3",
    feedback_offset=13,
)

APPLICATION = ApplicationManifest(
    name="digits",
    revision=2,
    input=InputSpec(shape=[3]),
    models=["svm:1", "forest:2"],
    policy=PolicySpec(name="exp4", parameters={"eta": 0.1}),
    objective_ms=50,
    confidence_threshold=0.5,
    trials=[Trial(model="svm:2", share=0.2)],
    audit_ratio=0.05,
)
MODEL = ModelManifest(
    name="svm",
    runtime="sklearn",
    uri="models/svm.skops",
    sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    input=InputSpec(shape=[3]),
    batch=BatchSpec(target_ms=10.0, max_delay_ms=1.0),
    replicas=2,
)
CHANGE = Change(
    application="digits",
    revision=2,
    command="shadow",
    model="svm:2",
    at_ms=1_764_000_000_000,
    by="ada",
    why="trained on last week's digits",
    before=ApplicationManifest(name="digits", models=["svm:1", "forest:2"]),
    after=APPLICATION,
    feedback_ends=[120, 98, 133, 101],
)
HOST_REPORT = HostReport(
    model="svm:2",
    instance="host.svm.2.0",
    state="ready",
    at_ms=1_764_000_000_000,
    pid=4711,
    metrics="127.0.0.1:40123",
)
RESTORE = Restore(
    application="digits",
    at_ms=1_764_000_000_000,
    by="ada",
    why="a week of wrong labels",
    digests=digests_of(
        markers_of("digits", [SavedRow(partition=0, totals={"svm:1": (20.0, 1.0, 20.0, 1.0)})], partitions=2)
    ),
    before=[SavedRow(partition=0, totals={"svm:1": (24.0, 5.0, 24.0, 5.0)})],
)
DRIFT = DriftEvent(
    application="digits",
    model="svm:1",
    at_ms=1_764_000_000_000,
    detector="adwin",
    parameters={"delta": 0.01},
    losses=1344,
    after=57,
    loss_before=0.04,
    loss_after=0.31,
    revision=2,
    topic="clipper.feedback",
    partition=3,
    offset=812,
)
COMPARISON = Comparison(
    application="digits",
    model="svm:2",
    stage="canary",
    feedbacks=96,
    difference=-0.05,
    lower=-0.11,
    upper=0.03,
    loss=0.08,
    loss_lower=0.02,
    loss_upper=0.21,
    scores=240,
    waiting=12,
    since_s=1_764_000_000,
    upto_s=1_764_000_600,
    waits_for="upper end 0.030 is not below 0.02",
    trial_loss=0.08,
    trial_feedbacks=96,
    answer_loss=0.13,
    answer_feedbacks=131,
)
CANDIDATE_COMPARISON = Comparison(
    application="digits",
    model="forest:2",
    stage="live",
    feedbacks=0,
    lower=-1.0,
    upper=1.0,
    loss_lower=0.0,
    loss_upper=1.0,
)


@dataclass(frozen=True, slots=True)
class MessageKind:
    """A kind of record that applications or operators meet: its examples, and what its key is."""

    record: type[msgspec.Struct]
    examples: tuple[msgspec.Struct, ...]
    key: str
    echoes: bool = False
    """Whether it has, or repeats, the headers of a query or a feedback."""


MESSAGES = {
    "query": MessageKind(
        Query,
        (QUERY, QUERY_OF_ROWS, QUERY_IN_CONTEXT, QUERY_WITH_FEATURES),
        "The context if the query has one, else anything that spreads well, such as a digest of the input.",
        echoes=True,
    ),
    "prediction": MessageKind(
        Prediction, (PREDICTION, PREDICTION_BY_FEATURES, DEFAULT_PREDICTION), "The query's key.", echoes=True
    ),
    "audit": MessageKind(Audit, (AUDIT,), "The query's key.", echoes=True),
    "feedback": MessageKind(
        Feedback,
        (LABEL, REWARD),
        "The query's key; none, with the partition chosen, where the query's id names the partition.",
        echoes=True,
    ),
    "feedback-ack": MessageKind(FeedbackAck, (ACK, ORPHAN_ACK), "The feedback's key.", echoes=True),
    "application": MessageKind(ApplicationManifest, (APPLICATION,), "`application/<name>`"),
    "model": MessageKind(ModelManifest, (MODEL,), "`model/<name>:<version>`"),
    "change": MessageKind(Change, (CHANGE,), "`change/<application>/<revision>`"),
    "host-report": MessageKind(HostReport, (HOST_REPORT,), "`<name>:<version>/<instance>`"),
    "comparison": MessageKind(Comparison, (COMPARISON, CANDIDATE_COMPARISON), "`<application>/<name>:<version>`"),
    "restore": MessageKind(Restore, (RESTORE,), "`restore/<id>`"),
    "drift": MessageKind(DriftEvent, (DRIFT,), "`drift/<application>/<name>:<version>`"),
}
"""By the name of the schema."""
