"""`nerve schema`: the JSON Schemas of both kinds of config file, for editors and checks."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from nerve.config.described import DescribedJsonSchema
from nerve.config.model import ModelConfig
from nerve.config.server import ServerConfig


class Kind(StrEnum):
    """Which file."""

    MODEL = "model"
    SERVER = "server"


def schema(
    kind: Annotated[Kind, typer.Argument(help="model: config.yaml; server: the --config file.")],
) -> None:
    """Print the JSON Schema of a config file."""
    print(json.dumps(document(kind), indent=2))


def document(kind: Kind) -> dict[str, object]:
    """The schema as a dict."""
    model = ModelConfig if kind is Kind.MODEL else ServerConfig
    found = model.model_json_schema(schema_generator=DescribedJsonSchema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
