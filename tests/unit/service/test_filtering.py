"""Which spans a caller wants."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from nerve.errors import InvalidField
from nerve.service.filtering import TAKE_ALL, SpanFilter
from nerve.types import ModelInfo, Span

INFO = ModelInfo(
    name="ner",
    version=1,
    labels=("O", "B-PER", "I-PER", "B-WORK-OF-ART"),
    max_tokens=8,
    max_batch_size=1,
    max_num_tokens=8,
    max_queue_size=1,
    stride=None,
    device="cpu",
    aggregation_strategy=None,
    offset_unit=None,
)


def span(label: str, score: float) -> Span:
    """A token if its label has a prefix, else an entity."""
    scores = np.zeros(4, np.float32) if label[:2] == "B-" else None
    return Span("x", label, np.float32(score), 0, 1, 0, scores)


SPANS = [[span("PER", 0.5), span("WORK-OF-ART", 0.9)], [span("B-PER", 0.75)], []]


@pytest.mark.parametrize(
    ("only", "labels"),
    [
        (TAKE_ALL, [["PER", "WORK-OF-ART"], ["B-PER"], []]),
        (SpanFilter(0.5), [["PER", "WORK-OF-ART"], ["B-PER"], []]),
        (SpanFilter(0.75), [["WORK-OF-ART"], ["B-PER"], []]),
        (SpanFilter(labels=frozenset({"PER"})), [["PER"], ["B-PER"], []]),
        (SpanFilter(labels=frozenset({"B-PER"})), [["PER"], ["B-PER"], []]),
        (SpanFilter(labels=frozenset({"I-PER"})), [["PER"], [], []]),
        (SpanFilter(0.6, frozenset({"PER", "WORK-OF-ART"})), [["WORK-OF-ART"], ["B-PER"], []]),
    ],
)
def test_by_score_and_label(only: SpanFilter, labels: list[list[str]]) -> None:
    only.check(INFO, raw_scores=False)
    assert [[each.label for each in text] for text in only.keep(SPANS, INFO)] == labels


@pytest.mark.parametrize(
    ("only", "fault"),
    [
        (SpanFilter(float("nan")), "threshold: expected a score from 0 to 1, got nan"),
        (SpanFilter(50), "threshold: expected a score from 0 to 1, got 50"),
        (SpanFilter(-0.5), "threshold: expected a score from 0 to 1, got -0.5"),
        (
            SpanFilter(labels=frozenset({"PER", "PERSON"})),
            "labels: 'PERSON' is no label of 'ner'; it has PER, WORK-OF-ART",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(only: SpanFilter, fault: str) -> None:
    with pytest.raises(InvalidField) as caught:
        only.check(INFO, raw_scores=False)
    assert str(caught.value) == fault


def test_logits_may_be_any_number() -> None:
    SpanFilter(-7.5).check(INFO, raw_scores=True)
    with pytest.raises(InvalidField, match="a finite number, got inf"):
        SpanFilter(float("inf")).check(INFO, raw_scores=True)


def test_labels_with_hyphens_and_no_prefix() -> None:
    """A group is named as transformers names it: what follows the first hyphen of its label."""
    info = dataclasses.replace(INFO, labels=("O", "LAW-ACT", "B-WORK-OF-ART"))
    found = [[span("ACT", 0.9), span("WORK-OF-ART", 0.9)]]
    for asked, kept in (("LAW-ACT", "ACT"), ("ACT", "ACT"), ("WORK-OF-ART", "WORK-OF-ART")):
        only = SpanFilter(labels=frozenset({asked}))
        only.check(info, raw_scores=False)
        assert [each.label for each in only.keep(found, info)[0]] == [kept]
