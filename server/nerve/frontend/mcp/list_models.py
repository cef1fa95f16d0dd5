"""The tool `list_models`: which models there are, and what they find."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import mcp_types as types

from nerve.frontend.mcp.results import READ_ONLY, structured
from nerve.service.control import ControlService, ModelSummary
from nerve.types import group_of

OUTPUT_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "models": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "ready": {"type": "boolean"},
                    "default": {"type": "boolean"},
                    "labels": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": "Kinds of entities that it finds.",
                    },
                    "state": {"type": "string"},
                    "reason": {"type": "string", "description": "Why it is not ready."},
                },
                "required": ["name", "ready", "default", "labels", "state", "reason"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["models"],
    "additionalProperties": False,
}


class ListModels:
    """Lists models."""

    name = "list_models"

    def __init__(self, control: ControlService) -> None:
        self._control = control

    def describe(self) -> types.Tool:
        """See `Tool.describe`."""
        return types.Tool(
            name=self.name,
            title="List models",
            description="Lists the named-entity-recognition models that extract_entities can use, "
            "with the labels of the entities that each of them finds.",
            input_schema={"type": "object", "properties": {}},
            output_schema=OUTPUT_SCHEMA,
            annotations=READ_ONLY,
        )

    async def call(self, arguments: Mapping[str, Any]) -> types.CallToolResult:  # noqa: ARG002
        """Every model; there is nothing to ask."""
        models = [self._row(model) for model in self._control.models()]
        lines = [_line(model) for model in models] or ["The repository holds no model."]
        return structured("\n".join(lines), {"models": models})

    def _row(self, model: ModelSummary) -> dict[str, Any]:
        labels = self._control.model(model.name).labels
        return {
            "name": model.name,
            "ready": labels is not None,
            "default": model.default,
            "labels": entity_labels(labels or ()),
            "state": model.state.value,
            "reason": model.reason,
        }


def entity_labels(labels: tuple[str, ...]) -> list[str]:
    """Labels of entities, sorted: those of a model without their prefixes. Pure."""
    return sorted({group_of(label) for label in labels} - {"O"})


def _line(model: dict[str, Any]) -> str:
    name = f"{model['name']} (default)" if model["default"] else model["name"]
    if not model["ready"]:
        return f"{name}: {model['state']}{': ' if model['reason'] else ''}{model['reason']}"
    return f"{name}: finds {', '.join(model['labels'])}"
