"""A query's way from reading to answer, in stages over batches. Pure: no clock, no network.

| stage | function | from | to |
|---|---|---|---|
| decode | `clipper_agents.router.queries.decode_queries` | records | `DecodedBlock`s; `DecodedQuery`, one a query |
| admit | `QueriesInFlight.admit` | `DecodedQuery` | `InFlightQuery`, once a query |
| plan | `Planner.add_together`, `Planner.add` | queries of one application | `QueryBlock`s; refusals; decisions |
| look up | `Router._look_up` | queries | `RowBatch`, one a model version: rows neither cached nor in flight |
| request | `RequestTracker.requests` | `RowBatch` | `Request`, of one shape and a bounded size |
| gather | `RequestTracker.take`, `Router._fill` | `OutputPiece` | `RowBatch` with outputs, into slots |
| combine | `answer.conclude_block`, `answer.conclude` | queries with all slots filled | `BlockAnswers`, `QueryAnswer` |
| record | `clipper_agents.router.prediction_log` | `BlockAnswers`, `QueryAnswer` | prediction, index, acknowledgement |

`Router.receive`, `gather` and `expire` return `Effects`, what to send and what to answer; agents carry them out.
"""

from clipper_stream.query.answer import MissingModel, ModelUse, QueryAnswer
from clipper_stream.query.application import Application, CandidateModel, TrialModel
from clipper_stream.query.effects import Effects
from clipper_stream.query.in_flight import DecodedQuery, Failure, InFlightQuery
from clipper_stream.query.query_block import BlockAnswers, DecodedBlock, QueryBlock
from clipper_stream.query.request_tracker import OutputPiece, Request
from clipper_stream.query.router import Router

__all__ = [
    "Application",
    "BlockAnswers",
    "CandidateModel",
    "DecodedBlock",
    "DecodedQuery",
    "Effects",
    "Failure",
    "InFlightQuery",
    "MissingModel",
    "ModelUse",
    "OutputPiece",
    "QueryAnswer",
    "QueryBlock",
    "Request",
    "Router",
    "TrialModel",
]
