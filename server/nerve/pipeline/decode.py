"""Logits and encoded texts -> spans and token tags, for a whole response at once. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from nerve.pipeline.aggregation import (
    LabelScheme,
    TokenizerFacts,
    Tokens,
    aggregate,
    softmax,
    subword_by_length,
    subword_by_space,
)
from nerve.pipeline.offsets import convert
from nerve.pipeline.windows import EncodedText, merge, owned
from nerve.types import BoolArray, FloatArray, IntArray, Span, SpanOptions, TokenTags
from nerve.words import OffsetUnit, Strategy

ScalarT = TypeVar("ScalarT", bound=np.generic)


class Decoder:
    """Decodes for one model. Holds nothing but its labels and tokenizer facts."""

    def __init__(self, scheme: LabelScheme, facts: TokenizerFacts, *, overlap: int) -> None:
        self._scheme, self._facts, self._overlap = scheme, facts, overlap

    def spans(
        self,
        texts: Sequence[str],
        encoded: Sequence[EncodedText],
        logits: Sequence[FloatArray],
        options: SpanOptions,
        *,
        probabilities: bool = False,
    ) -> list[list[Span]]:
        """Spans of each text, in text order.

        Args:
            texts, encoded: as many as there are texts.
            logits: (tokens, labels) float32 of each window, texts one after another; finite.
            options: strategy, what to ignore, raw scores, unit of the offsets.
            probabilities: the logits are some already.
        """
        if options.strategy is Strategy.NONE:
            return self._token_spans(texts, encoded, logits, options, probabilities)
        windows = [window for text in encoded for window in text.windows]
        flat = _Flat(texts, encoded, [window.kept for window in windows], logits)
        groups = aggregate(
            Tokens(
                flat.logits if options.raw_scores or probabilities else softmax(flat.logits),
                flat.row_starts,
                self._subword(texts, flat),
            ),
            self._scheme,
            options.strategy,
            options.ignore_labels,
        )
        names, unit = self._scheme.groups, options.offset_unit
        bounds = _bounds(flat.text_of[groups.first], len(texts))
        out: list[list[Span]] = []
        for text, encoding, low, high in zip(texts, encoded, bounds[:-1], bounds[1:], strict=True):
            label, score = groups.label[low:high], groups.score[low:high]
            start, end = flat.start[groups.first[low:high]], flat.end[groups.last[low:high]]
            if len(encoding.windows) > 1:
                kept = merge(start, end, list(score))
                label, score, start, end = label[kept], score[kept], start[kept], end[kept]
            columns = [start.tolist(), end.tolist(), label.tolist(), score]
            told = [convert(text, each, unit).tolist() for each in (start, end)]
            out.append(
                [
                    Span(text[a:b], names[number], probability, c, d, 0, None)
                    for a, b, number, probability, c, d in zip(*columns, *told, strict=True)
                ]
            )
        return out

    def tokens(
        self,
        texts: Sequence[str],
        encoded: Sequence[EncodedText],
        logits: Sequence[FloatArray],
        unit: OffsetUnit,
    ) -> list[TokenTags]:
        """Every token of each text once, with its logits. Arguments as for `spans`."""
        flat = self._each_token_once(texts, encoded, logits)
        best = flat.logits.argmax(axis=1)
        score = flat.logits[np.arange(len(best)), best]
        bounds = _bounds(flat.text_of, len(texts))
        out = []
        for text, low, high in zip(texts, bounds[:-1], bounds[1:], strict=True):
            out.append(
                TokenTags(
                    pieces=flat.pieces(low, high),
                    ids=flat.ids[low:high].tolist(),
                    start=convert(text, flat.start[low:high], unit).tolist(),
                    end=convert(text, flat.end[low:high], unit).tolist(),
                    logits=flat.logits[low:high],
                    best=best[low:high],
                    score=score[low:high],
                )
            )
        return out

    def _token_spans(
        self,
        texts: Sequence[str],
        encoded: Sequence[EncodedText],
        logits: Sequence[FloatArray],
        options: SpanOptions,
        given: bool,
    ) -> list[list[Span]]:
        flat = self._each_token_once(texts, encoded, logits)
        # Rounding can make two probabilities equal whose logits differ: always choose by the
        # probability, as transformers does.
        probabilities = flat.logits if given else softmax(flat.logits)
        best = probabilities.argmax(axis=1)
        shown = flat.logits if options.raw_scores else probabilities
        ignored = self._scheme.ignored(options.ignore_labels, of_groups=False)
        out: list[list[Span]] = [[] for _ in texts]
        chosen = np.flatnonzero(~ignored[best])
        bounds = _bounds(flat.text_of[chosen], len(texts))
        for number, text in enumerate(texts):
            which = chosen[bounds[number] : bounds[number + 1]]
            start, end = flat.start[which], flat.end[which]
            units = (convert(text, each, options.offset_unit).tolist() for each in (start, end))
            for each, a, b, c, d in zip(which, start.tolist(), end.tolist(), *units, strict=True):
                label = best[each]
                out[number].append(
                    Span(
                        text[a:b],
                        self._scheme.labels[label],
                        shown[each, label],
                        c,
                        d,
                        int(flat.ids[each]),
                        shown[each],
                    )
                )
        return out

    def _each_token_once(
        self,
        texts: Sequence[str],
        encoded: Sequence[EncodedText],
        logits: Sequence[FloatArray],
    ) -> _Flat:
        """Tokens in text order, those that windows share counted in one of them."""
        forward: list[EncodedText] = []
        scores: list[FloatArray] = []
        rows = iter(logits)
        for text in encoded:
            own = [next(rows) for _ in text.windows]
            step = -1 if text.backward else 1
            forward.append(replace(text, windows=text.windows[::step], backward=False))
            scores += own[::step]
        chosen = [mask for text in forward for mask in owned(text.windows, self._overlap)]
        return _Flat(texts, forward, chosen, scores)

    def _subword(self, texts: Sequence[str], flat: _Flat) -> BoolArray:
        facts = self._facts
        if facts.piece_lengths is not None:
            flags = subword_by_length(facts.piece_lengths[flat.ids], flat.start, flat.end)
        else:
            lengths = np.array([len(text) for text in texts], dtype=np.int64)
            flags = subword_by_space(texts, flat.text_of, flat.start, lengths[flat.text_of])
        return np.asarray(flags & (flat.ids != facts.unknown_id), dtype=np.bool_)


def _joined(parts: Sequence[npt.NDArray[ScalarT]]) -> npt.NDArray[ScalarT]:
    """The parts one after another; a lone one as it is."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _bounds(text_of: IntArray, texts: int) -> list[int]:
    """Where each text begins among items of which `text_of` (items,) tells it, and the end."""
    if texts == 1:
        return [0, len(text_of)]
    bounds: list[int] = np.searchsorted(text_of, np.arange(texts + 1)).tolist()
    return bounds


class _Flat:
    """Chosen tokens of all windows of all texts, one after another, as arrays."""

    def __init__(
        self,
        texts: Sequence[str],
        encoded: Sequence[EncodedText],
        chosen: Sequence[BoolArray],
        logits: Sequence[FloatArray],
    ) -> None:
        windows = [window for text in encoded for window in text.windows]
        self._windows, self._chosen = windows, chosen
        (at,) = _joined(chosen).nonzero()
        self.ids: IntArray = _joined([window.ids for window in windows])[at]
        offsets = _joined([window.offsets for window in windows])[at]
        self.start: IntArray = offsets[:, 0]
        self.end: IntArray = offsets[:, 1]
        self.logits: FloatArray = _joined(logits)[at]
        if len(windows) == 1:  # the usual request: few steps count more than few elements
            self.text_of: IntArray = np.zeros(len(at), dtype=np.int64)
            self.row_starts: BoolArray = np.zeros(len(at), dtype=np.bool_)
            self.row_starts[:1] = True
            return
        counts = [np.count_nonzero(mask) for mask in chosen]
        text_of_window = np.repeat(np.arange(len(texts)), [len(text.windows) for text in encoded])
        self.text_of = np.repeat(text_of_window, counts)
        self.row_starts = np.zeros(len(self.ids), dtype=np.bool_)
        ends = np.cumsum(counts)
        self.row_starts[(ends - counts)[np.array(counts) > 0]] = True

    def pieces(self, low: int, high: int) -> list[str]:
        """Vocabulary pieces of tokens [low, high)."""
        if not hasattr(self, "_pieces"):
            self._pieces = [
                piece
                for window, mask in zip(self._windows, self._chosen, strict=True)
                for piece, kept in zip(window.pieces, mask.tolist(), strict=True)
                if kept
            ]
        return self._pieces[low:high]
