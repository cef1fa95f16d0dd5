"""NerveError -> what Baseten calls it, and whether it is worth another try: the one table."""

from __future__ import annotations

from typing import Final, NamedTuple

from nerve import errors

NOT_READY: Final = "MODEL_NOT_READY"
DOES_NOT_EXIST: Final = "MODEL_DOES_NOT_EXIST"
INVALID_INPUT: Final = "MODEL_INVALID_INPUT"
PREDICT_ERROR: Final = "MODEL_PREDICT_ERROR"
UNAVAILABLE: Final = "MODEL_UNAVAILABLE"
PREDICT_TIMEOUT: Final = "MODEL_PREDICT_TIMEOUT"
NOT_SUPPORTED: Final = "ASYNC_REQUEST_NOT_SUPPORTED"
INTERNAL: Final = "INTERNAL_SERVER_ERROR"

PASSING: Final = frozenset({"LOADING", "UNLOADING"})
"""States of a model that tell of themselves soon what becomes of it."""


class Verdict(NamedTuple):
    """What an error means for a request.

    `again`: it may succeed another time. `counts`: the attempt was one; what only shows that the
    server has no room, or no model yet, is none, however often it happens.
    """

    code: str
    again: bool
    counts: bool = True


TABLE: Final[dict[type[errors.NerveError], Verdict]] = {
    errors.NerveError: Verdict(INTERNAL, again=True),
    errors.InvalidRequest: Verdict(INVALID_INPUT, again=False),
    errors.BodyTimeout: Verdict(INTERNAL, again=True),
    errors.ModelUnavailable: Verdict(UNAVAILABLE, again=True),
    errors.ModelNotFound: Verdict(DOES_NOT_EXIST, again=False),
    errors.VersionNotFound: Verdict(DOES_NOT_EXIST, again=False),
    errors.NoDefaultModel: Verdict(DOES_NOT_EXIST, again=False),
    errors.ModelNotReady: Verdict(NOT_READY, again=True),
    errors.ModelUnloaded: Verdict(UNAVAILABLE, again=True, counts=False),
    errors.Overloaded: Verdict(UNAVAILABLE, again=True, counts=False),
    errors.ServerStopping: Verdict(UNAVAILABLE, again=True, counts=False),
    errors.ControlFault: Verdict(NOT_SUPPORTED, again=False),
    errors.AsyncRequestFault: Verdict(NOT_SUPPORTED, again=False),
    errors.Refused: Verdict(NOT_SUPPORTED, again=False),
    errors.Unsupported: Verdict(NOT_SUPPORTED, again=False),
    errors.DeadlineExceeded: Verdict(PREDICT_TIMEOUT, again=True),
    errors.ServerFault: Verdict(PREDICT_ERROR, again=True),
    errors.StoreFailed: Verdict(INTERNAL, again=True),
    errors.SetupError: Verdict(INTERNAL, again=True),
}
"""By the contract, section 9.2."""


def verdict(error: Exception) -> Verdict:
    """The row of an error, its own or its nearest ancestor's; INTERNAL of what is no NerveError.

    A model that is loading has only to be waited for: a restart must not use up the attempts of all
    that is queued. One that could not be loaded has an attempt used up.
    """
    if isinstance(error, errors.ModelNotReady) and error.state in PASSING:
        return Verdict(NOT_READY, again=True, counts=False)
    return next(
        (TABLE[kind] for kind in type(error).__mro__ if kind in TABLE), TABLE[errors.NerveError]
    )
