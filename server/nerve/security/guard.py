"""Who may ask: finds the key in a request's headers, and looks what it is good for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from nerve.errors import AccessDenied, RateLimited, Unauthenticated
from nerve.exchange import Access, current
from nerve.security.keys import ApiKey, KeySet, RateLimit, Scope
from nerve.security.rate import Bucket

log = logging.getLogger("nerve.frontend.guard")
"""Of the front ends, as it is clients who cause these lines: there are never many at once."""

SCHEMES: Final = ("bearer", "api-key")
AUTHORIZATION: Final = "authorization"
HEADERS: Final = ("x-api-key", "api-key")
"""Headers, and metadata, that hold nothing but a key."""
SEVERAL: Final = "\n"
"""Between the values of a header that came more than once, see `Guard.admit`."""
MAX_KEY: Final = 1024
"""Longest key, in characters."""


class KeyGuard:
    """`nerve.frontend.guard.Guard` by the keys of a file."""

    def __init__(
        self,
        keys: KeySet,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`clock` gives monotonic seconds, `now` those since 1970 began."""
        self._keys, self._clock, self._now = keys, clock, now
        self._buckets: dict[str, Bucket] = {}

    def replace(self, keys: KeySet) -> None:
        """These are taken from now on; a rate that stays as it was is not given anew."""
        self._keys = keys
        kept = {key.name: key.rate_limit for key in keys}
        for name, bucket in list(self._buckets.items()):
            limit = kept.get(name)
            if limit is None or (limit.requests_per_second, limit.capacity) != (
                bucket.rate,
                bucket.capacity,
            ):
                del self._buckets[name]

    def admit(self, headers: Mapping[str, str], access: Access, peer: str) -> str | None:
        """See `Guard.admit`."""
        if access is Access.OPEN:
            return None
        try:
            key = self._known(headers, access, note=True)
        except (Unauthenticated, AccessDenied) as error:
            log.warning("a request from %s was refused: %s", peer or "somewhere", error)
            raise
        if key.rate_limit is not None:
            wait_s = self._bucket(key.name, key.rate_limit).take(self._clock())
            if wait_s:
                raise RateLimited(key.name, key.rate_limit.requests_per_second, wait_s)
        return key.name

    def check(self, headers: Mapping[str, str], access: Access) -> str | None:
        """See `Guard.check`."""
        return None if access is Access.OPEN else self._known(headers, access).name

    def _known(self, headers: Mapping[str, str], access: Access, *, note: bool = False) -> ApiKey:
        key = self._keys.find(credential(headers))
        if key is None:
            raise Unauthenticated("the API key is not known")
        if note and (exchange := current()) is not None:
            exchange.key = key.name  # also of requests that are refused
        if key.expires_at <= self._now():
            raise Unauthenticated(f"the API key {key.name!r} has expired")
        if access is not Access.KNOWN and not {Scope(access.value), Scope.ADMIN} & {*key.scopes}:
            raise AccessDenied(key.name, access.value)
        return key

    def _bucket(self, name: str, limit: RateLimit) -> Bucket:
        if name not in self._buckets:
            self._buckets[name] = Bucket(limit.requests_per_second, limit.capacity, self._clock())
        return self._buckets[name]


def credential(headers: Mapping[str, str]) -> str:
    """The key in a request's headers; names in lower case, several values of one by line. Pure.

    Raises:
        Unauthenticated: there is none, or more than one, or it is no key.
    """
    found = {value.strip() for name in HEADERS for value in _values(headers, name)}
    for authorization in _values(headers, AUTHORIZATION):
        scheme, _, rest = authorization.strip().partition(" ")
        if scheme.lower() not in SCHEMES:
            raise Unauthenticated("the scheme of Authorization is neither Bearer nor Api-Key")
        found.add(rest.strip())
    if not found:
        raise Unauthenticated("there is no API key with the request")
    if len(found) > 1:
        raise Unauthenticated("there are different API keys with the request")
    (key,) = found
    if not key:
        raise Unauthenticated("the API key is empty")
    if len(key) > MAX_KEY:
        raise Unauthenticated(f"the API key is over {MAX_KEY} characters")
    return key


def _values(headers: Mapping[str, str], name: str) -> list[str]:
    value = headers.get(name)
    return [] if value is None else value.split(SEVERAL)
