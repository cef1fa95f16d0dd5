"""Errors in the protocol's shape, `{"error"}`, whatever the status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from aiohttp import web

from nerve.errors import InvalidField, ModelUnavailable, NerveError, UnsupportedEncoding
from nerve.frontend.http.body import CODINGS
from nerve.frontend.http.dialect import error_headers, json_response
from nerve.frontend.status import outcome
from nerve.frontend.v2.infer import message


def error_response(error: NerveError, request_id: str | None = None) -> web.Response:
    """An error; that of a request for inference tells its id, which may be empty."""
    headers = error_headers(error)
    if isinstance(error, UnsupportedEncoding):
        headers["Accept-Encoding"] = ", ".join(CODINGS)
    text = str(error) if request_id is None else message(str(error), request_id)
    return plain_error(text, outcome(error).v2, headers)


def plain_error(text: str, status: int, headers: Mapping[str, str] | None = None) -> web.Response:
    """An error of any text and status."""
    return json_response({"error": text}, status=status, headers=headers)


@contextmanager
def bad_where_unavailable() -> Iterator[None]:
    """Make a model that is unknown or not ready the request's fault: 400, as Triton has it here.

    Raises:
        InvalidField.
    """
    try:
        yield
    except ModelUnavailable as error:
        raise InvalidField("", str(error)) from error
