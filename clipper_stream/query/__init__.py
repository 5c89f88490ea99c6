"""A query's way from reading to answer, in steps over batches. Pure: no clock, no network.

`Router` has the steps, in the order in which their caller, `clipper_agents.router.pipeline`, takes them. What they
take and give are a `QueryBatch` and the columns in it, from the decoded records to the recorded predictions.
"""

from clipper_stream.query.answers import Answers
from clipper_stream.query.application import Application, CandidateModel, TrialModel
from clipper_stream.query.batch import Failure, OptionalFields, QueryBatch
from clipper_stream.query.requests import Lookup, OutputPiece, Request
from clipper_stream.query.router import Effects, Router

__all__ = [
    "Answers",
    "Application",
    "CandidateModel",
    "Effects",
    "Failure",
    "Lookup",
    "OptionalFields",
    "OutputPiece",
    "QueryBatch",
    "Request",
    "Router",
    "TrialModel",
]
