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

from old_core.answer import MissingModel, ModelUse, QueryAnswer
from clipper_stream.query.application import Application, CandidateModel, TrialModel
from old_core.effects import Effects
from old_core.in_flight import DecodedQuery, Failure, InFlightQuery
from old_core.query_block import BlockAnswers, DecodedBlock, QueryBlock
from old_core.request_tracker import OutputPiece, Request
from old_core.router import Router

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
