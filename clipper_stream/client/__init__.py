"""Clients of the topics: `Client` for asyncio, `SyncClient` for everybody else."""

from clipper_stream.answers import Answer
from clipper_stream.client.client import Client, SyncClient
from clipper_stream.client.errors import (
    AccessRefused,
    BrokerUnavailable,
    ClientClosed,
    InvalidFeedback,
    InvalidQuery,
    PredictionTimeout,
    QueryRefused,
    RecordTooLarge,
)

__all__ = [
    "AccessRefused",
    "Answer",
    "BrokerUnavailable",
    "Client",
    "ClientClosed",
    "InvalidFeedback",
    "InvalidQuery",
    "PredictionTimeout",
    "QueryRefused",
    "RecordTooLarge",
    "SyncClient",
]
