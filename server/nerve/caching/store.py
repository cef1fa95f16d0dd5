"""Answers in memory within a bound of bytes, and what each of them holds. Knows no model."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from sys import getsizeof
from typing import Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from nerve.metrics.cache import CopyCacheMetrics
from nerve.types import Span, TextCost, TokenTags

ScalarT = TypeVar("ScalarT", bound=np.generic)
Key = tuple[str, str]
"""A text, and what was asked about it."""

_NUMBER_BYTES: Final = 32
"""An int, or a float32 of its own."""
_ARRAY_BYTES: Final = 176
"""An array beside its data."""
_SPAN_BYTES: Final = getsizeof(Span("", "", np.float32(0), 0, 0, 0, None)) + 4 * _NUMBER_BYTES + 8
_TOKEN_BYTES: Final = 4 * 8 + 3 * _NUMBER_BYTES + 16
"""Its place in four lists, and its numbers."""
_ENTRY_BYTES: Final = 440
"""An answer without anything in it, its key, and their place in the table."""


class Entry(NamedTuple):
    """The answer for a text, which nobody may change: spans, tags, or both; `held_bytes` of memory."""

    spans: tuple[Span, ...] | None
    tags: TokenTags | None
    cost: TextCost
    held_bytes: int


def entry(key: Key, spans: list[Span] | None, tags: TokenTags | None, cost: TextCost) -> Entry:
    """An answer that holds nothing but itself: arrays are mostly parts of a whole batch's."""
    held = _ENTRY_BYTES + sum(map(getsizeof, key))
    kept = None
    if spans is not None:
        kept = _own_spans(spans)
        held += sum(getsizeof(span.text) + _SPAN_BYTES for span in kept)
        held += sum(span.scores.nbytes + _ARRAY_BYTES for span in kept if span.scores is not None)
    if tags is not None:
        tags = replace(
            tags,
            logits=_frozen(tags.logits.copy()),
            best=_frozen(tags.best.copy()),
            score=_frozen(tags.score.copy()),
        )
        held += sum(map(getsizeof, tags.pieces)) + len(tags.pieces) * _TOKEN_BYTES
        held += sum(each.nbytes + _ARRAY_BYTES for each in (tags.logits, tags.best, tags.score))
    return Entry(kept, tags, cost, held)


def tags_of(kept: TokenTags) -> TokenTags:
    """Tags for a caller, whose lists are its own."""
    return replace(
        kept,
        pieces=kept.pieces.copy(),
        ids=kept.ids.copy(),
        start=kept.start.copy(),
        end=kept.end.copy(),
    )


def _own_spans(spans: list[Span]) -> tuple[Span, ...]:
    if not spans or spans[0].scores is None:  # all of one strategy
        return tuple(spans)
    scores = _frozen(np.array([span.scores for span in spans]))
    return tuple(span._replace(scores=own) for span, own in zip(spans, scores, strict=True))


def _frozen(array: npt.NDArray[ScalarT]) -> npt.NDArray[ScalarT]:
    array.flags.writeable = False
    return array


class Store:
    """Answers by key. Whenever a new one has no room, those go that were not asked for longest."""

    def __init__(self, max_bytes: int, metrics: CopyCacheMetrics) -> None:
        self._max_bytes, self._metrics = max_bytes, metrics
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self.held_bytes = 0
        """Of all, never over the bound."""

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Entry | None:
        """The answer, which is now the one that was asked for last."""
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, key: Key, made: Entry) -> None:
        """Keep it, unless it is larger than the bound."""
        if made.held_bytes > self._max_bytes:
            return
        before, count = self.held_bytes, len(self._entries)
        if (old := self._entries.pop(key, None)) is not None:
            self.held_bytes -= old.held_bytes
        evicted = 0
        while self.held_bytes + made.held_bytes > self._max_bytes:
            self.held_bytes -= self._entries.popitem(last=False)[1].held_bytes
            evicted += 1
        self._entries[key] = made
        self.held_bytes += made.held_bytes
        self._metrics.resize(
            held_bytes=self.held_bytes - before,
            entries=len(self._entries) - count,
            evicted=evicted,
        )

    def clear(self) -> None:
        """Forget all."""
        self._metrics.resize(held_bytes=-self.held_bytes, entries=-len(self._entries), evicted=0)
        self._entries.clear()
        self.held_bytes = 0
