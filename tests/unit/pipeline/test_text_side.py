"""Calls of several callers through one tokenizer and one decoder: each gets what it gets alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from nerve.config.model import TokenizerConfig
from nerve.errors import InvalidField, TokenizationFailed
from nerve.offload import INLINE_CHARACTERS, INLINE_TOKENS, MAX_TOGETHER
from nerve.pipeline.scored import Scored
from nerve.pipeline.text_side import LARGE_AT_ONCE, TextSide
from nerve.pipeline.tokenizer import TextTokenizer, load_tokenizer
from nerve.pipeline.windows import EncodedText, Window
from nerve.types import CutOptions, Span, SpanOptions, TokenTags
from nerve.words import OffsetUnit, Side, Strategy

MODELS = Path(__file__).parents[2] / "models"
LABELS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
TEXTS = (
    "Ada Lovelace met Charles Babbage in London.",
    "Zoë flew to 東京 with Lufthansa 🚀",
    "Yes.",
    "The people of the world, asleep: Angela Merkel at Siemens in Zürich, with John and Jane.",
)


def tokenizer(file: Path, *, stride: int | None = None) -> TextTokenizer:
    return load_tokenizer(
        file, model="probe", config=TokenizerConfig(stride=stride), max_row_tokens=24,
        tokenizer_config={}, special_tokens={}, model_config={},
    )  # fmt: skip


def side(family: str = "bert", *, stride: int | None = None) -> TextSide:
    return TextSide(tokenizer(MODELS / family / "tokenizer.json", stride=stride), LABELS)


def calls(count: int) -> list[list[str]]:
    """Of one to three texts, each text a different one."""
    return [
        [f"{TEXTS[(call + each) % 4]} {call}" for each in range(1 + call % 3)]
        for call in range(count)
    ]


def scored(texts: Sequence[str], encoded: Sequence[EncodedText], seed: int) -> Scored:
    """With logits of no meaning, made in float32."""
    random = np.random.default_rng(seed)
    return Scored(
        texts,
        encoded,
        [
            random.normal(0, 3, (len(window.ids), len(LABELS))).astype(np.float32)
            for text in encoded
            for window in text.windows
        ],
    )


def told(encoded: Sequence[EncodedText]) -> list[object]:
    return [
        (
            text.tokens,
            text.truncated,
            [
                (window.ids.tolist(), window.offsets.tolist(), window.kept.tolist(), window.pieces)
                for window in text.windows
            ],
        )
        for text in encoded
    ]


def span_bits(spans: Sequence[Sequence[Span]]) -> list[object]:
    """Everything, the scores by their bits."""
    return [
        [
            (
                *span[:2], span.score.tobytes(), span.start, span.end, span.token_id,
                None if span.scores is None else span.scores.tobytes(),
            )
            for span in text
        ]
        for text in spans
    ]  # fmt: skip


def tag_bits(tags: Sequence[TokenTags]) -> list[object]:
    return [
        (each.pieces, each.ids, each.start, each.end, each.logits.tobytes(), each.best.tolist())
        for each in tags
    ]


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta"])
@pytest.mark.parametrize("stride", [None, 4])
async def test_together_as_alone(family: str, stride: int | None) -> None:
    """Rows, spans of every strategy and tags, to the bit."""
    asked = calls(MAX_TOGETHER + 5)
    alone, shared = side(family, stride=stride), side(family, stride=stride)
    cut = CutOptions()
    with shared.call(), shared.call():
        encoded = await asyncio.gather(*(shared.encode(each, cut) for each in asked))
        for texts, found in zip(asked, encoded, strict=True):
            assert told(found) == told(alone.encode_here(texts, cut))
        rows = [scored(*each, seed=7) for each in zip(asked, encoded, strict=True)]
        for strategy in Strategy:
            options = SpanOptions(strategy, offset_unit=OffsetUnit.BYTE)
            spans = await asyncio.gather(*(shared.spans(each, options) for each in rows))
            for each, one in zip(rows, spans, strict=True):
                assert span_bits(one) == span_bits(await alone.spans(each, options))
            assert sum(len(text) for one in spans for text in one) > 100
        tags = await asyncio.gather(*(shared.tags(each, OffsetUnit.UTF16) for each in rows))
        for each, found_tags in zip(rows, tags, strict=True):
            assert tag_bits(found_tags) == tag_bits(await alone.tags(each, OffsetUnit.UTF16))


async def test_callers_who_ask_for_different_things() -> None:
    """Each gets its own side of a cut text, its strategy and its unit."""
    both = side()
    text = " ".join(TEXTS)
    cuts = [CutOptions(side=each) for each in (Side.LEFT, Side.RIGHT)]
    with both.call(), both.call():
        for cut in cuts:  # makes its tokenizer
            await both.encode([text], cut)
        left, right = await asyncio.gather(*(both.encode([text], cut) for cut in cuts))
        assert told(left) == told(both.encode_here([text], cuts[0]))
        assert told(right) == told(both.encode_here([text], cuts[1]))
        assert left[0].windows[0].ids.tolist() != right[0].windows[0].ids.tolist()
        row = scored([text], right, seed=1)
        kinds = [
            SpanOptions(Strategy.SIMPLE), SpanOptions(Strategy.SIMPLE, raw_scores=True),
            SpanOptions(Strategy.SIMPLE, ignore_labels=frozenset()), SpanOptions(Strategy.NONE),
        ]  # fmt: skip
        found = await asyncio.gather(*(both.spans(row, each) for each in kinds))
        assert len({repr(span_bits(each)) for each in found}) == len(kinds)


async def test_a_text_that_breaks_the_tokenizer_fails_alone(tmp_path: Path) -> None:
    """One that knows a single word and has no token for others."""
    picky = Tokenizer(WordLevel({"people": 7}, unk_token="[UNK]"))
    picky.pre_tokenizer = Whitespace()
    picky.save(str(tmp_path / "tokenizer.json"))
    both = TextSide(tokenizer(tmp_path / "tokenizer.json"), LABELS)
    asked = [["people"], ["world"], ["people people"], ["people", "world"]]
    with both.call(), both.call():
        found = await asyncio.gather(
            *(both.encode(each, CutOptions()) for each in asked), return_exceptions=True
        )
    assert [type(each) for each in found] == [list, TokenizationFailed, list, TokenizationFailed]
    assert isinstance(found[2], list)
    assert found[2][0].windows[0].ids.tolist() == [7, 7]


async def test_long_texts_keep_nobody_waiting() -> None:
    """They go to a thread of their own, alone or not."""
    both = side()
    long = ["people " * INLINE_CHARACTERS]
    with both.call(), both.call():
        found, short = await asyncio.gather(
            both.encode(long, CutOptions()), both.encode(["people"], CutOptions())
        )
        assert found[0].truncated
        assert not short[0].truncated
        many = ["people " * 20] * (1 + INLINE_TOKENS // 20)
        row = scored(many, await both.encode(many, CutOptions()), seed=2)
        spans = await both.spans(row, SpanOptions(Strategy.MAX))
        assert len(spans) == len(many)


@pytest.mark.parametrize("unit", list(OffsetUnit))
@pytest.mark.parametrize("copies", [1, 40])
async def test_tokens_point_into_the_text(unit: OffsetUnit, copies: int) -> None:
    """On the loop and in a thread alike, whatever `start` and `end` count."""
    texts = [text * copies for text in TEXTS]
    for text, tokens in zip(
        texts, await side().tokenize(texts, special=True, unit=unit, max_tokens=10**9), strict=True
    ):
        coded = {
            OffsetUnit.CODEPOINT: text.encode("utf-32-le"),
            OffsetUnit.BYTE: text.encode(),
            OffsetUnit.UTF16: text.encode("utf-16-le"),
        }[unit]
        codec, width = {
            OffsetUnit.CODEPOINT: ("utf-32-le", 4),
            OffsetUnit.BYTE: ("utf-8", 1),
            OffsetUnit.UTF16: ("utf-16-le", 2),
        }[unit]
        assert (tokens.texts[0], tokens.texts[-1]) == ("[CLS]", "[SEP]")
        inner = [False] * (len(tokens) - 2)
        assert tokens.special == [True, *inner, True]
        for number, (start, end) in enumerate(zip(tokens.start, tokens.end, strict=True)):
            if number in {0, len(tokens) - 1}:
                assert (start, end) == (None, None)
                continue
            assert start is not None
            assert end is not None
            assert coded[start * width : end * width].decode(codec) == tokens.texts[number]


async def test_large_calls_leave_threads_for_others() -> None:
    """No more than so many are at work at the same time; each gets its own answer."""
    at_work: list[int] = []
    working = threading.Semaphore(LARGE_AT_ONCE)
    tokenizer_ = tokenizer(MODELS / "bert" / "tokenizer.json")
    counted = TextSide(tokenizer_, LABELS)
    whole = tokenizer_.whole

    def watched(text: str, *, special: bool | None) -> Window:
        assert working.acquire(blocking=False), "too many at work"
        try:
            at_work.append(1)
            return whole(text, special=special)
        finally:
            working.release()

    tokenizer_.whole = watched  # type: ignore[method-assign]
    texts = [f"{number} {TEXTS[0] * 50}" for number in range(20)]
    answers = await asyncio.gather(
        *(
            counted.tokenize([each], special=False, unit=OffsetUnit.BYTE, max_tokens=10**9)
            for each in texts
        )
    )
    assert len(at_work) == len(texts)
    assert answers == [
        await side().tokenize([each], special=False, unit=OffsetUnit.BYTE, max_tokens=10**9)
        for each in texts
    ]


async def test_ids_become_text_on_the_loop_and_in_a_thread() -> None:
    """The same either way."""
    probe = side("roberta")
    library = Tokenizer.from_file(str(MODELS / "roberta" / "tokenizer.json"))
    library.no_truncation()
    for copies in (1, 100):
        rows = [library.encode(text * copies).ids for text in TEXTS]
        found = await probe.texts_of(rows, skip_special_tokens=True)
        assert found == [library.decode(row) for row in rows]


async def test_texts_of_too_many_tokens_are_refused() -> None:
    """Together; as many as are allowed are not."""
    texts = ["one two three", "four five"]
    (one, other) = await side().tokenize(
        texts, special=True, unit=OffsetUnit.CODEPOINT, max_tokens=10**9
    )
    limit = len(one) + len(other)
    allowed = await side().tokenize(
        texts, special=True, unit=OffsetUnit.CODEPOINT, max_tokens=limit
    )
    assert list(map(len, allowed)) == [len(one), len(other)]
    with pytest.raises(InvalidField, match=f"over {limit - 1} tokens in one request"):
        await side().tokenize(texts, special=True, unit=OffsetUnit.CODEPOINT, max_tokens=limit - 1)
