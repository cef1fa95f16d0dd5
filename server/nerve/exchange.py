"""What becomes of one request: whoever works on it writes it down here, observers read it at its end.

The one that is being worked on is found by `current`, so that nothing between a front end and the
engine has to hand it on. Times are monotonic seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from random import getrandbits
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:  # the logs need this module, every command needs logs, and few need numpy
    from nerve.types import CallStatistics, ModelInfo, RowResult

MAX_REQUEST_ID: Final = 128
"""Longest request id, in characters; of a longer one that a client sent, the beginning counts."""
_UNPRINTABLE: Final = re.compile("[^!-~]+")
_PROBES: Final = re.compile(
    r"/(livez|readyz|health|metrics|live|ready|ServerLive|ServerReady|ModelReady)$"
    r"|^/grpc\.health\.v1\.Health/"
)
"""Ends of routes that machines ask for all the time."""


class Access(StrEnum):
    """What a key must be good for, for a request to be answered."""

    OPEN = "open"
    """Nothing: probes."""
    READ = "read"
    """What there is and how it does."""
    PREDICT = "predict"
    ADMIN = "admin"
    """What changes the server for everybody."""
    KNOWN = "known"
    """Any key: what is not there."""


class Stage(NamedTuple):
    """A part of the work; `facts` are for traces, never of a request's text."""

    name: str
    began: float
    ended: float
    facts: Mapping[str, Any]


@dataclass(slots=True, eq=False)
class Exchange:
    """One request and its answer.

    `protocol` is http, grpc or mcp, or async: work on what was accepted before; `method` that of HTTP
    or "", `route` a template of ours (never what the client wrote) or gRPC's /package.Service/Method;
    `dialect` as in the metrics.
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
    request_id: str = field(default_factory=lambda: f"{getrandbits(128):032x}")
    """The client's, as `clean_request_id` leaves it; else one of ours."""
    key: str | None = None
    """Name of the API key that it came with."""
    status: str = ""
    """HTTP's number, or OK or ERROR."""
    code: str = ""
    """gRPC's name of an ERROR, where it is known."""
    reason: str = ""
    """The word for the error, see `NerveError.reason`."""
    left: bool = False
    """Its caller did not wait for the answer."""
    info: ModelInfo | None = None
    """Of the version that was chosen."""
    received_bytes: int = 0
    """Of the body, as far as it is known; so is the next."""
    sent_bytes: int = 0
    texts: int = 0
    cost: CallStatistics | None = None
    stages: list[Stage] = field(default_factory=list)
    trace: Any = None
    """Of whoever traces; None if its stages are not wanted."""
    traceparent: str = ""
    """Of the trace and our span in it, as W3C writes it; "" where nobody traces."""
    parent: Exchange | None = None
    """The request that this one came in, of another protocol."""

    @property
    def seconds(self) -> float:
        """From its first byte to its answer, or until now."""
        return (self.ended or time.monotonic()) - self.began

    @property
    def is_probe(self) -> bool:
        """Whether machines ask for it all the time: does the server live, and how does it do."""
        return _is_probe(self.route)

    def stage(self, name: str, began: float, ended: float, **facts: object) -> None:
        """Write down a part of the work that is done."""
        self.stages.append(Stage(name, began, ended, facts))

    def add_runs(self, queued: float, results: Sequence[RowResult]) -> None:
        """Write down the wait and the runs of its rows, which were queued at that time."""
        runs = dict.fromkeys(result.run for result in results if result.run is not None)
        for number, run in enumerate(sorted(runs, key=lambda run: run.began)):
            if number == 0:
                self.stage("queue", queued, run.began)
            self.stage("infer", run.began, run.began + run.took_s, run=run)


@functools.lru_cache(maxsize=1024)
def _is_probe(route: str) -> bool:
    return _PROBES.search(route) is not None


def clean_request_id(sent: str) -> str:
    """Of a request id that a client sent, what can stand in headers and logs; perhaps "". Pure."""
    return _UNPRINTABLE.sub("", sent[: 4 * MAX_REQUEST_ID])[:MAX_REQUEST_ID]


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


def recorded() -> Exchange | None:
    """The request that is being worked on, if somebody wants its stages."""
    exchange = _CURRENT.get()
    return exchange if exchange is not None and exchange.trace is not None else None


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
        token = _CURRENT.set(exchange)
        for observer in self._observers:
            observer.began(exchange, headers)
        try:
            yield exchange
        except asyncio.CancelledError:
            exchange.left = True
            raise
        finally:
            _CURRENT.reset(token)
            exchange.ended = time.monotonic()
            for observer in self._observers:
                observer.finished(exchange)
