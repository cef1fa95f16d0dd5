"""Time limits by header."""

from __future__ import annotations

import pytest

from nerve.errors import DeadlineExceeded, InvalidField
from nerve.frontend.http.call import CLOCK_SKEW_S, timeout_s

NOW_S = 1_700_000_000.0


def at(seconds_from_now: float) -> str:
    """`request-deadline-ms`."""
    return str((NOW_S + seconds_from_now) * 1e3)


@pytest.mark.parametrize(
    ("timeout", "deadline", "expected"),
    [
        (None, None, None),
        ("250", None, 0.25),
        (None, at(2), 2.0),
        ("500", at(2), 0.5),
        ("5000", at(2), 2.0),
        ("0", None, None),
        ("-5", at(2), 2.0),
        ("500", at(-CLOCK_SKEW_S), 0.5),
        (None, "0", None),
    ],
)
def test_the_smaller_limit_counts(
    timeout: str | None, deadline: str | None, expected: float | None
) -> None:
    """What cannot be meant is ignored: no time at all, and a clock that is far off."""
    sent = {"request-timeout-ms": timeout, "request-deadline-ms": deadline}
    headers = {name: value for name, value in sent.items() if value is not None}
    assert timeout_s(headers, NOW_S) == (
        None if expected is None else pytest.approx(expected, abs=1e-3)
    )


@pytest.mark.parametrize("seconds", [0.0, -0.1, 0.1 - CLOCK_SKEW_S])
def test_a_deadline_that_has_just_passed(seconds: float) -> None:
    with pytest.raises(DeadlineExceeded):
        timeout_s({"request-deadline-ms": at(seconds), "request-timeout-ms": "5000"}, NOW_S)


@pytest.mark.parametrize("name", ["request-timeout-ms", "request-deadline-ms"])
@pytest.mark.parametrize("value", ["", "soon", "nan", "inf", "1s"])
def test_no_number_of_milliseconds(name: str, value: str) -> None:
    with pytest.raises(InvalidField) as caught:
        timeout_s({name: value}, NOW_S)
    assert caught.value.field == f"header {name}"
