"""Clients of the gateway: `HttpClient` for asyncio, `SyncHttpClient` for everybody else; no Kafka, the extra `http`."""

from clipper_stream.http.client import HttpClient, SyncHttpClient
from clipper_stream.http.errors import AccessDenied, AnswerTimeout, GatewayUnavailable, Overloaded, RequestRefused
from clipper_stream.http.messages import HttpAnswer

__all__ = [
    "AccessDenied",
    "AnswerTimeout",
    "GatewayUnavailable",
    "HttpAnswer",
    "HttpClient",
    "Overloaded",
    "RequestRefused",
    "SyncHttpClient",
]
