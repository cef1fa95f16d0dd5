"""`nerve export`: a checkpoint -> a folder that can be served, by way of optimum's exporter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

TASK: Final = "token-classification"


def export(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A model of the Hugging Face hub, or a folder with a checkpoint.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Argument(
            metavar="[OUTPUT]", help="Folder to write; by default the model's name, here."
        ),
    ] = None,
    task: Annotated[str, typer.Option("--task", help=f"Only {TASK} is served here.")] = TASK,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch, tag or commit of the hub's model.")
    ] = None,
    opset: Annotated[
        int | None, typer.Option("--opset", min=1, help="ONNX operator set; by default optimum's.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write into a folder that is not empty.")
    ] = False,
) -> None:
    """Export a checkpoint to ONNX, with optimum-cli.

    What optimum-cli prints is passed on. Options that this command does not have
    can be had by calling optimum-cli itself: `nerve import` takes its folder.
    """
    if task != TASK:
        raise typer.BadParameter(f"{task} models are not served here; expected {TASK}")
    from nerve.cli.export_run import export_model  # noqa: PLC0415  keeps `--help` fast

    options = ["--task", task]
    options += ["--revision", revision] if revision is not None else []
    options += ["--opset", str(opset)] if opset is not None else []
    export_model(model, output, options, force=force)
