"""The tool `extract_entities`: texts in, entities out, with any of the models."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import mcp_types as types
import orjson
from pydantic import BaseModel, Field

from nerve.config.server import ServerConfig
from nerve.errors import InvalidField
from nerve.frontend.http.body import OffsetUnitName, Strings, check
from nerve.frontend.mcp.calls import presentable
from nerve.frontend.mcp.list_models import entity_labels
from nerve.frontend.mcp.results import READ_ONLY, check_size, refusal, structured
from nerve.offload import offload, small_answer
from nerve.service.control import ControlService
from nerve.service.filtering import SpanFilter
from nerve.service.inference import Call, InferenceService, SpanRequest
from nerve.types import ModelInfo, Span, SpanAnswer
from nerve.words import OffsetUnit, Strategy

SHOWN_MODELS: Final = 20
"""Most models that the description names."""
ENTITY_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "description": "The stretch of the text."},
        "label": {"type": "string", "description": "Its kind, for example PER or LOC."},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "start": {"type": "integer", "minimum": 0, "description": "Where it begins."},
        "end": {"type": "integer", "minimum": 0, "description": "Where what follows it begins."},
    },
    "required": ["text", "label", "score", "start", "end"],
    "additionalProperties": False,
}
OUTPUT_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "model": {"type": "string", "description": "The model that answered."},
        "version": {"type": "string", "description": "Its version."},
        "results": {
            "type": "array",
            "description": "One item a text, in the order of the texts.",
            "items": {
                "type": "object",
                "properties": {"entities": {"type": "array", "items": ENTITY_SCHEMA}},
                "required": ["entities"],
                "additionalProperties": False,
            },
        },
        "truncated_texts": {
            "type": "integer",
            "minimum": 0,
            "description": "How many texts were longer than the model takes, and were cut.",
        },
    },
    "required": ["model", "version", "results", "truncated_texts"],
    "additionalProperties": False,
}


class Arguments(BaseModel):
    """What a caller may say; None is "not said"."""

    text: str | None = None
    texts: Strings | None = None
    model: str | None = None
    labels: Annotated[Strings, Field(max_length=1024)] | None = None
    threshold: float | None = None
    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] | None = None
    offset_unit: OffsetUnitName | None = None

    @property
    def given(self) -> list[str]:
        """The texts.

        Raises:
            InvalidField: not exactly one of the two fields is there.
        """
        if self.text is not None and self.texts is not None:
            raise InvalidField("text", "give either text or texts, not both")
        if self.texts is not None:
            return self.texts
        if self.text is None:
            raise InvalidField("text", "give text, or texts for several")
        return [self.text]


def read(arguments: Mapping[str, Any]) -> Arguments:
    """Check what a caller sent. Pure.

    Raises:
        InvalidField.
    """
    for name in arguments:
        if name not in Arguments.model_fields:
            fault = f"there is no such argument; there are {', '.join(Arguments.model_fields)}"
            raise InvalidField(f"{name:.64}", fault)
    return check(dict(arguments), Arguments)


class ExtractEntities:
    """Finds entities."""

    name = "extract_entities"

    def __init__(
        self, inference: InferenceService, control: ControlService, config: ServerConfig
    ) -> None:
        self._inference, self._control, self._config = inference, control, config

    def describe(self) -> types.Tool:
        """See `Tool.describe`; names the models that are ready now, and what they find."""
        return types.Tool(
            name=self.name,
            title="Extract entities",
            description="Finds named entities (people, places, organisations, or whatever the "
            "model was trained for) in one text or several, and tells their place, label and "
            "score.",
            input_schema={"type": "object", "properties": self._properties()},
            output_schema=OUTPUT_SCHEMA,
            annotations=READ_ONLY,
        )

    def _properties(self) -> dict[str, object]:
        return {
            "text": {"type": "string", "description": "The text; or else give texts."},
            "texts": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Several texts, none of them empty, at most "
                f"{self._config.max_inputs}.",
            },
            "model": {"type": "string", "description": self._models()},
            "labels": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Only entities with one of these labels; an empty list is all of them.",
            },
            "threshold": {
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "description": "Only entities with this score at least.",
            },
            "aggregation_strategy": {
                "type": "string",
                "enum": [each.value for each in Strategy],
                "description": "How word pieces become entities. Leave it out unless asked for; "
                "none gives single word pieces.",
            },
            "offset_unit": {
                "type": "string",
                "enum": [each.value for each in OffsetUnit],
                "description": "What start and end count; by default characters (code points).",
            },
        }

    def _models(self) -> str:
        rows = [
            f"{model.name}{' (default)' if model.default else ''}: {', '.join(entity_labels(labels))}"
            for model in self._control.models()
            if (labels := self._control.model(model.name).labels) is not None
        ]
        more = "; …" if len(rows) > SHOWN_MODELS else ""
        listed = "; ".join(rows[:SHOWN_MODELS]) or "none yet"
        return f"A model, by default the server's. Ready now, with their labels: {listed}{more}."

    async def call(self, arguments: Mapping[str, Any]) -> types.CallToolResult:
        """Entities, or what was wrong as a result that the caller reads."""
        single = arguments.get("texts") is None
        try:
            return await self._result(read(arguments))
        except Exception as error:  # noqa: BLE001  boundary: one call
            return refusal(presentable(error), single=single)

    async def _result(self, asked: Arguments) -> types.CallToolResult:
        now, texts = time.monotonic(), asked.given
        call = Call(
            asked.model, None, self._inference.deadline(now), self._config.max_inputs, arrived=now
        )
        request = SpanRequest(
            texts,
            default_strategy=Strategy.SIMPLE,
            strategy=Strategy(asked.aggregation_strategy) if asked.aggregation_strategy else None,
            offset_unit=OffsetUnit(asked.offset_unit) if asked.offset_unit else None,
            only=SpanFilter(asked.threshold, frozenset(asked.labels or ()) or None),
        )
        info, answer = await self._inference.spans(call, request)
        check_size(sum(map(len, answer.spans)), "entities")
        small = small_answer(len(texts), answer.statistics.tokens)
        return await offload(lambda: render(info, answer), inline=small)


def render(info: ModelInfo, answer: SpanAnswer) -> types.CallToolResult:
    """The result, for readers and for programs. Pure."""
    structure = {
        "model": info.name,
        "version": str(info.version),
        "results": [{"entities": [_entity(span) for span in spans]} for spans in answer.spans],
        "truncated_texts": answer.statistics.truncated_texts,
    }
    # by way of JSON, so that scores have the decimals of float32
    written = orjson.loads(orjson.dumps(structure, option=orjson.OPT_SERIALIZE_NUMPY))
    return structured(_readable(info, answer), written)


def _entity(span: Span) -> dict[str, object]:
    return {
        "text": span.text,
        "label": span.label,
        "score": span.score,
        "start": span.start,
        "end": span.end,
    }


def _readable(info: ModelInfo, answer: SpanAnswer) -> str:
    lines = []
    for number, spans in enumerate(answer.spans, start=1):
        if len(answer.spans) > 1:
            lines.append(f"Text {number}:")
        lines += [
            f"{span.label}: {span.text!r} at {span.start} to {span.end}, score {span.score:.4f}"
            for span in spans
        ] or ["no entities"]
    if cut := answer.statistics.truncated_texts:
        lines.append(
            f"{cut} of {len(answer.spans)} texts were longer than the {info.max_tokens} tokens "
            "that the model takes, and were cut."
        )
    lines.append(f"(model {info.name}, version {info.version})")
    return "\n".join(lines)
