"""Request bodies: read within limits of size and time, inflated, parsed, checked against a model."""

from __future__ import annotations

import asyncio
import zlib
from typing import Annotated, Final, Literal, TypeVar

import orjson
from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import BadHttpMessage
from pydantic import BaseModel, BeforeValidator, ValidationError

from nerve.errors import (
    BodyTimeout,
    BodyTooLarge,
    InvalidField,
    MalformedBody,
    UnsupportedEncoding,
    kind_of,
)
from nerve.frontend.http.in_flight import ADMISSION
from nerve.offload import INLINE_BYTES, offload

RequestT = TypeVar("RequestT", bound=BaseModel)
OffsetUnitName = Literal["codepoint", "byte", "utf16"]
"""Values of `nerve.words.OffsetUnit`; requests are checked strictly, which takes no enum."""
CODINGS: Final = {"gzip": 31, "deflate": 15}
"""Content codings, and what zlib calls their containers (RFC 1952 and 1950)."""


def up_to_wrong(value: object) -> object:
    """A list up to the first item that is no string, of an object the first such value; or as it is.

    Only the first fault is told, and to collect a million of them takes seconds. Pure.
    """
    if isinstance(value, list):
        for index, each in enumerate(value):
            if not isinstance(each, str):
                return value[: index + 1]
    if isinstance(value, dict):
        for key, each in value.items():
            if not isinstance(each, str):
                return {key: each}
    return value


Strings = Annotated[list[str], BeforeValidator(up_to_wrong)]
"""A list of a request."""
StringsByKey = Annotated[dict[str, str], BeforeValidator(up_to_wrong)]
"""An object of a request."""


async def read_body(request: web.Request, *, limit_bytes: int, timeout_s: float) -> bytes:
    """The whole body, decompressed.

    Raises:
        UnsupportedEncoding.
        BodyTooLarge: it is (or says it is) over the limit; the rest is not read.
        BodyTimeout: it did not arrive in time.
        MalformedBody: the transfer or content encoding is broken.
        ServerBusy: with this one, the server would have too much in memory.
    """
    hold = request.app[ADMISSION].hold
    coding = request.headers.get("Content-Encoding", "").lower()
    if coding not in ("", "identity", *CODINGS):
        raise UnsupportedEncoding(coding, tuple(CODINGS))
    if request.content_length is not None and request.content_length > limit_bytes:
        raise BodyTooLarge(limit_bytes)
    parts: list[bytes] = []
    size = 0
    try:
        # a small body is there with the head: no timer for it
        async with asyncio.timeout(None if request.content.is_eof() else timeout_s):
            async for part in request.content.iter_any():
                size += len(part)
                if size > limit_bytes:
                    raise BodyTooLarge(limit_bytes)
                hold(len(part))
                parts.append(part)
    except TimeoutError:
        raise BodyTimeout(timeout_s) from None
    except (ClientPayloadError, BadHttpMessage, web.RequestPayloadError) as error:
        request.content.feed_eof()  # else aiohttp reads on, meets the error again and logs it
        raise MalformedBody("its transfer or content encoding is broken") from error
    body = b"".join(parts)
    if coding in CODINGS and body:
        plain = await asyncio.to_thread(inflate, body, coding, limit_bytes=limit_bytes)
        hold(len(plain))
        return plain
    return body


def inflate(body: bytes, coding: str, *, limit_bytes: int) -> bytes:
    """What was compressed; `coding` is one of `CODINGS`.

    Raises:
        BodyTooLarge: it is over the limit; the rest is not inflated.
        MalformedBody: broken, cut off, or followed by something else.
    """
    inflater = zlib.decompressobj(CODINGS[coding])
    try:
        plain = inflater.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise MalformedBody("its content encoding is broken") from error
    if len(plain) > limit_bytes:
        raise BodyTooLarge(limit_bytes)
    if not inflater.eof or inflater.unused_data:
        raise MalformedBody("its content encoding is broken: it ends too early or too late")
    return plain


async def parse(body: bytes, model: type[RequestT]) -> RequestT:
    """JSON bytes -> checked request; large ones in a thread.

    Raises:
        MalformedBody: no JSON (invalid UTF-8 and lone surrogates included).
        InvalidField: the first field that is wrong, by path.
    """
    return await offload(lambda: check(load_json(body), model), inline=len(body) <= INLINE_BYTES)


def load_json(body: bytes) -> object:
    """Strict JSON.

    Raises:
        MalformedBody.
    """
    if not body:
        raise MalformedBody("it is empty")
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(str(error)) from error
    return value


def check(value: object, model: type[RequestT]) -> RequestT:
    """Check parsed JSON.

    Raises:
        InvalidField.
    """
    if not isinstance(value, dict):
        raise InvalidField("", f"expected a JSON object, got {kind_of(value)}")
    try:
        return model.model_validate(_with_one_unknown(value, model), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ""
        for part in first["loc"]:
            path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "missing":
            message = "this field is required"
        elif first["type"] != "value_error":
            given = first["input"]
            if first["type"] == "model_type":  # without the name of our class
                message = "expected a JSON object"
            if isinstance(given, bool):
                shown = "true" if given else "false"
            else:
                shown = repr(given) if isinstance(given, str | int | float) else kind_of(given)
            message = f"{message[:1].lower()}{message[1:]}, got {shown:.60}"
        raise InvalidField(path, message) from None


def _with_one_unknown(value: dict[str, object], model: type[BaseModel]) -> dict[str, object]:
    """Fields alone and the first that is unknown, where unknown ones are refused."""
    if model.model_config.get("extra") != "forbid":
        return value
    known = {name: each for name, each in value.items() if name in model.model_fields}
    for name, each in value.items():
        if name not in known:
            return known | {name: each}
    return value
