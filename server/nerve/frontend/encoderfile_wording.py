"""Encoderfile's own words for errors, the same over HTTP and gRPC (its contract, 1.6 and 3)."""

from __future__ import annotations

from typing import Final

from nerve import errors

TEXTS: Final[dict[type[errors.NerveError], str]] = {
    errors.EmptyInput: "Cannot tokenize empty string",
    errors.TokenizationFailed: "Error during tokenization",
    errors.InferenceFailed: "Error running model",
}
RESULT: Final = "Error postprocessing token classifications"
"""Before what is wrong with the result of a transform."""


def wording(error: errors.NerveError) -> str:
    """The fixed text where there is one, else the error's own sentence."""
    if isinstance(error, errors.MessageTooLarge):
        return (
            f"Error, decoded message length too large: found {error.given_bytes} bytes, "
            f"the limit is: {error.limit_bytes} bytes"
        )
    if isinstance(error, errors.TransformResult):
        return f"{RESULT}: {error.detail}"
    if isinstance(error, errors.TransformFailed):  # Lua's own text
        return error.detail
    return TEXTS.get(type(error)) or str(error)
