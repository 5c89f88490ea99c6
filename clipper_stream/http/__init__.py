"""Clients of the gateway: `HttpClient` for asyncio, `SyncHttpClient` for everybody else; no Kafka, the extra `http`."""

from clipper_stream.http.client import HttpClient, SyncHttpClient
from clipper_stream.http.errors import AccessDenied, AnswerTimeout, GatewayUnavailable, Overloaded, RequestRefused

__all__ = [
    "AccessDenied",
    "AnswerTimeout",
    "GatewayUnavailable",
    "HttpClient",
    "Overloaded",
    "RequestRefused",
    "SyncHttpClient",
]
