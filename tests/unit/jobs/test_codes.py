"""What errors mean for a request that is tried again."""

from __future__ import annotations

import pytest

from nerve import errors
from nerve.jobs import codes
from nerve.jobs.codes import TABLE, verdict


def kinds(of: type[errors.NerveError] = errors.NerveError) -> list[type[errors.NerveError]]:
    """All below, those of other modules left out."""
    below = [each for each in of.__subclasses__() if each.__module__ == errors.__name__]
    return [of, *(each for kind in below for each in kinds(kind))]


@pytest.mark.parametrize(
    ("error", "code", "again", "counts"),
    [
        (errors.InvalidField("inputs", "missing"), codes.INVALID_INPUT, False, True),
        (errors.TooManyInputs(9, 8), codes.INVALID_INPUT, False, True),
        (errors.TextTooLong(9, 8, "tokens"), codes.INVALID_INPUT, False, True),
        (errors.ModelNotFound("ner", []), codes.DOES_NOT_EXIST, False, True),
        (errors.VersionNotFound("ner", "9", [1]), codes.DOES_NOT_EXIST, False, True),
        (errors.ModelNotReady("ner", "1", "LOADING", ""), codes.NOT_READY, True, False),
        (errors.ModelNotReady("ner", "1", "UNLOADING", ""), codes.NOT_READY, True, False),
        (errors.ModelNotReady("ner", "1", "UNAVAILABLE", "x"), codes.NOT_READY, True, True),
        (errors.ModelUnloaded("ner"), codes.UNAVAILABLE, True, False),
        (errors.TransformDown("ner", "died", 1.0), codes.UNAVAILABLE, True, True),
        (errors.QueueFull("ner", 8), codes.UNAVAILABLE, True, False),
        (errors.WaitTooLong("ner", 9.0, 1.0), codes.UNAVAILABLE, True, False),
        (errors.ServerBusy("requests", 8), codes.UNAVAILABLE, True, False),
        (errors.ServerStopping(), codes.UNAVAILABLE, True, False),
        (errors.DeadlineExceeded(), codes.PREDICT_TIMEOUT, True, True),
        (errors.InferenceFailed("ner", "x"), codes.PREDICT_ERROR, True, True),
        (errors.TransformLimit("ner", "memory", 1), codes.PREDICT_ERROR, True, True),
        (errors.StoreFailed("disk full"), codes.INTERNAL, True, True),
        (errors.Unsupported("streams", "none"), codes.NOT_SUPPORTED, False, True),
        (KeyError("x"), codes.INTERNAL, True, True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_an_error_has_baseten_s_code(
    error: Exception, code: str, *, again: bool, counts: bool
) -> None:
    assert verdict(error) == (code, again, counts)


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_no_error_is_left_to_the_root(kind: type[errors.NerveError]) -> None:
    """One that nobody thought of would be tried again and again."""
    row = next(each for each in kind.__mro__ if each in TABLE)
    assert row is not errors.NerveError or kind is errors.NerveError
