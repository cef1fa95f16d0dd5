"""The one table of statuses: complete, and consistent with the error tree."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from nerve import errors
from nerve.frontend.status import TABLE, outcome, retry_after_s


def descendants(kind: type[errors.NerveError]) -> Iterator[type[errors.NerveError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from descendants(child)


def test_every_error_of_a_request_has_its_own_row() -> None:
    setup = set(descendants(errors.SetupError))
    known = {kind for kind in descendants(errors.NerveError) if kind.__module__ == "nerve.errors"}
    assert known - setup == set(TABLE)


def test_rows_make_sense() -> None:
    for kind, row in TABLE.items():
        assert row.grpc in grpc.StatusCode.__members__
        fault = issubclass(kind, errors.InvalidRequest | errors.ControlFault | errors.Refused)
        later = issubclass(
            kind, errors.ModelUnavailable | errors.RateLimited | errors.AsyncRequestFault
        )
        assert fault == (row.http < 500 and not later)
        assert 400 <= row.baseten < 600
        # the protocol's clients know nothing of 422, 424, 429 and 504 (contract kserve-v2, 1)
        assert row.v2 in {400, 401, 403, 404, 408, 409, 413, 415, 500, 501, 503}
        assert (row.v2 < 500) == (fault or row.http in (404, 409))


def test_reasons_are_unique() -> None:
    reasons = [kind.reason for kind in descendants(errors.NerveError)]
    assert len(reasons) == len(set(reasons))


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (errors.QueueFull("m", 3), 1),
        (errors.QueueFull("m", 3, 0.2), 1),
        (errors.QueueFull("m", 3, 4.2), 5),
        (errors.WaitTooLong("m", 12.01, 3.0), 13),
        (errors.WaitTooLong("m", 1e9, 3.0), 60),
        (errors.ModelUnloaded("m"), 1),
        (errors.StoreFailed("no connection"), 1),
        (errors.ModelNotReady("m", "", "LOADING", ""), 1),
        (errors.ModelNotReady("m", "", "UNAVAILABLE", "no tokenizer.json"), None),
        (errors.EmptyInput("inputs"), None),
        (errors.DeadlineExceeded(), None),
    ],
)
def test_retry_after_only_where_it_helps(error: errors.NerveError, seconds: int | None) -> None:
    assert retry_after_s(error) == seconds


def test_a_store_that_is_away_is_a_passing_failure() -> None:
    """Clients of every protocol try again later."""
    row = outcome(errors.StoreFailed("no connection"))
    assert row == (503, "UNAVAILABLE", 503, "Unhealthy", 503, "")


def test_unknown_errors_take_the_row_of_their_ancestor() -> None:
    class Odd(errors.QueueFull):
        reason = "odd"

    assert outcome(Odd("m", 1)) == TABLE[errors.QueueFull]
