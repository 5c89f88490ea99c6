"""A query from reading to answer: choose models, look in the cache, ask, gather, combine. Pure: no clock, no network.

`Router.receive`, `gather` and `expire` return `Effects`, what to send and what to answer; agents carry them out.
"""

from clipper_stream.query.answer import MissingModel, MissingRow, ModelUse, QueryAnswer
from clipper_stream.query.application import Application, CandidateModel, TrialModel
from clipper_stream.query.decoded_query import DecodedQuery
from clipper_stream.query.effects import Effects, OutputPiece, Request
from clipper_stream.query.in_flight import InFlightQuery
from clipper_stream.query.router import Router

__all__ = [
    "Application",
    "CandidateModel",
    "DecodedQuery",
    "Effects",
    "InFlightQuery",
    "MissingModel",
    "MissingRow",
    "ModelUse",
    "OutputPiece",
    "QueryAnswer",
    "Request",
    "Router",
    "TrialModel",
]
