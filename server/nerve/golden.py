"""Runs the texts of `golden.jsonl`, which a version must know before it is served, and judges."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from nerve.config.model import ModelConfig, QualityGate
from nerve.errors import ModelLoadFailed, NerveError
from nerve.golden_texts import Example, Expected, GoldenReport, load_golden, score
from nerve.offload import offload
from nerve.types import Span, SpanAnswer, SpanOptions, VersionFiles
from nerve.words import Strategy

TEXTS_PER_CALL: Final = 256
"""Enough to fill the batches of every instance. One call at a time never finds its queue full."""
_ROUNDING: Final = 1e-9
"""A loss that is just allowed must not fail for how fractions are stored."""


class Tagger(Protocol):
    """What is needed of a `nerve.types.ServedModel` here."""

    async def spans(
        self, texts: Sequence[str], options: SpanOptions, *, deadline: float | None
    ) -> SpanAnswer:
        """See there."""

    async def aclose(self) -> None:
        """See there."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model found in the texts of a file, and how good that is."""

    examples: tuple[Example, ...]
    found: tuple[tuple[Span, ...], ...]
    report: GoldenReport


async def check_golden(model: Tagger, path: Path, config: ModelConfig) -> GoldenReport:
    """Tag the texts of a file and compare.

    Raises:
        ModelLoadFailed: the file cannot be used, or the model fails on a text.
    """
    return (await answer_golden(model, path, config)).report


async def answer_golden(model: Tagger, path: Path, config: ModelConfig) -> Answers:
    """As `check_golden`, with what was found."""
    examples = await offload(lambda: load_golden(path), inline=False)
    strategy = config.aggregation_strategy or Strategy.MAX
    # Single tokens are no entities.
    options = SpanOptions(Strategy.MAX if strategy is Strategy.NONE else strategy)
    found: list[tuple[Span, ...]] = []
    for first in range(0, len(examples), TEXTS_PER_CALL):
        texts = [each.text for each in examples[first : first + TEXTS_PER_CALL]]
        try:
            answer = await model.spans(texts, options, deadline=None)
        except NerveError as error:
            raise ModelLoadFailed(f"{path.name} cannot be run: {error}") from error
        found += map(tuple, answer.spans)
    report = await offload(lambda: score(examples, found), inline=False)
    return Answers(examples, tuple(found), report)


def enforce(report: GoldenReport, gate: QualityGate) -> None:
    """Let a good model pass.

    Raises:
        ModelLoadFailed: it is not, with its F1 and the first differences.
    """
    if report.f1 < gate.min_f1:
        raise ModelLoadFailed(report.told(f", quality_gate wants {gate.min_f1:g}"))


async def answers_before(
    files: VersionFiles | None,
    config: ModelConfig,
    load: Callable[[VersionFiles], Awaitable[Tagger]],
) -> Answers | None:
    """What a version finds before it is converted; None if it is not, or if there are no texts.

    Args:
        files: of the version with its own graph, None if that is what is served.
        config: of the version.
        load: opens it; it is closed here.
    Raises:
        ModelLoadFailed: it cannot be loaded, or fails on a text.
    """
    if files is None or files.golden is None:
        return None
    model = await load(files)
    try:
        return await answer_golden(model, files.golden, config)
    finally:
        await model.aclose()


def enforce_conversion(before: Answers, after: Answers, config: ModelConfig) -> None:
    """Let a converted graph pass that finds as much as the graph as it was.

    Raises:
        ModelLoadFailed: it does not, with both F1 and the first texts that they disagree on.
    """
    allowed, precision = config.optimization.max_f1_loss, config.optimization.precision
    was, became = before.report.f1, after.report.f1
    if was - became <= allowed + _ROUNDING:
        return
    as_before = tuple(
        Example(example.text, tuple(_as_expected(span, example.text) for span in spans))
        for example, spans in zip(before.examples, before.found, strict=True)
    )
    told = (
        f"its conversion to {precision} loses too much: F1 {became:.4f} on golden.jsonl, "
        f"{was:.4f} before it; max_f1_loss allows {allowed:g}"
    )
    raise ModelLoadFailed(score(as_before, after.found).with_differences(told))


def _as_expected(span: Span, text: str) -> Expected:
    return Expected(span.label, text[span.start : span.end], (span.start, span.end))


async def check_gate(
    model: Tagger, files: VersionFiles, config: ModelConfig, *, before: Answers | None = None
) -> GoldenReport | None:
    """Run the golden texts of a version that has to pass something; the report of its quality gate,
    None without one.

    Args:
        model: the version, loaded.
        files, config: of the version.
        before: what its graph found before it was converted.
    Raises:
        ModelLoadFailed: it does not pass, or there is no file to tell.
    """
    gate = config.quality_gate
    if gate is None and before is None:
        return None
    if files.golden is None:
        raise ModelLoadFailed("quality_gate needs golden.jsonl beside the model")
    answers = await answer_golden(model, files.golden, config)
    if before is not None:
        enforce_conversion(before, answers, config)
    if gate is None:
        return None
    enforce(answers.report, gate)
    return answers.report
