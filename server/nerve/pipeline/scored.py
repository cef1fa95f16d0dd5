"""Texts of one call with the scores of their tokens: the model's own, or what its transform made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nerve.pipeline.aggregation import softmax
from nerve.pipeline.windows import EncodedText
from nerve.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Scored:
    """Texts of one call, and the logits (tokens, labels) float32 of each of their windows.

    With a transform the logits are what it returned: `probabilities` tells that they are some, so
    that none need be made of them. Where it returned labels instead, `chosen` has those (tokens,) of
    each window, and the logits are the model's own.
    """

    texts: Sequence[str]
    encoded: Sequence[EncodedText]
    logits: Sequence[FloatArray]
    probabilities: bool = False
    chosen: Sequence[IntArray] | None = None

    @property
    def tokens(self) -> int:
        """In all windows."""
        return sum(map(len, self.logits))

    def chosen_logits(self) -> Scored:
        """With minus infinity as the logit of each label that was not chosen."""
        return replace(self, logits=self._only(self.logits, -np.inf), chosen=None)

    def chosen_probabilities(self) -> Scored:
        """With the model's own probability of each label that was chosen, and 0 for the others."""
        own = [softmax(logits) if len(logits) else logits for logits in self.logits]
        return replace(self, logits=self._only(own, 0.0), chosen=None, probabilities=True)

    def _only(self, values: Sequence[FloatArray], other: float) -> list[FloatArray]:
        assert self.chosen is not None
        kept = []
        for each, labels in zip(values, self.chosen, strict=True):
            only = np.full_like(each, other)
            at = np.arange(len(labels))
            only[at, labels] = each[at, labels]
            kept.append(only)
        return kept
