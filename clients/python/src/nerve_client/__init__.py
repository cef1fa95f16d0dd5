"""Client of Nerve, a named-entity-recognition server: sync and async, over HTTP and gRPC.

from nerve_client import Client

with Client("http://localhost:8080") as client:
    for entity in client.extract("Ada Lovelace met Charles Babbage in London."):
        print(entity.label, entity.text)
"""

from nerve_client.async_client import AsyncClient
from nerve_client.client import Client
from nerve_client.errors import (
    AccessDenied,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidRequest,
    ItemError,
    ModelNotFound,
    NerveError,
    Overloaded,
    ServerError,
    Unavailable,
    Unsupported,
)
from nerve_client.results import (
    Answer,
    Entity,
    Limits,
    ModelStatus,
    ModelSummary,
    Statistics,
    Token,
    TokenResult,
    VersionStatus,
)
from nerve_client.retry import NO_RETRY, Retry

__version__ = "0.1.0"

__all__ = [
    "NO_RETRY",
    "AccessDenied",
    "Answer",
    "AsyncClient",
    "Client",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Entity",
    "InvalidRequest",
    "ItemError",
    "Limits",
    "ModelNotFound",
    "ModelStatus",
    "ModelSummary",
    "NerveError",
    "Overloaded",
    "Retry",
    "ServerError",
    "Statistics",
    "Token",
    "TokenResult",
    "Unavailable",
    "Unsupported",
    "VersionStatus",
]
