"""Results that tell a caller what it asked for, or what was wrong with the way it asked. Pure."""

from __future__ import annotations

from typing import Any, Final

import mcp_types as types

from nerve.errors import (
    EmptyInput,
    InvalidRequest,
    NerveError,
    NoDefaultModel,
    TextTooLong,
    TooManyInputs,
)
from nerve.frontend.status import retry_after_s

MAX_ITEMS: Final = 10_000
"""Most tokens or entities in an answer. The SDK writes it on the event loop, where everybody waits for
it: some 0.1 s for so many tokens. No language model reads as much."""
READ_ONLY: Final = types.ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)


class AnswerTooLarge(InvalidRequest):
    """The answer has more in it than a call may get."""

    reason = "answer_too_large"

    def __init__(self, given: int, things: str) -> None:
        super().__init__(given, things)
        self.given, self.things = given, things

    def __str__(self) -> str:
        return (
            f"the answer has {self.given} {self.things}, at most {MAX_ITEMS} are given; send fewer "
            "or shorter texts in one call"
        )


def check_size(items: int, things: str) -> None:
    """Refuse to write a larger answer than clients get.

    Raises:
        AnswerTooLarge.
    """
    if items > MAX_ITEMS:
        raise AnswerTooLarge(items, things)


def structured(text: str, structure: dict[str, Any]) -> types.CallToolResult:
    """Text for a reader, and the same for programs."""
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text)], structured_content=structure
    )


def refusal(error: NerveError, *, single: bool = False) -> types.CallToolResult:
    """An error that the caller, who reads it, may mend; `single` tells that it sent `text`."""
    text = _sentence(error, single=single)
    seconds = retry_after_s(error)
    if seconds is not None:
        text += f"; try again in {seconds} s"
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=True)


def _sentence(error: NerveError, *, single: bool) -> str:
    if isinstance(error, NoDefaultModel) and error.known:
        return f"model: there are several ({', '.join(error.known)}); name one of them"
    if isinstance(error, NoDefaultModel):
        return "no model is ready to answer; list_models tells why"
    if isinstance(error, EmptyInput) and single:
        return "text: it is empty; give the text to look for entities in"
    if isinstance(error, EmptyInput | TooManyInputs | TextTooLong):
        return str(error).replace("inputs", "text" if single else "texts", 1)
    return str(error)
