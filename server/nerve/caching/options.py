"""What a request asks about a text as a key: equal for all that must get the same answer. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from nerve.caching.store import Key
from nerve.types import CutOptions, ModelInfo, SpanOptions, group_of
from nerve.words import OffsetUnit


class Asking:
    """Makes keys of requests to one model."""

    def __init__(self, info: ModelInfo) -> None:
        self._cuts = info.stride is None
        self._names = frozenset(info.labels) | frozenset(map(group_of, info.labels))

    def keys(
        self, kind: Literal["spans", "both"], texts: Sequence[str], options: SpanOptions
    ) -> list[Key]:
        """For spans, or spans and tokens: a key for each text."""
        ignored = sorted(options.ignore_labels & self._names)  # other names change nothing
        asked = (kind, options.strategy.value, ignored, options.raw_scores)
        return self._of_texts(texts, asked, options.offset_unit, options.cut)

    def token_keys(self, texts: Sequence[str], unit: OffsetUnit, cut: CutOptions) -> list[Key]:
        """For tokens: a key for each text."""
        return self._of_texts(texts, ("tokens",), unit, cut)

    def _of_texts(
        self, texts: Sequence[str], asked: tuple[object, ...], unit: OffsetUnit, cut: CutOptions
    ) -> list[Key]:
        if self._cuts:  # else long texts are tagged in windows, and none is cut
            asked += (cut.truncate, cut.side and cut.side.value)
        # A text rather than a tuple: its hash is computed once, however many keys it is in.
        plain = repr(asked)
        if unit is OffsetUnit.CODEPOINT:
            return [(text, plain) for text in texts]
        counted = repr((*asked, unit.value))
        # of ASCII, all units count the same
        return [(text, plain if text.isascii() else counted) for text in texts]
