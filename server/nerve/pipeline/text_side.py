"""What of a model knows text: tokenizer and decoder, small calls of several callers put together."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final, TypeVar

from nerve.errors import InvalidField
from nerve.offload import INLINE_TOKENS_TOGETHER, Together, offload, small_answer, small_texts
from nerve.pipeline.aggregation import LabelScheme
from nerve.pipeline.decode import Decoder
from nerve.pipeline.offsets import convert
from nerve.pipeline.scored import Scored
from nerve.pipeline.tokenizer import TextTokenizer
from nerve.pipeline.windows import EncodedText, Window
from nerve.types import CutOptions, FloatArray, Span, SpanOptions, TextTokens, TokenTags
from nerve.words import OffsetUnit

T = TypeVar("T")
DecodedT = TypeVar("DecodedT")
Decode = Callable[[Sequence[str], Sequence[EncodedText], Sequence[FloatArray]], list[DecodedT]]

LARGE_AT_ONCE: Final = 2
"""Large calls of a model in threads at the same time that only tokenize or detokenize: the other
threads are left for texts that an engine waits for."""


Asked = tuple[SpanOptions, bool]
"""Options of a call, and whether its scores are probabilities already."""


class TextSide:
    """Texts -> rows, and scores -> spans or tags; on the event loop or in threads."""

    def __init__(self, tokenizer: TextTokenizer, labels: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        scheme = LabelScheme(labels)
        self._decoder = Decoder(scheme, tokenizer.facts, overlap=tokenizer.stride or 0)
        self._inside = 0
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._encoding: Together[CutOptions, Sequence[str], list[EncodedText]] = Together(
            self._encode_calls,
            inline=lambda calls: small_texts([text for texts in calls for text in texts]),
        )
        self._spans: Together[Asked, Scored, list[list[Span]]] = Together(
            lambda asked, calls: _decode_calls(
                functools.partial(self._decoder.spans, options=asked[0], probabilities=asked[1]),
                calls,
            ),
            inline=_few_tokens,
        )
        self._tags: Together[OffsetUnit, Scored, list[TokenTags]] = Together(
            lambda unit, calls: _decode_calls(
                functools.partial(self._decoder.tokens, unit=unit), calls
            ),
            inline=_few_tokens,
        )

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around a call: what a lone one asks for is not kept until others may have come."""
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1

    def encode_here(self, texts: Sequence[str], cut: CutOptions) -> list[EncodedText]:
        """Tokenize, in this thread. Raises TextTooLong, TokenizationFailed."""
        return self._tokenizer.encode_many(texts, cut)

    async def encode(self, texts: Sequence[str], cut: CutOptions) -> list[EncodedText]:
        """Tokenize. Raises TextTooLong, TokenizationFailed."""
        small = small_texts(texts) and self._tokenizer.at_hand(cut)
        if small and self._inside > 1:
            return await self._encoding(cut, texts)
        return await offload(lambda: self.encode_here(texts, cut), inline=small)

    async def spans(self, scored: Scored, options: SpanOptions) -> list[list[Span]]:
        """Spans of each text, in text order.

        Raises:
            InvalidField: raw scores of labels that the transform chose; there are none of the others.
        """
        if scored.chosen is not None:
            if options.raw_scores:
                fault = "the model's transform chooses the labels, so there are no raw scores"
                raise InvalidField("raw_scores", fault)
            scored = scored.chosen_probabilities()
        small = small_answer(len(scored.texts), scored.tokens)
        if small and self._inside > 1:
            return await self._spans((options, scored.probabilities), scored)
        return await offload(
            lambda: self._decoder.spans(
                scored.texts,
                scored.encoded,
                scored.logits,
                options,
                probabilities=scored.probabilities,
            ),
            inline=small,
        )

    async def tags(self, scored: Scored, unit: OffsetUnit) -> list[TokenTags]:
        """Every token of each text."""
        if scored.chosen is not None:
            tags = await self.tags(scored.chosen_logits(), unit)
            return [replace(each, logits=each.score[:, None]) for each in tags]
        small = small_answer(len(scored.texts), scored.tokens)
        if small and self._inside > 1:
            return await self._tags(unit, scored)
        return await offload(
            lambda: self._decoder.tokens(scored.texts, scored.encoded, scored.logits, unit),
            inline=small,
        )

    async def tokenize(
        self, texts: Sequence[str], *, special: bool | None, unit: OffsetUnit, max_tokens: int
    ) -> list[TextTokens]:
        """Every token of each whole text; `special` as in `TextTokenizer.whole`.

        Raises:
            InvalidField: there are more than `max_tokens`; what `TextTokenizer.whole` raises.
        """

        def work() -> list[TextTokens]:
            found, left = [], max_tokens
            for text in texts:
                found.append(_text_tokens(text, self._tokenizer.whole(text, special=special), unit))
                left -= len(found[-1])
                if left < 0:
                    fault = f"over {max_tokens} tokens in one request; send fewer texts at once"
                    raise InvalidField("inputs", fault)
            return found

        return await self._alone(work, inline=small_texts(texts))

    async def texts_of(self, rows: Sequence[list[int]], *, skip_special_tokens: bool) -> list[str]:
        """See `TextTokenizer.texts_of`."""
        return await self._alone(
            lambda: self._tokenizer.texts_of(rows, skip_special_tokens=skip_special_tokens),
            inline=small_answer(len(rows), sum(map(len, rows))),
        )

    async def _alone(self, work: Callable[[], T], *, inline: bool) -> T:
        """`work` that no engine waits for."""
        if inline:
            return work()
        async with self._large:
            return await offload(work, inline=False)

    def _encode_calls(
        self, cut: CutOptions, calls: Sequence[Sequence[str]]
    ) -> list[list[EncodedText]]:
        encoded = iter(self.encode_here([text for texts in calls for text in texts], cut))
        return [list(itertools.islice(encoded, len(texts))) for texts in calls]


def _decode_calls(decode: Decode[DecodedT], calls: Sequence[Scored]) -> list[list[DecodedT]]:
    """One run of `decode` over the texts of all calls: what each call's texts became."""
    texts = [text for call in calls for text in call.texts]
    encoded = [text for call in calls for text in call.encoded]
    decoded = iter(decode(texts, encoded, [each for call in calls for each in call.logits]))
    return [list(itertools.islice(decoded, len(call.texts))) for call in calls]


def _text_tokens(text: str, whole: Window, unit: OffsetUnit) -> TextTokens:
    special = (~whole.kept).tolist()
    begins, stops = whole.offsets.T.tolist()
    places = convert(text, whole.offsets, unit).astype(object)
    places[~whole.kept] = None
    start, end = places.T.tolist()
    return TextTokens(
        ids=whole.ids.tolist(),
        texts=[
            piece if added else text[begin:stop]
            for piece, added, begin, stop in zip(whole.pieces, special, begins, stops, strict=True)
        ],
        special=special,
        start=start,
        end=end,
    )


def _few_tokens(calls: Sequence[Scored]) -> bool:
    return sum(call.tokens for call in calls) <= INLINE_TOKENS_TOGETHER
