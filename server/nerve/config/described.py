"""What the fields of models are: the docstrings below them, read when somebody asks.

pydantic's `use_attribute_docstrings` does it whenever a model is defined, and that took a tenth of the
time in which the daemon, and any command, is there.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """What is written below each field, by its name; nothing in a built program, which has no source."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if each not in BaseModel.__mro__:
            found |= _docstrings(each.__module__).get(each.__qualname__, {})
    return found


class DescribedJsonSchema(GenerateJsonSchema):
    """Has the descriptions in it; give it as `schema_generator`."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """See `GenerateJsonSchema.model_schema`."""
        written = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        properties: Mapping[str, dict[str, Any]] = written.get("properties", {})
        for name, text in descriptions(model).items():
            field = model.model_fields.get(name)
            key = name if field is None else field.alias or name
            if key in properties:
                properties[key].setdefault("description", text)
        return written


@functools.cache
def _docstrings(module: str) -> dict[str, dict[str, str]]:
    """Of the attributes of all classes of a module."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError):
        return {}
    return {name: dict(_attributes(each)) for name, each in _classes(tree, "")}


def _classes(tree: ast.AST, prefix: str) -> Iterator[tuple[str, ast.ClassDef]]:
    for each in ast.iter_child_nodes(tree):
        if isinstance(each, ast.ClassDef):
            yield prefix + each.name, each
            yield from _classes(each, f"{prefix}{each.name}.")


def _attributes(of: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, below in itertools.pairwise(of.body):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, inspect.cleandoc(text)
