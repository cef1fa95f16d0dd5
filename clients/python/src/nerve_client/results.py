"""What comes back: the same values over HTTP and gRPC; scores are the server's float32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


class Answer(list[T]):
    """A list of results that also tells who answered.

    `model` and `version` are those of the last request where one call took several; they are ""
    if there was no text to send. `truncated_texts` is how many texts were cut because they are
    longer than the model.
    """

    __slots__ = ("model", "truncated_texts", "version")

    def __init__(
        self,
        results: Iterable[T] = (),
        *,
        model: str = "",
        version: str = "",
        truncated_texts: int = 0,
    ) -> None:
        super().__init__(results)
        self.model, self.version, self.truncated_texts = model, version, truncated_texts


def joined(parts: Sequence[Answer[T]]) -> Answer[T]:
    """One answer of those to the parts of a request, in order."""
    return Answer(
        (result for part in parts for result in part),
        model=parts[-1].model if parts else "",
        version=parts[-1].version if parts else "",
        truncated_texts=sum(part.truncated_texts for part in parts),
    )


def only(answer: Answer[list[T]]) -> Answer[T]:
    """The answer to a single text."""
    (results,) = answer
    return Answer(
        results,
        model=answer.model,
        version=answer.version,
        truncated_texts=answer.truncated_texts,
    )


@dataclass(frozen=True, slots=True)
class Entity:
    """`text[start:end]` is a `label`; offsets are code points unless others were asked for."""

    text: str
    label: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class TokenResult:
    """An entity, or a token (aggregation `none`); `results` is label to score.

    `token` is the slice of the text; `token_id` is 0 unless it is a token.
    """

    token: str
    token_id: int
    start: int
    end: int
    results: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the model with its logits.

    `token` is the piece of the vocabulary; `scores` has a logit for each label, in the order of
    `ModelStatus.labels`; `label` is the best of them, and `score` its logit.
    """

    token: str
    token_id: int
    start: int
    end: int
    scores: tuple[float, ...]
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """A line of the list of models.

    `state` is READY, LOADING, UNLOADING or UNAVAILABLE: of the version that answers, or the best;
    `reason` says why it is not READY, or what is wrong although it is.
    """

    name: str
    state: str
    reason: str
    versions: tuple[str, ...]
    default: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """What one text, one run and the queue may hold.

    `max_tokens` of a text, special ones counted; `stride` tokens are shared by windows over long
    texts, None when these are cut; rows and tokens (padding counted) of a run; texts that may wait.
    """

    max_tokens: int
    stride: int | None
    max_batch_size: int
    max_num_tokens: int
    max_queue_size: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """Totals since the version was loaded; `padding_waste` is a share of the tokens run."""

    batches: int
    rows: int
    tokens: int
    padded_tokens: int
    queued_rows: int
    mean_batch_size: float
    padding_waste: float


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version of a model; what follows `reason` is empty or None unless it is READY."""

    version: str
    state: str
    reason: str
    device: str | None = None
    labels: tuple[str, ...] = ()
    limits: Limits | None = None
    statistics: Statistics | None = None


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """All about a model; `labels` and `limits` are those of the version that answers, if any.

    `config_override` tells whether it was loaded with a config that is not the one on the disk.
    """

    name: str
    task: str
    state: str
    reason: str
    default: bool
    labels: tuple[str, ...]
    limits: Limits | None
    config_override: bool
    versions: tuple[VersionStatus, ...]
