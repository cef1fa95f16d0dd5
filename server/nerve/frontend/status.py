"""NerveError -> statuses: the one table."""

from __future__ import annotations

from typing import Final, NamedTuple

from nerve import errors


class Outcome(NamedTuple):
    """What an error is on each wire.

    `http` is the status of Encoderfile's and our own routes, `grpc` the name of the status code,
    `baseten` and `baseten_type` are those of predict_tokens.
    """

    http: int
    grpc: str
    baseten: int
    baseten_type: str


TABLE: Final[dict[type[errors.NerveError], Outcome]] = {
    errors.NerveError: Outcome(500, "INTERNAL", 500, "Backend"),
    errors.InvalidRequest: Outcome(400, "INVALID_ARGUMENT", 400, "Validation"),
    errors.MalformedBody: Outcome(400, "INVALID_ARGUMENT", 400, "Validation"),
    errors.MalformedMessage: Outcome(400, "INVALID_ARGUMENT", 400, "Validation"),
    errors.InvalidField: Outcome(422, "INVALID_ARGUMENT", 422, "Validation"),
    errors.EmptyInput: Outcome(422, "INVALID_ARGUMENT", 400, "Empty"),
    errors.TooManyInputs: Outcome(413, "INVALID_ARGUMENT", 413, "Validation"),
    errors.TextTooLong: Outcome(413, "INVALID_ARGUMENT", 413, "Validation"),
    errors.UnsupportedMediaType: Outcome(415, "INVALID_ARGUMENT", 415, "Validation"),
    errors.BodyTooLarge: Outcome(413, "RESOURCE_EXHAUSTED", 413, "Validation"),
    errors.BodyTimeout: Outcome(408, "DEADLINE_EXCEEDED", 408, "Validation"),
    errors.ModelUnavailable: Outcome(503, "UNAVAILABLE", 503, "Unhealthy"),
    errors.ModelNotFound: Outcome(404, "NOT_FOUND", 404, "Validation"),
    errors.VersionNotFound: Outcome(404, "NOT_FOUND", 404, "Validation"),
    errors.NoDefaultModel: Outcome(404, "NOT_FOUND", 404, "Validation"),
    errors.ModelNotReady: Outcome(503, "UNAVAILABLE", 503, "Unhealthy"),
    errors.ModelUnloaded: Outcome(503, "UNAVAILABLE", 503, "Unhealthy"),
    errors.ControlFault: Outcome(400, "FAILED_PRECONDITION", 400, "Validation"),
    errors.ModelControlDisabled: Outcome(409, "FAILED_PRECONDITION", 409, "Validation"),
    errors.LoadFailed: Outcome(400, "FAILED_PRECONDITION", 400, "Validation"),
    errors.Overloaded: Outcome(503, "RESOURCE_EXHAUSTED", 429, "Overloaded"),
    errors.QueueFull: Outcome(503, "RESOURCE_EXHAUSTED", 429, "Overloaded"),
    errors.DeadlineExceeded: Outcome(504, "DEADLINE_EXCEEDED", 504, "Backend"),
    errors.ServerFault: Outcome(500, "INTERNAL", 500, "Backend"),
    errors.TokenizationFailed: Outcome(500, "INTERNAL", 422, "Tokenizer"),
    errors.InferenceFailed: Outcome(500, "INTERNAL", 424, "Backend"),
    errors.NonFiniteScores: Outcome(500, "INTERNAL", 500, "Backend"),
}
"""Every error that a request can meet; those of SetupError never reach a client."""

RETRY_AFTER_S: Final = 1


def retry_after_s(error: errors.NerveError) -> int | None:
    """Seconds for Retry-After where trying the same again helps; None where it does not."""
    if isinstance(error, errors.ModelNotReady):  # a model that failed to load stays as it is
        passing = error.state in ("LOADING", "UNLOADING")
    else:
        passing = isinstance(error, errors.Overloaded | errors.ModelUnloaded)
    return RETRY_AFTER_S if passing else None


def outcome(error: errors.NerveError) -> Outcome:
    """The row of an error, its own or its nearest ancestor's."""
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)
