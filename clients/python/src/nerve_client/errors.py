"""What can go wrong, and which statuses of HTTP and gRPC mean it. Pure.

NerveError
├── InvalidRequest        the request is at fault; sending it again does not help
├── AccessDenied          something before the server wants other credentials
├── ModelNotFound         no such model or version, or no default one
├── Unavailable           trying again later may help
│   ├── Overloaded        the server is at a limit right now
│   └── ConnectionFailed  nobody answers, or the connection broke
├── DeadlineExceeded      there was no answer in time
├── Unsupported           the server does not know such a call, or nothing is served there
├── ServerError           the server failed, or what answers is none of ours
└── ItemError             one text of many could not be answered (`extract_many`)
"""

from __future__ import annotations

from typing import ClassVar, Final


class NerveError(Exception):
    """Root of the tree.

    `status` is the HTTP status, `code` the name of the gRPC status code: None where the other was
    used, or where no answer came. `reason` is a stable word for programs; over HTTP some routes of
    the server tell less than others, and it is that of the class. `retry_after_s` is the server's
    advice.
    """

    default_reason: ClassVar[str] = "error"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        reason: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.code = message, status, code
        self.reason = reason or self.default_reason
        self.retry_after_s = retry_after_s


class InvalidRequest(NerveError):
    """The request is at fault: an empty text, one that is too long, a wrong option."""

    default_reason = "invalid_request"


class AccessDenied(NerveError):
    """Something before the server, a gateway for instance, wants other credentials."""

    default_reason = "access_denied"


class ModelNotFound(NerveError):
    """No such model or version; or none was named, and the server has no single one to mean."""

    default_reason = "model_not_found"


class Unavailable(NerveError):
    """The server or the model cannot answer now; trying again later may help."""

    default_reason = "model_unavailable"


class Overloaded(Unavailable):
    """The server is at a limit right now; it says after how long to come back."""

    default_reason = "overloaded"


class ConnectionFailed(Unavailable):
    """Nobody answers at the address, or the connection broke before the answer was there."""

    default_reason = "connection_failed"


class DeadlineExceeded(NerveError):
    """There was no answer in the time that the caller or the server gives a request."""

    default_reason = "deadline_exceeded"


class Unsupported(NerveError):
    """The server does not know such a call; it may be older, or the URL's path may be wrong."""

    default_reason = "unsupported"


class ServerError(NerveError):
    """The server failed on a request that was fine as far as it can tell."""

    default_reason = "internal"


class ItemError(NerveError):
    """One text of `extract_many` could not be answered: at which position, and why.

    It has the status, code, reason and advice of `error`, and never the text.
    """

    def __init__(self, index: int, error: NerveError) -> None:
        super().__init__(
            f"item {index}: {error.message}",
            status=error.status,
            code=error.code,
            reason=error.reason,
            retry_after_s=error.retry_after_s,
        )
        self.index, self.error = index, error

    def __reduce__(self) -> tuple[type[ItemError], tuple[int, NerveError]]:
        return ItemError, (self.index, self.error)


OVERLOAD_REASONS: Final = frozenset({"overloaded", "queue_full", "wait_too_long"})
TOO_LARGE: Final = "larger than max"
"""How grpc itself refuses a message; RESOURCE_EXHAUSTED else means that the server is busy."""

OF_STATUS: Final[dict[int, type[NerveError]]] = {
    401: AccessDenied,
    403: AccessDenied,
    404: ModelNotFound,
    405: Unsupported,
    407: AccessDenied,
    424: ServerError,  # the model failed
    429: Overloaded,
    501: Unsupported,
    503: Unavailable,
    504: DeadlineExceeded,
}
"""Every other status of 400 to 499 is an InvalidRequest, and what is left a ServerError."""

OF_CODE: Final[dict[str, type[NerveError]]] = {
    "INVALID_ARGUMENT": InvalidRequest,
    "OUT_OF_RANGE": InvalidRequest,
    "FAILED_PRECONDITION": InvalidRequest,
    "UNAUTHENTICATED": AccessDenied,
    "PERMISSION_DENIED": AccessDenied,
    "NOT_FOUND": ModelNotFound,
    "UNAVAILABLE": Unavailable,
    "RESOURCE_EXHAUSTED": Overloaded,
    "CANCELLED": ConnectionFailed,  # by the other side
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "UNIMPLEMENTED": Unsupported,
}
"""Every other code is a ServerError."""


def of_status(
    status: int, message: str, *, reason: str = "", retry_after_s: float | None = None
) -> NerveError:
    """The error that an HTTP status means."""
    kind = OF_STATUS.get(status) or (InvalidRequest if 400 <= status < 500 else ServerError)
    if kind is Unavailable and reason in OVERLOAD_REASONS:  # 503 on some routes, 429 on others
        kind = Overloaded
    return kind(message, status=status, reason=reason, retry_after_s=retry_after_s)


def of_code(
    code: str, message: str, *, reason: str = "", retry_after_s: float | None = None
) -> NerveError:
    """The error that a gRPC status code, by its name, means.

    An UNAVAILABLE that no server of ours gave a reason for comes from grpc itself: it found nobody.
    """
    kind = OF_CODE.get(code, ServerError)
    if kind is Overloaded and TOO_LARGE in message:
        kind = InvalidRequest
    if kind is Unavailable and not reason and retry_after_s is None:
        kind = ConnectionFailed
    if kind is Unavailable and reason in OVERLOAD_REASONS:
        kind = Overloaded
    return kind(message, code=code, reason=reason, retry_after_s=retry_after_s)
