"""What the protocol's routes share: reading bodies, whose Content-Type is never looked at, and paths."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from nerve.config.server import ServerConfig
from nerve.errors import BodyTooLarge, InvalidField, kind_of
from nerve.frontend.http.body import RequestT, load_json, parse, read_body

MODEL: Final = "/v2/models/{model}"
VERSION: Final = MODEL + "/versions/{version:[0-9]+}"
PLACES: Final = ((MODEL, "model"), (VERSION, "model_version"))
"""Where a model's routes begin, and their operation ids: the server's choice of version, or one."""


class Bodies:
    """Reads bodies within the limits of `config`."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config

    async def tensors(self, request: web.Request) -> bytes:
        """That of a request for inference, as it is. Raises what `read_body` raises."""
        return await self._read(request, self._config.max_infer_bytes)

    def check_json(self, length: int) -> None:
        """Refuse so many bytes of JSON in a request for inference: what is large goes behind it.

        Raises:
            BodyTooLarge.
        """
        if length > self._config.max_body_bytes:
            part = "JSON (content in the binary layout does not count)"
            raise BodyTooLarge(self._config.max_body_bytes, part)

    async def checked(self, request: web.Request, model: type[RequestT]) -> RequestT:
        """JSON that fits `model`; an empty body says nothing, which is what most clients send.

        Raises:
            What `read_body` and `parse` raise.
        """
        return await parse(await self._said(request), model)

    async def members(self, request: web.Request) -> dict[str, object]:
        """The members of a JSON object; none of an empty body.

        Raises:
            InvalidField: it is another value; what `read_body` raises; MalformedBody.
        """
        value = load_json(await self._said(request))
        if not isinstance(value, dict):
            raise InvalidField("", f"expected a JSON object, got {kind_of(value)}")
        return value

    async def _said(self, request: web.Request) -> bytes:
        body = await self._read(request, self._config.max_body_bytes)
        return body if body.strip() else b"{}"

    async def _read(self, request: web.Request, limit_bytes: int) -> bytes:
        timeout_s = self._config.body_timeout_s
        return await read_body(request, limit_bytes=limit_bytes, timeout_s=timeout_s)
