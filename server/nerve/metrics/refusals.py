"""Which errors are refusals: the server could answer such a request, and does not take this one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from nerve import errors

_ROOTS: Final = (
    errors.Overloaded,
    errors.Refused,
    errors.ServerStopping,
    errors.TransformDown,
    errors.ModelNotReady,
    errors.TooManyInputs,
    errors.TextTooLong,
    errors.BodyTooLarge,
    errors.AsyncBodyTooLarge,
    errors.MessageTooLarge,
    errors.BodyTimeout,
)
"""Limits, keys, and what is not there just now."""


def _with_kinds(root: type[errors.NerveError]) -> Iterator[type[errors.NerveError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _with_kinds(kind)


OF_PROTOCOLS: Final = frozenset({"too_many_sessions", "foreign_origin"})
"""Refusals that only one protocol knows: MCP."""
REASONS: Final = OF_PROTOCOLS | {
    kind.reason
    for root in _ROOTS
    for kind in _with_kinds(root)
    if kind.__module__ == errors.__name__
    and kind not in (errors.Overloaded, errors.Refused)  # roots, never raised
}
"""All that `nerve_refused_requests_total` can say."""
