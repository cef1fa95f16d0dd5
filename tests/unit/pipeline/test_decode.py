"""Logits and windows to spans and token tags, for a whole response at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from nerve.pipeline.aggregation import LabelScheme, TokenizerFacts, softmax
from nerve.pipeline.decode import Decoder
from nerve.pipeline.windows import EncodedText, Window
from nerve.types import FloatArray, SpanOptions
from nerve.words import OffsetUnit, Strategy

LABELS = ("O", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
NO_RULE_2 = TokenizerFacts(None, -1)
AGGREGATED = [each for each in Strategy if each is not Strategy.NONE]


def word_window(text: str, low: int, high: int) -> Window:
    """The words [low, high) of a text, split at blanks, between two special tokens."""
    words, offsets, at = text.split(" ") if text else [], [], 0
    for word in words:
        offsets.append((at, at + len(word)))
        at += len(word) + 1
    inner = list(range(low, high))
    return Window(
        ids=np.array([0, *(number + 10 for number in inner), 1]),
        type_ids=np.zeros(len(inner) + 2, dtype=np.int64),
        offsets=np.array([(0, 0), *offsets[low:high], (0, 0)], dtype=np.int64),
        kept=np.array([False, *[True] * len(inner), False]),
        pieces=["<s>", *words[low:high], "</s>"],
    )


def scores(tags: Sequence[str | tuple[str, float]]) -> FloatArray:
    """Logits for words by (label, probability), .9 if not said; special tokens around them."""
    rows = np.full((len(tags) + 2, len(LABELS)), -10, dtype=np.float32)
    for row, tag in enumerate(tags, 1):
        label, probability = (tag, 0.9) if isinstance(tag, str) else tag
        rest = "O" if label != "O" else "B-ORG"
        rows[row, LABELS.index(label)] = math.log(probability)
        rows[row, LABELS.index(rest)] = math.log(1 - probability)
    return rows


def whole(text: str) -> EncodedText:
    count = len(text.split(" ")) if text else 0
    return EncodedText((word_window(text, 0, count),), count + 2, truncated=False)


def decoder(*, overlap: int = 0) -> Decoder:
    return Decoder(LabelScheme(LABELS), NO_RULE_2, overlap=overlap)


def options(strategy: str = "simple", *, ignore: Sequence[str] = ("O",)) -> SpanOptions:
    return SpanOptions(Strategy(strategy), frozenset(ignore))


LONG = "john works at google in new york city"


def long_windows(*, backward: bool) -> tuple[EncodedText, list[FloatArray]]:
    """Section 9: five tokens and two special ones a window, two of them shared."""
    first = word_window(LONG, 0, 6), scores(["O", "O", "O", ("B-ORG", 0.8), "O", ("B-LOC", 0.9)])
    second = (
        word_window(LONG, 3, 8),
        scores([("B-ORG", 0.6), "O", ("B-LOC", 0.7), ("I-LOC", 0.7), ("I-LOC", 0.6)]),
    )
    order = [second, first] if backward else [first, second]
    windows = tuple(window for window, _ in order)
    return EncodedText(windows, 10, truncated=False, backward=backward), [row for _, row in order]


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("strategy", ["simple", "max"])
def test_windows_are_merged_as_transformers_does(strategy: str, backward: bool) -> None:
    """Section 9: of two equal spans the better scored stays, a longer one displaces a better."""
    encoded, logits = long_windows(backward=backward)
    (found,) = decoder(overlap=3).spans([LONG], [encoded], logits, options(strategy))
    assert [(span.text, span.label) for span in found] == [
        ("google", "ORG"),
        ("new york city", "LOC"),
    ]
    assert found[0].score == pytest.approx(0.79989105, abs=1e-6)
    assert found[1].score == pytest.approx(0.6665759, abs=1e-6)


@pytest.mark.parametrize("backward", [False, True])
def test_tokens_of_windows_count_once_in_text_order(backward: bool) -> None:
    """`none` and token tags take each shared token from one window, whatever their order."""
    encoded, logits = long_windows(backward=backward)
    spans = decoder(overlap=3).spans([LONG], [encoded], logits, options("none", ignore=()))[0]
    assert [span.text for span in spans] == LONG.split(" ")
    tags = decoder(overlap=3).tokens([LONG], [encoded], logits, OffsetUnit.CODEPOINT)[0]
    assert tags.pieces == LONG.split(" ")
    assert tags.ids == list(range(10, 18))
    assert [LONG[a:b] for a, b in zip(tags.start, tags.end, strict=True)] == LONG.split(" ")
    # google stands deeper in the first window (.8), "in" and "new" in the second (.7)
    assert spans[3].score == pytest.approx(0.8, abs=1e-3)
    assert spans[5].score == pytest.approx(0.7, abs=1e-3)


@pytest.mark.parametrize("unit", list(OffsetUnit))
def test_offsets_in_every_unit_while_text_stays_the_slice(unit: OffsetUnit) -> None:
    """What start and end count changes them, and nothing else."""
    text = "😀é Zürich 東京"
    logits = [scores(["O", "B-LOC", "B-ORG"])]
    per_unit = {
        OffsetUnit.CODEPOINT: [(3, 9), (10, 12)],
        OffsetUnit.BYTE: [(7, 14), (15, 21)],
        OffsetUnit.UTF16: [(4, 10), (11, 13)],
    }
    for strategy in Strategy:
        chosen = SpanOptions(strategy, offset_unit=unit)
        (found,) = decoder().spans([text], [whole(text)], logits, chosen)
        assert [(span.start, span.end) for span in found] == per_unit[unit]
        assert [span.text for span in found] == ["Zürich", "東京"]
    (tags,) = decoder().tokens([text], [whole(text)], logits, unit)
    assert list(zip(tags.start, tags.end, strict=True))[1:] == per_unit[unit]


def test_none_carries_the_whole_row_and_the_token_id() -> None:
    """Entities carry neither."""
    text = "in Paris"
    logits = [scores(["O", "B-LOC"])]
    (found,) = decoder().spans([text], [whole(text)], logits, options("none"))
    assert [span.token_id for span in found] == [11]
    assert found[0].scores is not None
    assert found[0].scores.tobytes() == softmax(logits[0])[2].tobytes()
    assert found[0].score == found[0].scores.max()
    for strategy in AGGREGATED:
        (span,) = decoder().spans([text], [whole(text)], logits, options(strategy))[0]
        assert (span.token_id, span.scores) == (0, None)


def test_raw_scores_are_logits() -> None:
    """Labels stay those that the probabilities choose; scores are the model's own numbers."""
    text = "in Paris"
    logits = [scores(["O", "B-LOC"])]
    for strategy in Strategy:
        chosen = SpanOptions(strategy, raw_scores=True)
        (span,) = decoder().spans([text], [whole(text)], logits, chosen)[0]
        assert span.label.endswith("LOC")
        assert span.score == logits[0][2, 3]
        assert isinstance(span.score, np.float32)


@pytest.mark.parametrize("raw", [False, True])
def test_labels_are_chosen_by_probability_not_by_logit(raw: bool) -> None:
    """Two logits that round to one probability are a tie, and the lowest id wins."""
    row = np.array([0.0, np.nextafter(np.float32(0), np.float32(1)), -9, -9, -9], np.float32)
    assert row.argmax() == 1
    logits = [np.stack([row, row, row])]
    chosen = SpanOptions(Strategy.NONE, frozenset(), raw_scores=raw)
    (span,) = decoder().spans(["Paris"], [whole("Paris")], logits, chosen)[0]
    assert span.label == "O"


def test_ignored_names_are_labels_in_none_and_groups_elsewhere() -> None:
    """`ORG` has no effect in mode none, `B-ORG` none in the others."""
    text, logits = "acme", [scores(["B-ORG"])]
    for strategy in Strategy:
        effective = "B-ORG" if strategy is Strategy.NONE else "ORG"
        other = "ORG" if strategy is Strategy.NONE else "B-ORG"
        for ignored, count in ((effective, 0), (other, 1)):
            chosen = options(strategy, ignore=[ignored])
            assert len(decoder().spans([text], [whole(text)], logits, chosen)[0]) == count


def test_texts_without_a_token_keep_their_place() -> None:
    """A text of nothing but special tokens has no spans, and its neighbours keep theirs."""
    texts = ["", "Paris", "", "in Rome", ""]
    logits = [
        scores([]),
        scores(["B-LOC"]),
        scores([]),
        scores(["I-LOC", "I-LOC"]),
        scores([]),
    ]
    encoded = [whole(text) for text in texts]
    for strategy in AGGREGATED:
        found = decoder().spans(texts, encoded, logits, options(strategy))
        assert [[span.text for span in spans] for spans in found] == [
            [],
            ["Paris"],
            [],
            ["in Rome"],
            [],
        ]
    found = decoder().spans(texts, encoded, logits, options("none"))
    assert [len(spans) for spans in found] == [0, 1, 0, 2, 0]
    tags = decoder().tokens(texts, encoded, logits, OffsetUnit.BYTE)
    assert [each.pieces for each in tags] == [[], ["Paris"], [], ["in", "Rome"], []]


def test_only_texts_without_a_token() -> None:
    """Nothing at all to decode is no error."""
    encoded, logits = [whole(""), whole("")], [scores([]), scores([])]
    for strategy in Strategy:
        assert decoder().spans(["", ""], encoded, logits, options(strategy)) == [[], []]
    tags = decoder().tokens(["", ""], encoded, logits, OffsetUnit.CODEPOINT)
    assert [each.pieces for each in tags] == [[], []]


def test_groups_never_reach_over_the_end_of_a_text() -> None:
    """An I- label at the start of a text does not continue the text before."""
    texts = ["new york", "city"]
    logits = [scores(["B-LOC", "I-LOC"]), scores(["I-LOC"])]
    encoded = [whole(text) for text in texts]
    for strategy in AGGREGATED:
        found = decoder().spans(texts, encoded, logits, options(strategy))
        assert [[(s.start, s.end) for s in spans] for spans in found] == [[(0, 8)], [(0, 4)]]


def test_token_tags_hold_the_model_s_logits() -> None:
    """Best label ids and logits of each token, special ones left out."""
    logits = [scores(["O", "B-LOC"])]
    (tags,) = decoder().tokens(["in Paris"], [whole("in Paris")], logits, OffsetUnit.CODEPOINT)
    assert tags.logits.tobytes() == logits[0][1:3].tobytes()
    assert tags.best.tolist() == [0, 3]
