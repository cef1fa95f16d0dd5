"""What a dialect is to the rest of HTTP: routes with their documentation, and a shape for errors."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from aiohttp import web

from nerve.errors import NerveError, Unauthenticated
from nerve.exchange import Access
from nerve.frontend.status import retry_after_s
from nerve.types import ModelInfo

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
JSON = "application/json"
TEXT = "text/plain"

MODEL_HEADER = "x-nerve-model"
VERSION_HEADER = "x-nerve-model-version"
TRUNCATED_HEADER = "x-nerve-truncated-inputs"
REASON_HEADER = "x-nerve-reason"

_HOSTED: Final = (
    "/production",
    "/development",
    "/environments/{environment}",
    "/deployment/{deployment}",
)
SYNC: Final = ("", *(f"{each}/sync" for each in _HOSTED))
"""Where hosted deployments have the routes, so that changing the host is all of a migration."""
ASYNC: Final = ("", *_HOSTED)
"""The same for requests that are answered later."""


@dataclass(frozen=True, slots=True)
class Route:
    """A route, what it takes to be answered there, and its OpenAPI operation; `operation` without
    responses of errors. It is served below each of `prefixes`."""

    method: str
    path: str
    handler: Handler
    access: Access
    operation: Mapping[str, Any] = field(default_factory=dict)
    documented: bool = True
    when: Callable[[web.Request], bool] | None = None
    """For which requests it is there; for others it is as if it were not."""
    prefixes: tuple[str, ...] = SYNC

    @property
    def template(self) -> str:
        """The path without the patterns of its parameters."""
        return re.sub(r"{(\w+):[^}]*}", r"{\1}", self.path)


class Dialect(ABC):
    """A family of routes that share an error shape."""

    name: str

    @abstractmethod
    def routes(self) -> list[Route]:
        """Every route, most specific first."""

    @abstractmethod
    def error(self, error: NerveError) -> web.Response:
        """An error in this dialect's shape."""

    @abstractmethod
    def fallback(self, status: int, message: str) -> web.Response:
        """An answer for a path or method that is not served (404, 405)."""

    def counts(self, response: web.StreamResponse) -> bool:  # noqa: ARG002
        """Whether an answer is one of those in the metrics of requests."""
        return True


def json_response(
    value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An answer of JSON, as `json_bytes` writes it."""
    body = json_bytes(value)
    return web.Response(body=body, status=status, content_type=JSON, headers=headers)


def json_bytes(value: object) -> bytes:
    """Compact UTF-8 JSON; float32 arrays are written as the shortest decimals that read back."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def text_response(
    text: str, *, status: int, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Plain text in UTF-8."""
    return web.Response(text=text, status=status, content_type=TEXT, headers=headers)


def error_headers(error: NerveError) -> dict[str, str]:
    """A stable word for programs, and Retry-After where trying again helps."""
    headers = {REASON_HEADER: error.reason}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="nerve"'
    seconds = retry_after_s(error)
    if seconds is not None:
        headers["Retry-After"] = str(seconds)
    return headers


def answer_headers(info: ModelInfo, truncated_texts: int) -> dict[str, str]:
    """Who answered, and how many texts were cut (absent when none was)."""
    headers = {MODEL_HEADER: info.name, VERSION_HEADER: str(info.version)}
    if truncated_texts:
        headers[TRUNCATED_HEADER] = str(truncated_texts)
    return headers
