"""Places and bytes of requests: who gets some, and that all are given back."""

from __future__ import annotations

from contextlib import suppress

import pytest

from nerve.errors import ServerBusy, Unauthenticated
from nerve.exchange import Access, Exchange, Exchanges
from nerve.frontend.admission import Admission
from nerve.frontend.guard import Anyone


class Nobody(Anyone):
    """Lets nobody in."""

    def admit(self, *_: object) -> str | None:
        raise Unauthenticated("no key")


def exchange(method: str = "POST", protocol: str = "http") -> Exchange:
    return Exchange(protocol, "native", method, "/")


def taken(*, requests: int = 2, size: int = 100) -> tuple[Admission, Exchanges]:
    admission = Admission(Anyone(), max_requests=requests, max_bytes=size)
    return admission, Exchanges([admission])


def test_places_run_out_and_come_back() -> None:
    """With the exchange, however it ends."""
    admission, exchanges = taken()
    with exchanges.open(exchange(), {}), exchanges.open(exchange(protocol="grpc"), {}):
        admission.admit({}, Access.PREDICT, "")
        with suppress(ZeroDivisionError), exchanges.open(exchange(), {}):
            admission.admit({}, Access.ADMIN, "")
            assert admission.full
            assert (admission.requests, admission.working("http")) == (2, 1)
            with (
                exchanges.open(exchange(), {}),
                pytest.raises(ServerBusy, match="2 requests in flight"),
            ):
                admission.admit({}, Access.PREDICT, "")
            raise ZeroDivisionError
        assert not admission.full
    assert (admission.requests, admission.held_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("access", "method"),
    [(Access.OPEN, "POST"), (Access.READ, "POST"), (Access.PREDICT, "GET")],
)
def test_who_only_looks_takes_no_place(access: Access, method: str) -> None:
    admission, exchanges = taken(requests=1)
    with exchanges.open(exchange(), {}):
        admission.admit({}, Access.PREDICT, "")
        with exchanges.open(exchange(method), {}):
            admission.admit({}, access, "")
            admission.hold(1 << 40)
        assert (admission.requests, admission.held_bytes) == (1, 0)


def test_bytes_run_out_and_come_back() -> None:
    """Also those of one that is refused in the middle; one that is alone may have any number."""
    admission, exchanges = taken()
    with exchanges.open(exchange(), {}):
        admission.admit({}, Access.PREDICT, "")
        admission.hold(60)
        admission.hold(90)
        assert admission.held_bytes == 150
    with exchanges.open(exchange(), {}):
        admission.admit({}, Access.PREDICT, "")
        admission.hold(60)
        with exchanges.open(exchange(), {}):
            admission.admit({}, Access.PREDICT, "")
            admission.hold(40)
            with pytest.raises(ServerBusy, match="100 bytes of requests"):
                admission.hold(1)
        assert admission.held_bytes == 60
        admission.hold(40)
    assert admission.held_bytes == 0


def test_who_may_not_ask_keeps_no_place() -> None:
    admission = Admission(Nobody(), max_requests=1, max_bytes=1)
    exchanges = Exchanges([admission])
    for _ in range(2):
        with exchanges.open(exchange(), {}), pytest.raises(Unauthenticated):
            admission.admit({}, Access.PREDICT, "")
    assert admission.requests == 0
