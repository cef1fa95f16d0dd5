"""Token probabilities -> groups, as `transformers.pipeline("ner")` does it, for many rows at once.

Pure numpy; knows label ids and tokens, not texts, tokenizers or wire formats. The rules are those
of transformers 5.23 (TokenClassificationPipeline), their float recipe included.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from nerve.types import BoolArray, FloatArray, IntArray, group_of
from nerve.words import Strategy

FEW_GROUPS: Final = 16
"""Up to so many groups are averaged one by one: fewer steps than sorting them by length."""


class LabelScheme:
    """What the label names mean, worked out once a model.

    `tags` (labels,) is equal for labels that may share a group, `opens` (labels,) is True for
    labels that always start one, `groups` the name that a group gets from its first label.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        split = [
            (name[0], name[2:]) if name[:2] in ("B-", "I-") else ("I", name) for name in labels
        ]
        numbers: dict[str, int] = {}
        self.labels = tuple(labels)
        self.groups = tuple(map(group_of, labels))
        self.tags: IntArray = np.array(
            [numbers.setdefault(tag, len(numbers)) for _, tag in split], dtype=np.int64
        )
        self.opens: BoolArray = np.array([prefix == "B" for prefix, _ in split])
        # the default, asked for by nearly every request
        self._outside = {each: self._ignored({"O"}, of_groups=each) for each in (True, False)}

    def ignored(self, names: Collection[str], *, of_groups: bool) -> BoolArray:
        """(labels,) True where the label, or the group it would name, is in `names`."""
        if len(names) == 1 and "O" in names:
            return self._outside[of_groups]
        return self._ignored(names, of_groups=of_groups)

    def _ignored(self, names: Collection[str], *, of_groups: bool) -> BoolArray:
        return np.array([name in names for name in (self.groups if of_groups else self.labels)])


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """What aggregation must know of a tokenizer (contracts: aggregation, 4).

    `piece_lengths` (vocabulary,) counts code points of each piece, prefix included; None for a
    tokenizer without a continuing-subword prefix. `unknown_id` is -1 if there is none.
    """

    piece_lengths: IntArray | None
    unknown_id: int


class Groups(NamedTuple):
    """Arrays (groups,): label id of the first item, float32 score, first and last token."""

    label: IntArray
    score: FloatArray
    first: IntArray
    last: IntArray


@dataclass(frozen=True, slots=True)
class Tokens:
    """The kept tokens of several rows, one row after the other.

    `scores` (tokens, labels) float32 are probabilities (or logits); `row_starts` (tokens,) is
    True at each row's first token, `subword` (tokens,) where a token continues a word.
    """

    scores: FloatArray
    row_starts: BoolArray
    subword: BoolArray


def softmax(logits: FloatArray) -> FloatArray:
    """Probabilities along the last axis, in float32."""
    with np.errstate(over="ignore"):  # logits too far apart for float32: the smaller get 0
        shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), dtype=np.float32)


def run_lengths(starts: IntArray, count: int) -> IntArray:
    """Items in each run, where `count` items are cut at `starts`: in order, the first at 0."""
    ends = np.empty_like(starts)  # np.diff and np.append take four times as long on a sentence
    ends[:-1] = starts[1:]
    ends[-1] = count
    return np.asarray(ends - starts)


def subword_by_length(piece_lengths: IntArray, start: IntArray, end: IntArray) -> BoolArray:
    """The rule for tokenizers with a continuing-subword prefix: piece and slice differ in length."""
    return np.asarray(piece_lengths != np.maximum(end - start, 0), dtype=np.bool_)


def subword_by_space(
    texts: Sequence[str], text_of: IntArray, start: IntArray, end_of_text: IntArray
) -> BoolArray:
    """The rule for all others: no ASCII space before or at the token's first character.

    Args:
        texts: the texts that tokens stand in.
        text_of: (tokens,) index into `texts`.
        start: (tokens,) code points into the token's own text.
        end_of_text: (tokens,) length of that text.
    """
    # One string with a character between the texts that is no space: reading past the end of a
    # text finds "not a space", as the rule wants.
    joined = "\0".join([*texts, ""])
    space = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype="<u4") == 0x20
    lengths = np.array([len(text) + 1 for text in texts], dtype=np.int64)
    base = (np.cumsum(lengths) - lengths)[text_of]
    here = base + np.minimum(start, end_of_text)
    return np.asarray((start > 0) & ~space[here - 1] & ~space[here], dtype=np.bool_)


def word_scores(
    scores: FloatArray, first: IntArray, length: IntArray, strategy: Strategy
) -> FloatArray:
    """One row of scores a word: (tokens, labels) -> (words, labels)."""
    if strategy is Strategy.FIRST:
        return scores[first]
    if strategy is Strategy.MAX:
        best = scores.max(axis=1)
        (hits,) = (best == np.maximum.reduceat(best, first).repeat(length)).nonzero()
        if len(hits) > len(first):  # a tie: the first token of the word counts
            word = np.arange(len(first)).repeat(length)[hits]
            hits = hits[np.unique(word, return_index=True)[1]]
        return np.asarray(scores[hits])
    # average: rows added one after another in float32, divided in float64
    total = scores[first]
    for step in range(1, int(length.max())):
        longer = np.flatnonzero(length > step)
        total[longer] += scores[first[longer] + step]
    return np.asarray(total.astype(np.float64) / length[:, None], dtype=np.float32)


def group_means(score: FloatArray, first: IntArray, count: IntArray) -> FloatArray:
    """(groups,) float32 means of runs of items, with the bits of one `np.add.reduce` a run."""
    means = np.empty(len(first), dtype=np.float32)
    if len(first) <= FEW_GROUPS:
        for group, (start, size) in enumerate(zip(first.tolist(), count.tolist(), strict=True)):
            total = np.add.reduce(score[start : start + size])
            means[group] = np.float64(total) / size  # stored as float32
        return means
    for size in np.unique(count):
        which = np.flatnonzero(count == size)
        # numpy adds pairwise along a contiguous axis: a matrix of equal runs keeps the bits
        runs = np.ascontiguousarray(score[first[which, None] + np.arange(size)])
        means[which] = (np.add.reduce(runs, axis=1).astype(np.float64) / size).astype(np.float32)
    return means


def aggregate(
    tokens: Tokens, scheme: LabelScheme, strategy: Strategy, ignore: Collection[str]
) -> Groups:
    """Join tokens into groups, never across rows.

    Args:
        tokens: at least one row; NaN is not allowed.
        scheme: of the model.
        strategy: any but `none`.
        ignore: group names (`ORG`, not `B-ORG`) to leave out.
    """
    count = len(tokens.scores)
    if count == 0:
        nothing = np.empty(0, dtype=np.int64)
        return Groups(nothing, np.empty(0, dtype=np.float32), nothing, nothing)
    if strategy is Strategy.SIMPLE:
        first = last = np.arange(count)
        scores, row_starts = tokens.scores, tokens.row_starts
    else:
        (first,) = (~tokens.subword | tokens.row_starts).nonzero()
        length = run_lengths(first, count)
        last = first + length - 1
        scores = word_scores(tokens.scores, first, length, strategy)
        row_starts = tokens.row_starts[first]
    best = scores.argmax(axis=1)
    score = scores[np.arange(len(best)), best]
    tag = scheme.tags[best]
    opens = scheme.opens[best] | row_starts
    opens[1:] |= tag[1:] != tag[:-1]
    (left,) = opens.nonzero()
    size = run_lengths(left, len(best))
    wanted = ~scheme.ignored(ignore, of_groups=True)[best[left]]
    left, size = left[wanted], size[wanted]
    return Groups(best[left], group_means(score, left, size), first[left], last[left + size - 1])
