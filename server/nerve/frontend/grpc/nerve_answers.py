"""Answers of nerve.v1: the service's results as messages. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from nerve._proto.nerve.v1 import nerve_pb2 as pb
from nerve.service import control
from nerve.types import Span, TokenTags


def entities(spans: Sequence[Span]) -> pb.Entities:
    """Those of one text."""
    return pb.Entities(
        entities=[
            pb.Entity(
                text=span.text,
                label=span.label,
                start=span.start,
                end=span.end,
                score=float(span.score),
            )
            for span in spans
        ]
    )


def token_results(
    spans: Sequence[Span], labels: tuple[str, ...], *, all_scores: bool
) -> pb.TokenResults:
    """Those of one text; with `all_scores` the whole row of each token, where there is one."""
    return pb.TokenResults(
        tokens=[
            pb.TokenResult(
                token=span.text,
                token_id=span.token_id,
                start=span.start,
                end=span.end,
                results=(
                    dict(zip(labels, span.scores.tolist(), strict=True))
                    if all_scores and span.scores is not None
                    else {span.label: float(span.score)}
                ),
            )
            for span in spans
        ]
    )


def tokens(tags: TokenTags, labels: tuple[str, ...]) -> pb.Tokens:
    """Those of one text."""
    rows = zip(
        tags.pieces,
        tags.ids,
        tags.start,
        tags.end,
        tags.logits.tolist(),
        tags.best.tolist(),
        tags.score.tolist(),
        strict=True,
    )
    return pb.Tokens(
        tokens=[
            pb.Token(
                token=piece,
                token_id=number,
                start=start,
                end=end,
                scores=scores,
                label=labels[best],
                score=score,
            )
            for piece, number, start, end, scores, best, score in rows
        ]
    )


def model_list(models: Sequence[control.ModelSummary]) -> pb.ListModelsResponse:
    """Every model."""
    return pb.ListModelsResponse(
        models=[
            pb.ModelSummary(
                name=model.name,
                state=model.state.value,
                reason=model.reason,
                versions=model.versions,
                default=model.default,
            )
            for model in models
        ]
    )


def model_status(model: control.ModelStatus) -> pb.GetModelResponse:
    """One model with its versions."""
    return pb.GetModelResponse(
        name=model.name,
        task=model.task,
        state=model.state.value,
        reason=model.reason,
        default=model.default,
        labels=model.labels,
        limits=_limits(model.limits),
        config_override=model.config_override,
        versions=[_version(version) for version in model.versions],
    )


def _version(version: control.VersionStatus) -> pb.ModelVersion:
    return pb.ModelVersion(
        version=version.version,
        state=version.state.value,
        reason=version.reason,
        device=version.device,
        labels=version.labels,
        limits=_limits(version.limits),
        statistics=_statistics(version.statistics),
    )


def _limits(limits: control.Limits | None) -> pb.Limits | None:
    if limits is None:
        return None
    return pb.Limits(
        max_tokens=limits.max_tokens,
        stride=limits.stride,
        max_batch_size=limits.max_batch_size,
        max_num_tokens=limits.max_num_tokens,
        max_queue_size=limits.max_queue_size,
    )


def _statistics(statistics: control.Statistics | None) -> pb.Statistics | None:
    if statistics is None:
        return None
    return pb.Statistics(
        batches=statistics.batches,
        rows=statistics.rows,
        tokens=statistics.tokens,
        padded_tokens=statistics.padded_tokens,
        queued_rows=statistics.queued_rows,
        mean_batch_size=statistics.mean_batch_size,
        padding_waste=statistics.padding_waste,
    )
