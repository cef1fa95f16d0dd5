"""Which of the spans that a model found a caller wants: by score and by label. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nerve.errors import InvalidField
from nerve.types import ModelInfo, Span, group_of


@dataclass(frozen=True, slots=True)
class SpanFilter:
    """Spans with a score of `threshold` at least, and one of `labels`; None takes all.

    A label is named as the model has it ("B-PER") or without its prefix ("PER"), which is the same
    for entities; of single tokens the former means less.
    """

    threshold: float | None = None
    labels: frozenset[str] | None = None

    @property
    def takes_all(self) -> bool:
        """Whether there is nothing to leave out."""
        return self.threshold is None and self.labels is None

    def check(self, info: ModelInfo, *, raw_scores: bool) -> None:
        """See that it can be meant.

        Args:
            info: of the version that answers.
            raw_scores: whether scores are logits, and not probabilities.
        Raises:
            InvalidField: the threshold is no such score, or the model has no such label.
        """
        if self.threshold is not None:
            if raw_scores and not math.isfinite(self.threshold):
                raise InvalidField("threshold", f"expected a finite number, got {self.threshold}")
            if not raw_scores and not 0 <= self.threshold <= 1:
                fault = f"expected a score from 0 to 1, got {self.threshold:g}"
                raise InvalidField("threshold", fault)
        if self.labels is not None:
            groups = set(map(group_of, info.labels))
            if unknown := sorted(self.labels - groups - set(info.labels)):
                known = ", ".join(sorted(groups - {"O"}))
                raise InvalidField(
                    "labels", f"{unknown[0]!r:.60} is no label of {info.name!r}; it has {known}"
                )

    def keep(self, spans: list[list[Span]], info: ModelInfo) -> list[list[Span]]:
        """What is left of the spans of each text; `info` is of the version that found them."""
        # A group may have a hyphen of its own: what is no label of the model is one.
        groups = frozenset(
            group_of(label) if label in info.labels else label for label in self.labels or ()
        )
        return [[span for span in text if self._wanted(span, groups)] for text in spans]

    def _wanted(self, span: Span, groups: frozenset[str]) -> bool:
        if self.threshold is not None and span.score < self.threshold:
            return False
        if self.labels is None:
            return True
        if span.scores is None:  # of several tokens: its label has no prefix
            return span.label in groups
        return span.label in self.labels or group_of(span.label) in self.labels


TAKE_ALL = SpanFilter()
