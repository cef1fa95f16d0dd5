"""Tokens to groups: the rules one by one, and the contract's reference against ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerve.pipeline.aggregation import (
    LabelScheme,
    Tokens,
    aggregate,
    group_means,
    softmax,
    subword_by_length,
    subword_by_space,
)
from nerve.types import BoolArray, FloatArray
from nerve.words import Strategy

JOINING = (Strategy.SIMPLE, Strategy.FIRST, Strategy.AVERAGE, Strategy.MAX)
BIO = ("O", "B-ORG", "I-ORG", "B-LOC", "I-LOC")


@pytest.mark.parametrize(
    ("text", "starts", "flags"),
    [
        pytest.param("John  Doe", [0, 5, 6, 6, 7], "00001", id="width 0 pieces start words"),
        pytest.param("John\u00a0Doe", [0, 4, 4, 5], "0111", id="no-break space joins"),
        pytest.param("John in Paris", [0, 0, 1, 4, 5, 7, 10], "0010001", id="metaspace"),
        pytest.param("a\tb\nc\u3000d", [0, 1, 2, 3, 4, 5, 6], "0111111", id="only U+0020 counts"),
        pytest.param("ab", [0, 2, 3, 9], "0111", id="at and past the end is no space"),
        pytest.param("a ", [1, 2], "00", id="past the end after a space"),
        pytest.param("", [0], "0", id="empty text"),
    ],
)
def test_space_rule(text: str, starts: list[int], flags: str) -> None:
    """Rule 3: a token continues a word unless an ASCII space is before or at its start."""
    count = len(starts)
    found = subword_by_space(
        ["x y", text, "z"],
        np.full(count, 1),
        np.array(starts, dtype=np.int64),
        np.full(count, len(text)),
    )
    assert "".join(str(int(flag)) for flag in found) == flags


def test_length_rule_takes_reversed_offsets_as_empty() -> None:
    """Rule 2 compares with a slice, and a slice whose end is before its start is empty."""
    lengths = np.array([0, 1, 3])
    start, end = np.array([4, 4, 4]), np.array([2, 5, 8])
    assert subword_by_length(lengths, start, end).tolist() == [False, False, True]


def test_softmax_survives_large_logits() -> None:
    """Rows that differ by more than exp can hold give 0 and 1, not NaN."""
    found = softmax(np.array([[1e38, -1e38], [-1e30, -1e30]], dtype=np.float32))
    assert found.tolist() == [[1.0, 0.0], [0.5, 0.5]]
    assert found.dtype == np.float32


@pytest.mark.parametrize("size", [*range(1, 40), 127, 128, 129, 255, 256, 257, 513])
def test_mean_has_the_bits_of_one_vector(size: int) -> None:
    """Means of many groups at once: numpy's pairwise order within each, none of the other's."""
    score = np.random.default_rng(size).random(5 * size + 3, dtype=np.float32)
    first = np.array([0, 1, size + 1, 2 * size + 1, 2 * size + 2])
    count = np.array([1, size, size, 1, size])
    found = group_means(score, first, count)
    for mean, low, number in zip(found, first, count, strict=True):
        total = np.add.reduce(score[low : low + number].copy())
        assert mean == np.float32(np.float64(total) / number)


def test_no_token_gives_no_group() -> None:
    """Texts of nothing but special tokens."""
    nothing = np.empty(0, dtype=np.bool_)
    tokens = Tokens(np.empty((0, 5), dtype=np.float32), nothing, nothing)
    for strategy in JOINING:
        groups = aggregate(tokens, LabelScheme(BIO), strategy, ["O"])
        assert [len(each) for each in groups] == [0, 0, 0, 0]


# --- The contract's section 7, token by token, word by word and group by group ---

Found = tuple[str, bytes, int, int]


@dataclass(frozen=True)
class RowOfTokens:
    """One row: logits, and which tokens continue a word."""

    logits: FloatArray
    subword: tuple[bool, ...]


def _reference_words(subword: Sequence[bool]) -> list[list[int]]:
    words: list[list[int]] = []
    for position, continues in enumerate(subword):
        if words and continues:
            words[-1].append(position)
        else:
            words.append([position])
    return words


def _reference_item(
    rows: Sequence[FloatArray], word: Sequence[int], strategy: Strategy
) -> FloatArray:
    if strategy is Strategy.FIRST:
        return rows[word[0]]
    if strategy is Strategy.MAX:
        return rows[max(word, key=lambda position: (rows[position].max(), -position))]
    total = rows[word[0]]
    for position in word[1:]:
        total = total + rows[position]
    return np.array([np.float32(np.float64(each) / len(word)) for each in total])


def _reference_split(label: str) -> tuple[str, str]:
    if label.startswith("B-"):
        return "B", label.removeprefix("B-")
    if label.startswith("I-"):
        return "I", label.removeprefix("I-")
    return "I", label


def reference(
    row: RowOfTokens, labels: Sequence[str], strategy: Strategy, ignore: Sequence[str]
) -> list[Found]:
    """Groups of one row: (name, bytes of the float32 score, first token, last token)."""
    probabilities = []
    for logits in row.logits:
        raised = np.exp(logits - logits.max())
        probabilities.append(raised / raised.sum())
    words = _reference_words(row.subword)
    if strategy is Strategy.SIMPLE:
        words = [[position] for position in range(len(row.logits))]
        items = probabilities
    else:
        items = [_reference_item(probabilities, word, strategy) for word in words]
    groups: list[list[int]] = []
    chosen = [int(np.argmax(item)) for item in items]
    for number, label in enumerate(chosen):
        prefix, tag = _reference_split(labels[label])
        if groups and prefix != "B" and tag == _reference_split(labels[chosen[groups[-1][-1]]])[1]:
            groups[-1].append(number)
        else:
            groups.append([number])
    found = []
    for group in groups:
        name = labels[chosen[group[0]]].split("-", 1)[-1]
        scores = np.array([items[number][chosen[number]] for number in group], dtype=np.float32)
        mean = np.float32(np.float64(np.add.reduce(scores)) / len(group))
        if name not in ignore:
            found.append((name, mean.tobytes(), words[group[0]][0], words[group[-1]][-1]))
    return found


_ODD_LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "PER", "LOC", "E-PER", "S-PER"]
_ODD_LABELS += [
    "B-X-Y",
    "I-X-Y",
    "NON-ENT",
    "",
    "-",
    "B-",
    "I-",
    "b-PER",
    "B-O",
    "I-O",
    "B",
    "日-本",
]
_NAMES = ["O", "PER", "LOC", "ENT", "X-Y", "Y", "", "B-PER", "本"]
_label_lists = st.lists(st.sampled_from(_ODD_LABELS), min_size=1, max_size=8)
_coarse = st.sampled_from([-10.0, -1.0, 0.0, 1.0, 2.0])
"""Few values, so that ties between labels and between tokens are common."""
_fine = st.floats(-30, 30, width=32)


@st.composite
def _rows(draw: st.DrawFn, labels: int) -> list[RowOfTokens]:
    values = draw(st.sampled_from([_coarse, _fine]))
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        count = draw(st.integers(0, 12))
        logits = draw(st.lists(values, min_size=count * labels, max_size=count * labels))
        flags = draw(st.lists(st.booleans(), min_size=count, max_size=count))
        shaped = np.array(logits, dtype=np.float32).reshape(count, labels)
        rows.append(RowOfTokens(shaped, tuple(flags)))
    return rows


@st.composite
def _responses(draw: st.DrawFn) -> tuple[list[str], list[RowOfTokens]]:
    labels = draw(_label_lists)
    return labels, draw(_rows(len(labels)))


def _together(rows: Sequence[RowOfTokens]) -> tuple[Tokens, list[int]]:
    """All rows as one, and where each row begins."""
    logits = np.concatenate([row.logits for row in rows])
    counts = [len(row.logits) for row in rows]
    starts: BoolArray = np.zeros(len(logits), dtype=np.bool_)
    base = np.cumsum([0, *counts]).tolist()
    for low, count in zip(base, counts, strict=False):
        if count:
            starts[low] = True
    subword = np.array([flag for row in rows for flag in row.subword], dtype=np.bool_)
    return Tokens(softmax(logits), starts, subword), base


def _split_again(
    rows: Sequence[RowOfTokens], labels: Sequence[str], strategy: Strategy, ignore: Sequence[str]
) -> list[list[Found]]:
    """What `aggregate` finds in all rows at once, per row, positions counted in the row."""
    tokens, base = _together(rows)
    scheme = LabelScheme(labels)
    groups = aggregate(tokens, scheme, strategy, ignore)
    assert groups.score.dtype == np.float32
    found: list[list[Found]] = [[] for _ in rows]
    for label, score, first, last in zip(*groups, strict=True):
        row = int(np.searchsorted(base, first, side="right")) - 1
        low = base[row]
        name = scheme.groups[label]
        found[row].append((name, score.tobytes(), int(first) - low, int(last) - low))
    return found


@settings(max_examples=300)
@given(_responses(), st.sampled_from(JOINING), st.lists(st.sampled_from(_NAMES), max_size=3))
def test_many_rows_at_once_equal_the_reference_row_by_row(
    response: tuple[list[str], list[RowOfTokens]], strategy: Strategy, ignore: list[str]
) -> None:
    """Names, tokens and score bytes equal section 7 of the contract, however rows are batched."""
    labels, rows = response
    wanted = [reference(row, labels, strategy, ignore) for row in rows]
    assert _split_again(rows, labels, strategy, ignore) == wanted


def test_long_rows_equal_the_reference() -> None:
    """Groups long enough for numpy's pairwise summation to matter, in rows of 600 tokens."""
    random = np.random.default_rng(7)
    labels = ["O", "B-PER", "I-PER"]
    rows = []
    for count in (600, 1, 599):
        logits = random.normal(size=(count, 3)).astype(np.float32)
        logits[:, 2] += 4  # mostly I-PER: long groups
        rows.append(RowOfTokens(logits, tuple((random.random(count) < 0.5).tolist())))
    for strategy in JOINING:
        wanted = [reference(row, labels, strategy, ()) for row in rows]
        assert _split_again(rows, labels, strategy, ()) == wanted


# --- Section 13.3 ---


@settings(max_examples=100)
@given(_responses(), st.sampled_from(JOINING))
def test_groups_cover_all_tokens_in_order(
    response: tuple[list[str], list[RowOfTokens]], strategy: Strategy
) -> None:
    """With nothing ignored, groups follow on one another from the first token to the last."""
    labels, rows = response
    tokens, base = _together(rows)
    groups = aggregate(tokens, LabelScheme(labels), strategy, ())
    covered = [
        position
        for first, last in zip(groups.first.tolist(), groups.last.tolist(), strict=True)
        for position in range(first, last + 1)
    ]
    assert covered == list(range(len(tokens.scores)))
    for low in base:  # no group reaches over the end of a row
        assert low == len(tokens.scores) or low in groups.first.tolist()


@settings(max_examples=100)
@given(_responses(), st.sampled_from(JOINING))
def test_adjacent_groups_differ_in_tag_without_begin_labels(
    response: tuple[list[str], list[RowOfTokens]], strategy: Strategy
) -> None:
    """Only a B- label can split two neighbours of one tag."""
    labels, rows = response
    labels = [label for label in labels if not label.startswith("B-")] or ["O"]
    rows = [RowOfTokens(row.logits[:, : len(labels)], row.subword) for row in rows]
    scheme = LabelScheme(labels)
    for row in rows:
        tokens, _ = _together([row])
        tags = scheme.tags[aggregate(tokens, scheme, strategy, ()).label].tolist()
        assert all(one != other for one, other in pairwise(tags))
