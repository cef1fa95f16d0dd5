"""`nerve new-transform`: a transform to begin with."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated, Final

import typer

from nerve.cli.terminal import print_lines

MODEL_TYPE: Final = "token_classification"
OTHER_TYPES: Final = (
    "embedding", "sequence_classification", "sentence_embedding", "image_classification",
)  # fmt: skip


def new_transform(
    model_type: Annotated[
        str, typer.Option("--model-type", "-m", help=f"Only {MODEL_TYPE} is served here.")
    ] = MODEL_TYPE,
) -> None:
    """Print a transform that changes nothing, with comments on what it could do.

    nerve new-transform > transform.lua
    """
    if model_type != MODEL_TYPE:
        known = model_type in OTHER_TYPES
        fault = "models are not served here" if known else "is no model type"
        raise typer.BadParameter(f"{model_type} {fault}; expected {MODEL_TYPE}", param_hint="-m")
    text = files("nerve.cli").joinpath("new_transform.lua").read_text(encoding="utf-8")
    print_lines(text.splitlines())
