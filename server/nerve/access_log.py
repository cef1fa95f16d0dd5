"""A line for each request that was answered: what it was, what became of it, how long what took."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from nerve.exchange import Exchange

log = logging.getLogger("nerve.access")

CANCELLED: Final = "cancelled"


class AccessLog:
    """An observer of exchanges: a line each at level info, or at level debug."""

    def __init__(self, *, info: bool) -> None:
        """Not `info`: only at level debug, where probes always are."""
        self._level = logging.INFO if info else logging.DEBUG

    def began(self, exchange: Exchange, headers: Mapping[str, str]) -> None:
        """See `nerve.exchange.Observer`."""

    def finished(self, exchange: Exchange) -> None:
        """Write its line."""
        level = logging.DEBUG if exchange.is_probe else self._level
        if log.isEnabledFor(level):
            log.log(
                level,
                "%s %s %s",
                exchange.method or exchange.protocol,
                exchange.route or "-",
                status_of(exchange),
                extra=fields_of(exchange),
            )


def status_of(exchange: Exchange) -> str:
    """What became of it: HTTP's number, gRPC's name, or that its caller left. Pure."""
    return CANCELLED if exchange.left else exchange.code or exchange.status


def fields_of(exchange: Exchange) -> dict[str, object]:
    """The fields of its line; those that say nothing are left out. Pure.

    Durations are of the whole request, in ms: a run that it shared counts whole, runs one after the
    other.
    """
    info, cost = exchange.info, exchange.cost
    made: dict[str, object] = {
        "protocol": exchange.protocol,
        "dialect": exchange.dialect,
        "route": exchange.route,
        "method": exchange.method,
        "status": status_of(exchange),
        "reason": exchange.reason,
        "peer": exchange.peer,
        "key": exchange.key,
        "request_id": exchange.request_id,
        "trace_id": exchange.traceparent[3:35],
        "span_id": exchange.traceparent[36:52],
        "model": "" if info is None else info.name,
        "version": None if info is None else info.version,
        "received_bytes": exchange.received_bytes or None,
        "sent_bytes": exchange.sent_bytes or None,
    }
    told = {name: value for name, value in made.items() if value not in (None, "")}
    if cost is not None:
        texts = exchange.texts
        told |= {
            "texts": texts,
            "tokens": cost.tokens,
            "tokenize_ms": _ms(cost.tokenization_s * texts),
            "queue_ms": _ms(cost.runs.waiting_s),
            "infer_ms": _ms(cost.runs.padding_s + cost.runs.running_s),
            "decode_ms": _ms(cost.decoding_s * texts),
        }
        if cost.cached is not None:
            told["cache_hits"] = cost.cached.hits
    told["total_ms"] = _ms(exchange.seconds)
    return told


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
