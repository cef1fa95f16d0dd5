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
from nerve.types import (
    BoolArray,
    FloatArray,
    IntArray,
    OffsetUnit,
    Span,
    SpanOptions,
    Strategy,
    TokenTags,
)

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
    ) -> list[list[Span]]:
        """Spans of each text, in text order.

        Args:
            texts, encoded: as many as there are texts.
            logits: (tokens, labels) float32 of each window, texts one after another; finite.
            options: strategy, what to ignore, raw scores, unit of the offsets.
        """
        if options.strategy is Strategy.NONE:
            return self._token_spans(texts, encoded, logits, options)
        windows = [window for text in encoded for window in text.windows]
        flat = _Flat(texts, encoded, [window.kept for window in windows], logits)
        groups = aggregate(
            Tokens(
                flat.logits if options.raw_scores else softmax(flat.logits),
                flat.row_starts,
                self._subword(texts, flat),
            ),
            self._scheme,
            options.strategy,
            options.ignore_labels,
        )
        start, end = flat.start[groups.first], flat.end[groups.last]
        text_of = flat.text_of[groups.first]
        names = self._scheme.groups
        out: list[list[Span]] = []
        for number, text in enumerate(texts):
            low, high = np.searchsorted(text_of, (number, number + 1))
            chosen: Sequence[int] = range(low, high)
            if len(encoded[number].windows) > 1:
                kept = merge(start[low:high], end[low:high], list(groups.score[low:high]))
                chosen = [int(low) + each for each in kept]
            ends = [(int(start[each]), int(end[each])) for each in chosen]
            told = convert(text, np.array(ends, dtype=np.int64), options.offset_unit).tolist()
            out.append(
                [
                    Span(text[a:b], names[groups.label[each]], groups.score[each], c, d, 0, None)
                    for each, (a, b), (c, d) in zip(chosen, ends, told, strict=True)
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
        bounds = np.searchsorted(flat.text_of, np.arange(len(texts) + 1)).tolist()
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
                )
            )
        return out

    def _token_spans(
        self,
        texts: Sequence[str],
        encoded: Sequence[EncodedText],
        logits: Sequence[FloatArray],
        options: SpanOptions,
    ) -> list[list[Span]]:
        flat = self._each_token_once(texts, encoded, logits)
        # Rounding can make two probabilities equal whose logits differ: always choose by the
        # probability, as transformers does.
        probabilities = softmax(flat.logits)
        best = probabilities.argmax(axis=1)
        shown = flat.logits if options.raw_scores else probabilities
        ignored = self._scheme.ignored(options.ignore_labels, of_groups=False)
        out: list[list[Span]] = [[] for _ in texts]
        chosen = np.flatnonzero(~ignored[best])
        text_of = flat.text_of[chosen]
        bounds = np.searchsorted(text_of, np.arange(len(texts) + 1))
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
        counts = [int(mask.sum()) for mask in chosen]
        self._windows, self._chosen = windows, chosen
        mask = _joined(chosen)
        self.ids: IntArray = _joined([window.ids for window in windows])[mask]
        offsets = _joined([window.offsets for window in windows])[mask]
        self.start: IntArray = offsets[:, 0]
        self.end: IntArray = offsets[:, 1]
        self.logits: FloatArray = _joined(logits)[mask]
        if len(windows) == 1:  # the usual request: few steps count more than few elements
            self.text_of: IntArray = np.zeros(counts[0], dtype=np.int64)
            self.row_starts: BoolArray = np.zeros(counts[0], dtype=np.bool_)
            self.row_starts[:1] = True
            return
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
