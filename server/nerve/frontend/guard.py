"""Who may ask what: the one check that every request passes, whatever the protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from nerve.exchange import Access

CREDENTIALS: Final = ("authorization", "x-api-key", "api-key")
"""Headers of which a guard is to see all values: they come joined by line breaks."""


class Guard(Protocol):
    """Lets requests in."""

    def admit(self, headers: Mapping[str, str], access: Access, peer: str) -> str | None:
        """The name of the key that a request came with, None where none is wanted.

        Args:
            headers: or metadata; names in lower case. All values of `CREDENTIALS`, a line each; of
                other names that are there more than once, one.
            access: what the route wants.
            peer: the client's address.
        Raises:
            Unauthenticated, AccessDenied, RateLimited.
        """

    def check(self, headers: Mapping[str, str], access: Access) -> str | None:
        """As `admit`, but for no request: nothing is counted against the key's rate.

        Raises:
            Unauthenticated, AccessDenied.
        """


class Anyone:
    """No keys: whoever can connect may ask."""

    def admit(self, headers: Mapping[str, str], access: Access, peer: str) -> str | None:  # noqa: ARG002
        """Let it in."""
        return None

    def check(self, headers: Mapping[str, str], access: Access) -> str | None:  # noqa: ARG002
        """Let it in."""
        return None
