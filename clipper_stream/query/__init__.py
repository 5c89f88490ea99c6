"""A query's way from reading to answer, in steps over batches. Pure: no clock, no network.

| step | who | from | to |
|---|---|---|---|
| decode | `clipper_agents.router.query_decoding` | records | `QueryBatch`es |
| admit | `Router.admit` | a batch | its new queries; the others are repetitions |
| plan | `Router.plan` | a batch, its application, the policy's choices | slots; `Lookup`s in the cache |
| look up | `Router.found` | what the cache has | filled slots; rows to ask |
| request | `Router.end_turn` | rows to ask | `Request`s, of one shape and a bounded size |
| gather | `Router.gather` | `OutputPiece`s | filled slots; `Answers` |
| record | `clipper_agents.router.prediction_log`, `Router.recorded` | `Answers` | predictions; repetitions to answer |

`Router.end_turn`, `gather`, `expire` and `end_audits` return `Effects`, what to send and what to answer. The caller
carries them out, and reads and writes all stores between the steps (`clipper_agents.router.turn`).
"""

from clipper_stream.query.answers import Answers
from clipper_stream.query.application import Application, CandidateModel, TrialModel
from clipper_stream.query.batch import Failure, QueryBatch, OptionalFields
from clipper_stream.query.effects import Effects
from clipper_stream.query.requests import OutputPiece, Request
from clipper_stream.query.router import Router
from clipper_stream.query.rows_in_flight import Lookup

__all__ = [
    "Answers",
    "Application",
    "CandidateModel",
    "Effects",
    "Failure",
    "Lookup",
    "OutputPiece",
    "QueryBatch",
    "OptionalFields",
    "Request",
    "Router",
    "TrialModel",
]
