"""The metadata of calls: whom they are for, what finds them again, and the keys that came with them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import grpc

from nerve.errors import TooManyInputs
from nerve.exchange import clean_request_id, current
from nerve.frontend.guard import CREDENTIALS
from nerve.frontend.priority import PRIORITY_KEY, parse_priority
from nerve.service.inference import Call, InferenceService
from nerve.types import ModelInfo

MODEL_KEY: Final = "model-name"
VERSION_KEY: Final = "model-version"
ANSWERED_BY_KEYS: Final = ("x-nerve-model", "x-nerve-model-version")
REQUEST_ID_KEY: Final = "x-request-id"
TRACE_KEY: Final = "traceparent"

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # a string: generic in the stubs only


def sent(context: Context) -> dict[str, str | bytes]:
    """The call's metadata; of a key that is there twice, the last value."""
    return dict(context.invocation_metadata() or ())


def texts_in(context: Context) -> dict[str, str]:
    """The metadata that is text. Of a name that may hold a key all values, one a line: none may be
    overlooked; no value has lines of its own."""
    texts: dict[str, str] = {}
    for name, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            more = name in CREDENTIALS and name in texts
            texts[name] = f"{texts[name]}\n{value}" if more else value
    return texts


def target(context: Context) -> tuple[str | None, str | None]:
    """Model and version that the metadata names; None for what it does not."""
    return _target(sent(context))


def call(
    context: Context,
    inference: InferenceService,
    *,
    max_texts: int,
    model: str = "",
    version: str = "",
) -> Call:
    """Whom a request is for and how long it may take, by itself, then by the call's metadata.

    Args:
        context: of the call; its deadline is kept.
        inference: knows the server's own limit.
        max_texts: of the service.
        model, version: as the request names them; "" leaves it to the metadata.
    Raises:
        InvalidField: the metadata's priority is none.
    """
    arrived, metadata = time.monotonic(), sent(context)
    named, numbered = _target(metadata)
    name = model or named
    ours = named is None or named == name  # else its version is one of another model
    return Call(
        name,
        version or (numbered if ours else None),
        inference.deadline(arrived, timeout_s=context.time_remaining()),
        max_texts,
        priority=parse_priority(metadata.get(PRIORITY_KEY), place="metadata"),
        arrived=arrived,
    )


def texts_of(texts: Sequence[str], limit: int) -> list[str]:
    """A request's texts; counted before they are taken out of it one by one.

    Raises:
        TooManyInputs.
    """
    if len(texts) > limit:
        raise TooManyInputs(len(texts), limit)
    return list(texts)


def answered_by(context: Context, info: ModelInfo) -> None:
    """Have the trailing metadata tell which version answered; leading ones cost a turn of the loop."""
    values = (info.name, str(info.version))
    told = zip(ANSWERED_BY_KEYS, values, strict=True)
    context.set_trailing_metadata((*told, *identity(context)))


def identity(context: Context) -> tuple[tuple[str, str], ...]:
    """Metadata by which a call is found in logs and traces; of a stream, whose messages are
    requests of their own, the id that its client gave it."""
    if (exchange := current()) is None:
        given = clean_request_id(texts_in(context).get(REQUEST_ID_KEY, ""))
        return ((REQUEST_ID_KEY, given),) if given else ()
    known = ((REQUEST_ID_KEY, exchange.request_id), (TRACE_KEY, exchange.traceparent))
    return tuple(pair for pair in known if pair[1])


def _target(metadata: dict[str, str | bytes]) -> tuple[str | None, str | None]:
    model, version = metadata.get(MODEL_KEY), metadata.get(VERSION_KEY)
    return (
        model if isinstance(model, str) and model else None,
        version if isinstance(version, str) and version else None,
    )
