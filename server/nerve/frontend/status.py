"""NerveError -> statuses: the one table."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from nerve import errors


class Outcome(NamedTuple):
    """What an error is on each wire.

    `http` is the status of Encoderfile's and our own routes, `grpc` the name of the status code of
    those services, `baseten` and `baseten_type` are those of predict_tokens, `v2` and `v2_grpc`
    those of the Open Inference Protocol, whose clients only try again on 503 and UNAVAILABLE; where
    `v2_grpc` is empty, it is `grpc`.
    """

    http: int
    grpc: str
    baseten: int
    baseten_type: str
    v2: int
    v2_grpc: str = ""


TABLE: Final[dict[type[errors.NerveError], Outcome]] = {
    errors.NerveError: Outcome(500, "INTERNAL", 500, "Backend", 500),
    errors.InvalidRequest: Outcome(400, "INVALID_ARGUMENT", 400, "Validation", 400),
    errors.MalformedBody: Outcome(400, "INVALID_ARGUMENT", 400, "Validation", 400),
    errors.MalformedMessage: Outcome(400, "INVALID_ARGUMENT", 400, "Validation", 400),
    errors.InvalidField: Outcome(422, "INVALID_ARGUMENT", 422, "Validation", 400),
    errors.EmptyInput: Outcome(422, "INVALID_ARGUMENT", 400, "Empty", 400),
    errors.TooManyInputs: Outcome(413, "INVALID_ARGUMENT", 413, "Validation", 400),
    errors.TextTooLong: Outcome(413, "INVALID_ARGUMENT", 413, "Validation", 400),
    errors.UnsupportedMediaType: Outcome(415, "INVALID_ARGUMENT", 415, "Validation", 415),
    errors.UnsupportedEncoding: Outcome(415, "INVALID_ARGUMENT", 415, "Validation", 415),
    errors.BodyTooLarge: Outcome(413, "RESOURCE_EXHAUSTED", 413, "Validation", 413),
    errors.AsyncBodyTooLarge: Outcome(413, "RESOURCE_EXHAUSTED", 413, "Validation", 413),
    errors.MessageTooLarge: Outcome(413, "OUT_OF_RANGE", 413, "Validation", 413),
    errors.BodyTimeout: Outcome(408, "DEADLINE_EXCEEDED", 408, "Validation", 408),
    errors.ModelUnavailable: Outcome(503, "UNAVAILABLE", 503, "Unhealthy", 503),
    errors.ModelNotFound: Outcome(404, "NOT_FOUND", 404, "Validation", 404),
    errors.VersionNotFound: Outcome(404, "NOT_FOUND", 404, "Validation", 404),
    errors.NoDefaultModel: Outcome(404, "NOT_FOUND", 404, "Validation", 404),
    errors.ModelNotReady: Outcome(503, "UNAVAILABLE", 503, "Unhealthy", 503),
    errors.ModelUnloaded: Outcome(503, "UNAVAILABLE", 503, "Unhealthy", 503),
    errors.TransformDown: Outcome(503, "UNAVAILABLE", 503, "Unhealthy", 503),
    errors.ControlFault: Outcome(
        400, "FAILED_PRECONDITION", 400, "Validation", 400, "INVALID_ARGUMENT"
    ),
    errors.ModelControlDisabled: Outcome(409, "FAILED_PRECONDITION", 409, "Validation", 409),
    errors.LogControlDisabled: Outcome(409, "FAILED_PRECONDITION", 409, "Validation", 409),
    errors.LoadFailed: Outcome(
        400, "FAILED_PRECONDITION", 400, "Validation", 400, "INVALID_ARGUMENT"
    ),
    errors.Overloaded: Outcome(503, "RESOURCE_EXHAUSTED", 429, "Overloaded", 503, "UNAVAILABLE"),
    errors.QueueFull: Outcome(503, "RESOURCE_EXHAUSTED", 429, "Overloaded", 503, "UNAVAILABLE"),
    errors.WaitTooLong: Outcome(503, "RESOURCE_EXHAUSTED", 429, "Overloaded", 503, "UNAVAILABLE"),
    errors.ServerBusy: Outcome(503, "RESOURCE_EXHAUSTED", 429, "Overloaded", 503, "UNAVAILABLE"),
    errors.RateLimited: Outcome(429, "RESOURCE_EXHAUSTED", 429, "Overloaded", 503, "UNAVAILABLE"),
    errors.AsyncQueueFull: Outcome(
        503, "RESOURCE_EXHAUSTED", 429, "Overloaded", 503, "UNAVAILABLE"
    ),
    errors.AsyncRequestFault: Outcome(
        409, "FAILED_PRECONDITION", 409, "Validation", 409, "INVALID_ARGUMENT"
    ),
    errors.AsyncRequestNotFound: Outcome(404, "NOT_FOUND", 404, "Validation", 404),
    errors.AsyncResultMissing: Outcome(
        409, "FAILED_PRECONDITION", 409, "Validation", 409, "INVALID_ARGUMENT"
    ),
    errors.Refused: Outcome(403, "PERMISSION_DENIED", 403, "Validation", 403),
    errors.Unauthenticated: Outcome(401, "UNAUTHENTICATED", 401, "Validation", 401),
    errors.AccessDenied: Outcome(403, "PERMISSION_DENIED", 403, "Validation", 403),
    errors.ForeignOrigin: Outcome(403, "PERMISSION_DENIED", 403, "Validation", 403),
    errors.ServerStopping: Outcome(503, "UNAVAILABLE", 503, "Unhealthy", 503),
    errors.DeadlineExceeded: Outcome(504, "DEADLINE_EXCEEDED", 504, "Backend", 503, "UNAVAILABLE"),
    errors.Unsupported: Outcome(501, "UNIMPLEMENTED", 501, "Validation", 501),
    errors.ServerFault: Outcome(500, "INTERNAL", 500, "Backend", 500),
    errors.StoreFailed: Outcome(503, "UNAVAILABLE", 503, "Unhealthy", 503),
    errors.TokenizationFailed: Outcome(500, "INTERNAL", 422, "Tokenizer", 500),
    errors.InferenceFailed: Outcome(500, "INTERNAL", 424, "Backend", 500),
    errors.NonFiniteScores: Outcome(500, "INTERNAL", 500, "Backend", 500),
    errors.TransformFailed: Outcome(500, "INTERNAL", 500, "Backend", 500),
    errors.TransformResult: Outcome(500, "INTERNAL", 500, "Backend", 500),
    errors.TransformLimit: Outcome(500, "INTERNAL", 500, "Backend", 500),
}
"""Every error that a request can meet; those of SetupError never reach a client."""

RETRY_AFTER_S: Final = 1
"""Where nothing better is known."""
MAX_RETRY_AFTER_S: Final = 60
"""A queue that takes longer may have room again well before it is empty."""


def retry_after_s(error: errors.NerveError) -> int | None:
    """Seconds for Retry-After where trying the same again helps; None where it does not.

    An overloaded model says how long what waits for it will take.
    """
    if isinstance(error, errors.Overloaded | errors.TransformDown):
        return min(max(RETRY_AFTER_S, math.ceil(error.wait_s)), MAX_RETRY_AFTER_S)
    if isinstance(error, errors.ModelNotReady):  # a model that failed to load stays as it is
        passing = error.state in ("LOADING", "UNLOADING")
    else:
        passing = isinstance(
            error, errors.ModelUnloaded | errors.ServerStopping | errors.StoreFailed
        )
    return RETRY_AFTER_S if passing else None


def outcome(error: errors.NerveError) -> Outcome:
    """The row of an error, its own or its nearest ancestor's."""
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)
