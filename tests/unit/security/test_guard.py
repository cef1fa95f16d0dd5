"""Who may ask: credentials in headers, scopes, rates, what is taken away."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerve.errors import AccessDenied, NerveError, RateLimited, Unauthenticated
from nerve.exchange import Access
from nerve.security.guard import KeyGuard, credential
from nerve.security.keys import PREFIX, ApiKey, KeySet
from nerve.security.rate import Bucket


def secret(name: str) -> str:
    """A key of the shape of ours."""
    return PREFIX + f"{name}-secret".ljust(43, "0")


def key(name: str, *scopes: str, **more: object) -> ApiKey:
    """The entry of that key."""
    digest = hashlib.sha256(secret(name).encode()).hexdigest()
    told = {"name": name, "sha256": digest, "scopes": list(scopes), **more}
    return ApiKey.model_validate(told)


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret(name)}"}


class Clock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer k"},
        {"authorization": "bearer  k "},
        {"authorization": "Api-Key k"},
        {"authorization": "API-KEY k"},
        {"x-api-key": "k"},
        {"api-key": " k"},
        {"authorization": "Bearer k", "x-api-key": "k"},
        {"x-other": "1", "x-api-key": "k", "api-key": "k"},
        {"x-api-key": "k\nk"},
        {"authorization": "Bearer k\nApi-Key k", "x-api-key": " k\nk"},
    ],
)
def test_where_a_key_may_be(headers: Mapping[str, str]) -> None:
    assert credential(headers) == "k"


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({}, "no API key"),
        ({"authorization": ""}, "neither Bearer nor Api-Key"),
        ({"authorization": "k"}, "neither Bearer nor Api-Key"),
        ({"authorization": "Basic azpr"}, "neither Bearer nor Api-Key"),
        ({"authorization": "Bearer"}, "is empty"),
        ({"authorization": "Bearer  "}, "is empty"),
        ({"x-api-key": ""}, "is empty"),
        ({"authorization": "Bearer k", "x-api-key": "j"}, "different API keys"),
        ({"api-key": "k", "x-api-key": "j"}, "different API keys"),
        ({"x-api-key": "j\nk"}, "different API keys"),
        ({"x-api-key": "k\n"}, "different API keys"),
        ({"authorization": "Bearer k\nBearer j"}, "different API keys"),
        ({"authorization": "Bearer k\nBasic azpr"}, "neither Bearer nor Api-Key"),
        ({"authorization": "Basic k", "x-api-key": "k"}, "neither Bearer"),
        ({"x-api-key": "k" * 1025}, "over 1024 characters"),
    ],
)
def test_what_is_no_key(headers: Mapping[str, str], told: str) -> None:
    with pytest.raises(Unauthenticated, match=told):
        credential(headers)


@given(st.dictionaries(st.sampled_from(["authorization", "x-api-key", "api-key"]), st.text()))
def test_whatever_is_sent(headers: dict[str, str]) -> None:
    guard = KeyGuard(KeySet([key("a", "admin")]))
    with pytest.raises(Unauthenticated):
        guard.admit(headers, Access.READ, "peer")


@pytest.mark.parametrize(
    ("scopes", "good"),
    [
        (["read"], {"read"}),
        (["predict"], {"predict"}),
        (["read", "predict"], {"read", "predict"}),
        (["admin"], {"read", "predict", "admin"}),
    ],
)
def test_scopes(scopes: list[str], good: set[str]) -> None:
    guard = KeyGuard(KeySet([key("a", *scopes)]))
    assert guard.admit(bearer("a"), Access.KNOWN, "") == "a"
    assert guard.admit({}, Access.OPEN, "") is None
    assert guard.check({}, Access.OPEN) is None
    for access in (Access.READ, Access.PREDICT, Access.ADMIN):
        if access.value in good:
            assert guard.admit(bearer("a"), access, "") == guard.check(bearer("a"), access) == "a"
            continue
        told = f"'a' has no scope '{access.value}'"
        with pytest.raises(AccessDenied, match=told):
            guard.admit(bearer("a"), access, "")
        with pytest.raises(AccessDenied, match=told):
            guard.check(bearer("a"), access)


def test_every_access_has_an_answer() -> None:
    """A scope for each, but for those that need none."""
    guard = KeyGuard(KeySet([key("a", "admin")]))
    for access in Access:
        guard.admit(bearer("a"), access, "")


def test_a_key_expires() -> None:
    clock = Clock()
    guard = KeyGuard(KeySet([key("a", "read", expires="1970-01-01T00:16:41")]), now=clock)
    assert guard.check(bearer("a"), Access.READ) == "a"
    clock.now = 1001.0
    with pytest.raises(Unauthenticated, match="'a' has expired"):
        guard.check(bearer("a"), Access.READ)


def test_keys_are_replaced() -> None:
    clock = Clock()
    limit = {"requests_per_second": 1}
    guard = KeyGuard(KeySet([key("a", "read", rate_limit=limit)]), clock=clock)
    guard.admit(bearer("a"), Access.READ, "")
    guard.replace(KeySet([key("a", "read", rate_limit=limit), key("b", "read")]))
    guard.admit(bearer("b"), Access.READ, "")
    with pytest.raises(RateLimited):  # a new file is no new second
        guard.admit(bearer("a"), Access.READ, "")
    guard.replace(KeySet([key("a", "read", rate_limit={"requests_per_second": 2})]))
    guard.admit(bearer("a"), Access.READ, "")
    with pytest.raises(Unauthenticated, match="is not known"):
        guard.admit(bearer("b"), Access.READ, "")


def test_a_rate_is_the_key_s_own() -> None:
    clock = Clock()
    limit = {"requests_per_second": 0.5, "burst": 2}
    keys = [key("a", "read", rate_limit=limit), key("b", "read", rate_limit=limit)]
    guard = KeyGuard(KeySet(keys), clock=clock)
    for _ in range(2):
        guard.admit(bearer("a"), Access.READ, "")
    for _ in range(5):
        guard.check(bearer("a"), Access.READ)  # is no request
    with pytest.raises(RateLimited) as caught:
        guard.admit(bearer("a"), Access.READ, "")
    assert (caught.value.key, caught.value.rate, caught.value.wait_s) == ("a", 0.5, 2.0)
    guard.admit(bearer("b"), Access.READ, "")
    with pytest.raises(AccessDenied):  # takes nothing of its rate
        guard.admit(bearer("b"), Access.ADMIN, "")
    guard.admit(bearer("b"), Access.READ, "")
    clock.now += 2.0
    guard.admit(bearer("a"), Access.READ, "")


def test_refusals_never_tell_the_key(caplog: pytest.LogCaptureFixture) -> None:
    guard = KeyGuard(KeySet([key("a", "read")]))
    for headers in ({"authorization": "Bearer hunter2"}, {"authorization": "hunter2"}, bearer("a")):
        with pytest.raises(NerveError) as caught:
            guard.admit(headers, Access.ADMIN, "192.0.2.1")
        assert "hunter2" not in f"{caught.value}{caught.value!r}"
    assert len(caplog.records) == 3
    assert "192.0.2.1" in caplog.text
    assert "hunter2" not in caplog.text
    assert "secret" not in caplog.text


def test_a_bucket() -> None:
    bucket = Bucket(rate=2.0, capacity=3, now=10.0)
    assert [bucket.take(10.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert bucket.take(10.25) == 0.25
    assert bucket.take(10.5) == 0
    assert bucket.take(9.0) > 0  # time never goes back
    assert [bucket.take(1000.0) for _ in range(4)] == [0, 0, 0, 0.5]


@given(
    st.floats(0.01, 1000),
    st.integers(1, 50),
    st.lists(st.floats(0, 5), min_size=1, max_size=200),
)
def test_no_more_than_the_rate(rate: float, capacity: int, pauses: list[float]) -> None:
    bucket, now, taken = Bucket(rate, capacity, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        wait = bucket.take(now)
        taken += wait == 0
        assert 0 <= wait <= 1 / rate + 1e-9
    assert taken <= capacity + now * rate + 1e-6
