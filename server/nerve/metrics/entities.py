"""What models find: entities by label, and how sure of them they are."""

from __future__ import annotations

import collections
import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from nerve.metrics.buckets import SCORES
from nerve.metrics.copies import Copies
from nerve.metrics.tally import Bins
from nerve.types import FloatArray, Span, TokenTags, group_of

OUTSIDE: Final = "O"
_BEGINS: Final = ("B-", "S-", "U-")
"""Labels that begin an entity whatever stands before: also those of BIOES and BILOU."""
_ROUNDING: Final = 1e-3


class Found(NamedTuple):
    """Entities of one answer: the label of each, without prefix, and the probabilities of those
    that have one."""

    labels: list[str]
    scores: list[float]


def in_spans(spans: Sequence[Sequence[Span]], *, tokens: bool, raw_scores: bool) -> Found:
    """The entities in spans, by text. Pure.

    Args:
        spans: as the model gave them, before a request's filters.
        tokens: each span is a token (strategy `none`), so an entity is counted where it begins.
        raw_scores: the scores are logits, which say nothing without their rows.
    """
    labels: list[str] = []
    scores: list[float] = []
    for text in spans:
        before = ""
        for span in text:
            group = group_of(span.label) if tokens else span.label
            if group != OUTSIDE and _begins(span.label, group, before if tokens else ""):
                labels.append(group)
                if not raw_scores:
                    scores.append(float(span.score))
            before = group
    return Found(labels, scores)


def in_tags(texts: Iterable[TokenTags], names: Sequence[str]) -> Found:
    """The entities in tagged tokens, each counted at the token that begins it. Pure.

    Args:
        texts: of one answer.
        names: the model's labels.
    """
    labels: list[str] = []
    scores: list[float] = []
    groups = _groups(tuple(names))
    for text in texts:
        before = ""
        for place, best in enumerate(text.best.tolist()):
            group = groups[best]
            if group and _begins(names[best], group, before):
                labels.append(group)
                if text.logits.shape[1] == len(names):
                    scores.append(_probability(text.logits[place], best))
            before = group
    return Found(labels, scores)


@functools.lru_cache(maxsize=256)
def _groups(names: tuple[str, ...]) -> list[str]:
    """What an entity with each of the labels is called, "" for those outside of any."""
    groups = map(group_of, names)
    return ["" if group == OUTSIDE else group for group in groups]


def _begins(label: str, group: str, before: str) -> bool:
    return group != before or label.startswith(_BEGINS)


def _probability(row: FloatArray, best: int) -> float:
    """Of a label, from the scores of all (labels,): logits, or a transform's probabilities."""
    scores = row.tolist()
    own = scores[best]
    if own <= 1 and min(scores) >= 0 and abs(sum(scores) - 1) < _ROUNDING:
        return float(own)
    try:
        return 1 / sum([math.exp(score - own) for score in scores])
    except OverflowError:
        return 0.0


@dataclass(slots=True)
class _Tally:
    labels: collections.Counter[str] = field(default_factory=collections.Counter)
    scores: Bins = field(default_factory=lambda: Bins(SCORES))


class EntityMetrics(Collector):
    """Entities of answers, by model. Counted in plain numbers, made into samples when asked.

    Labels are the model's own, so there are never more than it has.
    """

    def __init__(self, registry: CollectorRegistry, copies: Copies) -> None:
        self._models: dict[str, _Tally] = {}
        copies.follow(models=(self,))
        registry.register(self)

    def observe(self, model: str, found: Found) -> None:
        """Count the entities of an answer."""
        tally = self._models.get(model)
        if tally is None:
            tally = self._models[model] = _Tally()
        tally.labels.update(found.labels)
        tally.scores.observe(found.scores)

    def remove_by_labels(self, labels: dict[str, str]) -> None:
        """See `nerve.metrics.copies.Removable`."""
        self._models.pop(labels["model"], None)

    def collect(self) -> Iterable[CounterMetricFamily | HistogramMetricFamily]:
        """From any thread."""
        entities = CounterMetricFamily(
            "nerve_entities", "Entities found, by label without prefix", labels=["model", "label"]
        )
        scores = HistogramMetricFamily(
            "nerve_entity_score", "Probability of each entity found", labels=["model"]
        )
        for model, tally in list(self._models.items()):
            for label, count in list(tally.labels.items()):
                entities.add_metric([model, label], count)
            buckets, total = tally.scores.read()
            scores.add_metric([model], buckets, total)
        return entities, scores
