"""What counts as an entity, in spans and in tokens."""

from __future__ import annotations

import numpy as np
import pytest

from nerve.metrics.entities import Found, in_spans, in_tags
from nerve.types import FloatArray, Span, TokenTags

LABELS = ("O", "B-PER", "I-PER", "B-WORK-OF-ART", "LOC")


def span(label: str, score: float = 0.5) -> Span:
    return Span("x", label, np.float32(score), 0, 1, 0, None)


def tags(*labels: str, logits: FloatArray | None = None) -> TokenTags:
    best = np.array([LABELS.index(label) for label in labels], dtype=np.int64)
    if logits is None:
        logits = np.zeros((len(labels), len(LABELS)), dtype=np.float32)
        logits[np.arange(len(labels)), best] = 4.0
    place = list(range(len(labels)))
    score = logits.max(axis=1) if labels else np.zeros(0, dtype=np.float32)
    return TokenTags(["x"] * len(labels), place, place, place, logits, best, score)


def test_spans_are_entities() -> None:
    """All but `O`, two alike beside each other included."""
    spans = [[span("PER", 0.5), span("PER", 0.25), span("O")], [], [span("LOC", 1.0)]]
    found = in_spans(spans, tokens=False, raw_scores=False)
    assert found == Found(["PER", "PER", "LOC"], [0.5, 0.25, 1.0])


def test_raw_scores_are_no_probabilities() -> None:
    found = in_spans([[span("PER", 7.5)]], tokens=False, raw_scores=True)
    assert found == Found(["PER"], [])


SEQUENCES = [
    (["O", "B-PER", "I-PER", "O"], ["PER"]),
    (["B-PER", "B-PER"], ["PER", "PER"]),
    (["I-PER", "I-PER", "O", "I-PER"], ["PER", "PER"]),
    (["B-PER", "B-WORK-OF-ART", "I-PER"], ["PER", "WORK-OF-ART", "PER"]),
    (["LOC", "LOC", "O"], ["LOC"]),
    ([], []),
]


@pytest.mark.parametrize(("labels", "expected"), SEQUENCES)
def test_a_tagged_entity_counts_where_it_begins(labels: list[str], expected: list[str]) -> None:
    """In answers of tokens, and in those of spans that are tokens; a text begins anew."""
    given = [[span(label) for label in labels]] * 2
    assert in_spans(given, tokens=True, raw_scores=False).labels == expected * 2
    found = in_tags([tags(*labels)] * 2, LABELS)
    assert found.labels == expected * 2
    sure = np.exp(4) / (np.exp(4) + 4)
    assert found.scores == pytest.approx([sure] * 2 * len(expected))


def test_probabilities_of_a_transform_stay_what_they_are() -> None:
    """They are all at least 0 and 1 in sum."""
    row = np.array([[0.25, 0.5, 0.125, 0.125, 0.0]], dtype=np.float32)
    assert in_tags([tags("B-PER", logits=row)], LABELS).scores == [0.5]


def test_chosen_labels_have_no_probability() -> None:
    """There is one logit a token."""
    chosen = tags("B-PER", logits=np.array([[3.0]], dtype=np.float32))
    assert in_tags([chosen], LABELS) == Found(["PER"], [])


def test_logits_however_far_apart() -> None:
    row = np.array([[-3e38, 3e38, 0, 0, 0]], dtype=np.float32)
    assert in_tags([tags("B-PER", logits=row)], LABELS).scores == [1.0]
    against = np.array([[3e38, -3e38, 0, 0, 0]], dtype=np.float32)  # the label is not the best one
    (score,) = in_tags([tags("B-PER", logits=against)], LABELS).scores
    assert score == pytest.approx(0.0, abs=1e-300)
