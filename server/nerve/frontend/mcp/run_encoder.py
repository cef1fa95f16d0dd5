"""The tool `run_encoder` of Encoderfile (its contract, section 6): /predict of the default model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import mcp_types as types
import orjson
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel

from nerve.config.server import ServerConfig
from nerve.errors import EmptyInput, InvalidField, NerveError, NoDefaultModel
from nerve.frontend.encoderfile_wording import wording
from nerve.frontend.http.body import Strings, StringsByKey, check
from nerve.frontend.http.encoderfile import render
from nerve.frontend.mcp.calls import presentable
from nerve.frontend.mcp.results import AnswerTooLarge, check_size
from nerve.frontend.status import retry_after_s
from nerve.offload import offload, small_answer
from nerve.service.inference import Call, InferenceService
from nerve.words import OffsetUnit

DESCRIPTION: Final = "Performs token classification of input text sequences."
INPUT_SCHEMA: Final = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "TokenClassificationRequest",
    "type": "object",
    "properties": {
        "inputs": {"type": "array", "items": {"type": "string"}},
        "metadata": {
            "type": "object",
            "nullable": True,
            "additionalProperties": {"type": "string"},
            "default": None,
        },
    },
    "required": ["inputs"],
}


class Arguments(BaseModel):
    """Texts, and what is echoed. Unknown arguments are ignored."""

    inputs: Strings
    metadata: StringsByKey | None = None


class RunEncoder:
    """Tags tokens."""

    name = "run_encoder"

    def __init__(self, inference: InferenceService, config: ServerConfig) -> None:
        self._inference, self._config = inference, config

    def describe(self) -> types.Tool:
        """See `Tool.describe`."""
        return types.Tool(name=self.name, description=DESCRIPTION, input_schema=INPUT_SCHEMA)

    async def call(self, arguments: Mapping[str, Any]) -> types.CallToolResult:
        """The body of /predict as text and as structure. Raises MCPError, as Encoderfile does."""
        try:
            return await self._result(check(dict(arguments), Arguments))
        except Exception as error:
            raise protocol_error(presentable(error)) from error

    async def _result(self, asked: Arguments) -> types.CallToolResult:
        now = time.monotonic()
        call = Call(None, None, self._inference.deadline(now), self._config.max_inputs, arrived=now)
        info, answer = await self._inference.tokens(
            call, asked.inputs, offset_unit=None, default_unit=OffsetUnit.BYTE
        )
        check_size(answer.statistics.tokens, "tokens")

        def write() -> tuple[str, object]:
            body = render(info, answer.texts, asked.metadata)
            text = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
            return text.decode(), orjson.loads(text)  # both with the decimals of float32

        small = small_answer(len(asked.inputs), answer.statistics.tokens)
        text, structure = await offload(write, inline=small)
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=text)], structured_content=structure
        )


def protocol_error(error: NerveError) -> MCPError:
    """An error as Encoderfile's MCP tells it; `data` has what programs need. Pure."""
    code, text = types.INTERNAL_ERROR, wording(error)
    if isinstance(error, EmptyInput | AnswerTooLarge):
        code = types.INVALID_REQUEST
    elif isinstance(error, InvalidField):
        code, text = types.INVALID_PARAMS, f"failed to deserialize parameters: {error}"
    elif isinstance(error, NoDefaultModel) and error.known:
        text = (
            f"there are several models ({', '.join(error.known)}) and none is the default; call "
            "extract_entities, which takes the name of a model"
        )
    data: dict[str, object] = {"reason": error.reason}
    seconds = retry_after_s(error)
    if seconds is not None:
        data["retry_after_s"] = seconds
    return MCPError(code, text, data)
