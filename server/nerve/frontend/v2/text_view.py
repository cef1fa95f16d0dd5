"""The text view: TEXT in, one JSON document a text out (kserve-v2, 10)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Final, TypeVar

import orjson

from nerve.errors import EmptyInput, InvalidField, shown
from nerve.frontend.v2.tensors import BYTES, InputTensor, OutputTensor, shown_shape
from nerve.frontend.v2.views import ENTITIES, LABELS, TEXT, TOKENS
from nerve.offload import offload, small_answer
from nerve.service.filtering import SpanFilter
from nerve.service.inference import Call, InferenceService, SpanRequest
from nerve.types import CutOptions, ModelInfo, Span, TokenAnswer, TokenTags
from nerve.words import OffsetUnit, Side, Strategy

OUTPUTS: Final = (ENTITIES, LABELS, TOKENS)
PARAMETERS: Final = (
    "aggregation", "threshold", "labels", "ignore_labels", "raw_scores", "offset_unit", "truncate",
    "truncation_side",
)  # fmt: skip
Parameters = Mapping[str, bool | int | float | str]
ChoiceT = TypeVar("ChoiceT", bound=StrEnum)


async def run_text(
    inference: InferenceService,
    call: Call,
    inputs: Sequence[InputTensor],
    outputs: Sequence[str],
    parameters: Parameters,
) -> tuple[ModelInfo, list[OutputTensor], int]:
    """Answer a request for the text view: who answered, the outputs, how many texts were cut.

    Args:
        inference, call: see `InferenceService.spans`.
        inputs: must be TEXT alone, (texts, 1) or (texts,), no more than the model's batch size.
        outputs: some of `OUTPUTS`; none means ENTITIES.
        parameters: some of `PARAMETERS`.
    Raises:
        InvalidField: the request does not fit; what `InferenceService.spans` raises.
    """
    text = _input(inputs)
    wanted = _outputs(outputs)
    request = _asked(parameters)
    texts = await offload(text.texts, inline=text.small)
    if "" in texts:
        raise EmptyInput(f"{text.place}, element {texts.index('')}")
    request = replace(request, texts=texts, check=lambda info: check_batch(text, info))
    tokens: TokenAnswer | None = None
    if wanted == [ENTITIES]:
        info, spans = await inference.spans(call, request)
    else:
        info, spans, tokens = await inference.spans_and_tokens(call, request)
    statistics = spans.statistics

    def write() -> list[OutputTensor]:
        data = {ENTITIES: [entities(each) for each in spans.spans]}
        if tokens is not None:
            data[LABELS] = [labels(each, info) for each in tokens.texts]
            data[TOKENS] = [pieces(each) for each in tokens.texts]
        return [OutputTensor(name, BYTES, text.shape, data[name]) for name in wanted]

    inline = small_answer(len(texts), statistics.tokens)
    return info, await offload(write, inline=inline), statistics.truncated_texts


def entities(spans: Sequence[Span]) -> bytes:
    """JSON of a text's entities; scores as the shortest decimals that read back as float32."""
    return orjson.dumps(
        [
            {
                "text": span.text,
                "label": span.label,
                "start": span.start,
                "end": span.end,
                "score": span.score,
            }
            for span in spans
        ],
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def labels(tags: TokenTags, info: ModelInfo) -> bytes:
    """JSON of the label of each of a text's tokens."""
    return orjson.dumps([info.labels[best] for best in tags.best.tolist()])


def pieces(tags: TokenTags) -> bytes:
    """JSON of a text's tokens, in the order of `labels`."""
    rows = zip(tags.pieces, tags.ids, tags.start, tags.end, strict=True)
    return orjson.dumps(
        [
            {"token": piece, "token_id": number, "start": start, "end": end}
            for piece, number, start, end in rows
        ]
    )


def _input(inputs: Sequence[InputTensor]) -> InputTensor:
    if unknown := [each.name for each in inputs if each.name != TEXT]:
        raise InvalidField("inputs", f"there is no input {shown(unknown[0], 64)}; it takes {TEXT}")
    if not inputs:
        raise InvalidField("inputs", f"input {TEXT} is missing")
    text = inputs[0]
    text.check(BYTES)
    if len(text.shape) not in (1, 2) or text.shape[1:] not in ((), (1,)):
        fault = f"expected shape [texts,1] or [texts], got {shown_shape(text.shape)}"
        raise InvalidField(text.place, fault)
    check_rows(text)
    return text


def check_rows(tensor: InputTensor) -> None:
    """See that there is something in a batch.

    Raises:
        InvalidField.
    """
    if not tensor.shape[0]:
        raise InvalidField(tensor.place, "a batch of 0; send at least one")


def check_batch(tensor: InputTensor, info: ModelInfo) -> None:
    """See that a batch is not too large for the model.

    Raises:
        InvalidField.
    """
    rows, limit = tensor.shape[0], info.max_batch_size
    if rows > limit:
        fault = f"a batch of {rows}, but the model takes 1 to {limit} (its max_batch_size)"
        raise InvalidField(tensor.place, fault)


def _outputs(names: Sequence[str]) -> list[str]:
    if unknown := [name for name in names if name not in OUTPUTS]:
        known = ", ".join(OUTPUTS)
        raise InvalidField(
            "outputs", f"there is no output {shown(unknown[0], 64)}; there are {known}"
        )
    return list(names) or [ENTITIES]


def _asked(parameters: Parameters) -> SpanRequest:
    """What the parameters ask for, without texts."""
    if unknown := [name for name in parameters if name not in PARAMETERS]:
        known = (*PARAMETERS, "priority", "timeout")
        near = difflib.get_close_matches(unknown[0][:64], known, 1)
        hint = f"did you mean {near[0]}? There are" if near else "there are"
        fault = f"there is no {shown(unknown[0])}; {hint} {', '.join(known)}"
        raise InvalidField("parameters", fault)
    ignored = _names(parameters, "ignore_labels")
    return SpanRequest(
        texts=(),
        default_strategy=Strategy.SIMPLE,
        strategy=_choice(parameters, "aggregation", Strategy),
        ignore_labels=frozenset({"O"}) if ignored is None else ignored,
        raw_scores=_flag(parameters, "raw_scores", default=False),
        offset_unit=_choice(parameters, "offset_unit", OffsetUnit),
        cut=CutOptions(
            truncate=_flag(parameters, "truncate", default=True),
            side=_choice(parameters, "truncation_side", Side),
        ),
        only=SpanFilter(_number(parameters, "threshold"), _names(parameters, "labels") or None),
    )


def _wrong(name: str, expected: str, value: object) -> InvalidField:
    return InvalidField(f"parameters.{name}", f"expected {expected}, got {shown(value, 60)}")


def _choice(parameters: Parameters, name: str, kind: type[ChoiceT]) -> ChoiceT | None:
    value = parameters.get(name)
    if value is None:
        return None
    try:
        return kind(value)  # type: ignore[arg-type]  # a wrong type is a wrong value, too
    except ValueError:
        raise _wrong(name, f"one of {', '.join(kind)}", value) from None


def _flag(parameters: Parameters, name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise _wrong(name, "true or false", value)
    return value


def _number(parameters: Parameters, name: str) -> float | None:
    value = parameters.get(name)
    if value is None:
        return None
    if isinstance(value, bool | str):
        raise _wrong(name, "a number", value)
    return float(value)


def _names(parameters: Parameters, name: str) -> frozenset[str] | None:
    """Names separated by commas; none at all is a list without any."""
    value = parameters.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise _wrong(name, "names separated by commas", value)
    return frozenset(each.strip() for each in value.split(",") if each.strip())
