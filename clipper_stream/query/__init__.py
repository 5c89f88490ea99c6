"""A query from reading to answer: choose models, look in the cache, ask, gather, combine. Pure: no clock, no network.

`Router.receive`, `gather` and `expire` return `Effects`, what to send and what to answer; agents carry them out.
"""

from clipper_stream.query.answer import Answer, MissingRow, ModelUse, Unused
from clipper_stream.query.application import Application, Candidate, Trial
from clipper_stream.query.decoded_query import Received
from clipper_stream.query.effects import Effects, OutputPiece, Request
from clipper_stream.query.in_flight import Pending
from clipper_stream.query.router import Router

__all__ = [
    "Answer",
    "Application",
    "Candidate",
    "Effects",
    "MissingRow",
    "ModelUse",
    "OutputPiece",
    "Pending",
    "Received",
    "Request",
    "Router",
    "Trial",
    "Unused",
]
