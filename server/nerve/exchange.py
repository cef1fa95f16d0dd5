"""What becomes of one request: whoever works on it writes it down here, observers read it at its end.

The one that is being worked on is found by `current`, so that nothing between a front end and the
engine has to hand it on. Times are monotonic seconds.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from nerve.types import CallStatistics, ModelInfo


class Access(StrEnum):
    """What a key must be good for, for a request to be answered."""

    OPEN = "open"
    """Nothing: probes."""
    READ = "read"
    """What there is and how it does."""
    PREDICT = "predict"
    ADMIN = "admin"
    """What changes the server for everybody."""


class Stage(NamedTuple):
    """A part of the work; `facts` are for traces, never of a request's text."""

    name: str
    began: float
    ended: float
    facts: Mapping[str, Any]


@dataclass(slots=True, eq=False)
class Exchange:
    """One request and its answer.

    `protocol` is http, grpc or mcp; `method` that of HTTP or "", `route` a template of ours (never
    what the client wrote) or gRPC's /package.Service/Method; `dialect` as in the metrics.
    """

    protocol: str
    dialect: str
    method: str
    route: str
    peer: str = ""
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    counts: bool = True
    """Whether it is in the metrics of requests."""
    request_id: str | None = None
    """As the client has it."""
    key: str | None = None
    """Name of the API key that it came with."""
    status: str = ""
    """HTTP's number, or OK or ERROR."""
    reason: str = ""
    """The word for the error, see `NerveError.reason`."""
    info: ModelInfo | None = None
    """Of the version that was chosen."""
    texts: int = 0
    cost: CallStatistics | None = None
    stages: list[Stage] = field(default_factory=list)
    trace: Any = None
    """Of whoever traces."""
    parent: Exchange | None = None
    """The request that this one came in, of another protocol."""

    @property
    def seconds(self) -> float:
        """From its first byte to its answer, or until now."""
        return (self.ended or time.monotonic()) - self.began

    def stage(self, name: str, began: float, ended: float, **facts: object) -> None:
        """Write down a part of the work that is done."""
        self.stages.append(Stage(name, began, ended, facts))


class Observer(Protocol):
    """Looks at exchanges. It must be quick, and never raise."""

    def began(self, exchange: Exchange, headers: Mapping[str, str]) -> None:
        """A request came, with these headers or metadata; names in lower case."""

    def finished(self, exchange: Exchange) -> None:
        """It was answered, or its caller has left."""


_CURRENT: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


def current() -> Exchange | None:
    """The request that is being worked on, None outside of any."""
    return _CURRENT.get()


@contextlib.contextmanager
def nobodys() -> Iterator[None]:
    """Tasks that are made herein work for no request."""
    token = _CURRENT.set(None)
    try:
        yield
    finally:
        _CURRENT.reset(token)


class Exchanges:
    """Where every front end reports its requests."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        self._observers = tuple(observers)

    @contextlib.contextmanager
    def open(self, exchange: Exchange, headers: Mapping[str, str]) -> Iterator[Exchange]:
        """Put this around the work of a request; `headers` with names in lower case."""
        exchange.parent = _CURRENT.get()
        token = _CURRENT.set(exchange)
        for observer in self._observers:
            observer.began(exchange, headers)
        try:
            yield exchange
        finally:
            _CURRENT.reset(token)
            exchange.ended = time.monotonic()
            for observer in self._observers:
                observer.finished(exchange)
