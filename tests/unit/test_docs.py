"""Docs and schemas keep up with the code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from nerve.cli.schema import Kind, document
from nerve.config import model as model_config
from nerve.config.model import ModelConfig
from nerve.config.problems import validate
from nerve.config.server import ServerConfig

SECTIONS = [
    each
    for each in vars(model_config).values()
    if isinstance(each, type)
    and issubclass(each, BaseModel)
    and each.__module__ == ModelConfig.__module__
]


@pytest.mark.parametrize("section", [ServerConfig, *SECTIONS])
def test_every_key_is_described_and_documented(root: Path, section: type[BaseModel]) -> None:
    text = (root / "docs" / "configuration.md").read_text(encoding="utf-8")
    for name, field in section.model_fields.items():
        assert field.description, f"{section.__name__}.{name}"
        assert re.search(rf"\b{name}\b", text), f"{section.__name__}.{name}"


def test_the_documented_config_is_valid(root: Path) -> None:
    """The example of docs/configuration.md, against the model and against the published schema."""
    text = (root / "docs" / "configuration.md").read_text(encoding="utf-8")
    example = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    validate(ModelConfig, example, source="example")
    published = json.loads((root / "docs" / "schemas" / "config.schema.json").read_text())
    jsonschema.validate(example, published)
    jsonschema.validate({"version_policy": "all", "instance_group": {"count": 2}}, published)


def names(value: Any, path: str = "") -> Iterator[str]:
    """Paths of all properties; their wording may change between releases of pydantic."""
    if isinstance(value, dict):
        for key, child in value.items():
            if key == "properties":
                yield from (f"{path}/{name}" for name in child)
            yield from names(child, f"{path}/{key}")


@pytest.mark.parametrize(("kind", "file"), [(Kind.MODEL, "config"), (Kind.SERVER, "server")])
def test_published_schemas_are_fresh(root: Path, kind: Kind, file: str) -> None:
    published = json.loads((root / "docs" / "schemas" / f"{file}.schema.json").read_text())
    assert sorted(names(published)) == sorted(names(document(kind)))


def test_links_lead_somewhere(root: Path) -> None:
    """Relative links of every page."""
    pages = [*root.glob("*.md"), *root.glob("*/*.md"), *root.glob("tests/parity/*.md")]
    broken = [
        f"{page.relative_to(root)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if ".venv" not in page.parts and not (page.parent / target).exists()
    ]
    assert broken == []
