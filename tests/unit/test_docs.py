"""Docs and schemas keep up with the code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml
from pydantic import BaseModel

from nerve.cli import app
from nerve.cli.schema import Kind, document
from nerve.config import model as model_config
from nerve.config.described import descriptions
from nerve.config.model import ModelConfig
from nerve.config.problems import validate
from nerve.config.server import ServerConfig
from nerve.errors import ConfigInvalid
from nerve.security.keys import keys_in

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
    about = descriptions(section)
    for name in section.model_fields:
        assert about.get(name), f"{section.__name__}.{name}"
        assert re.search(rf"\b{name}\b", text), f"{section.__name__}.{name}"


def test_the_table_of_settings_has_the_flags_of_serve(root: Path) -> None:
    """Each row: keys, default, flags, what it is. The repositories are arguments."""
    text = (root / "docs" / "configuration.md").read_text(encoding="utf-8")
    _, _, table = text.partition("| key | default | flag | |\n| --- | --- | --- | --- |\n")
    told: dict[str, list[str]] = {}
    for row in table.split("\n\n")[0].splitlines():
        _, keys, _, cell, _ = row.split("|", 4)
        names = re.findall(r"`(\w+)`", keys)
        shown = re.findall(r"`(--[a-z0-9-]+)`", cell) if names != ["repositories"] else []
        if len(names) == 1:
            told[names[0]] = shown
        else:  # a pair in one row
            told |= {name: [flag] for name, flag in zip(names, shown, strict=True)}
    command = typer.main.get_command(app)
    assert isinstance(command, typer.core.TyperGroup)
    options = command.commands["serve"].params
    flags = {each.name: each.opts for each in options if each.name in ServerConfig.model_fields}
    second = {flag for each in options for flag in (*each.opts, *each.secondary_opts)}
    second -= {flag for each in flags.values() for flag in each}
    assert {flag for each in told.values() for flag in each[1:]} <= second
    assert {name: each[:1] for name, each in told.items()} == {"repositories": [], **flags}


def test_the_documented_config_is_valid(root: Path) -> None:
    """The example of docs/configuration.md, against the model and against the published schema."""
    text = (root / "docs" / "configuration.md").read_text(encoding="utf-8")
    example = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    validate(ModelConfig, example, source="example")
    published = json.loads((root / "docs" / "schemas" / "config.schema.json").read_text())
    jsonschema.validate(example, published)
    jsonschema.validate({"version_policy": "all", "instance_group": {"count": 2}}, published)


def test_no_documented_hash_is_taken(root: Path) -> None:
    """Whoever starts from a sample of a file of keys must put a hash of their own in."""
    pages = [*root.glob("*.md"), *root.glob("docs/**/*"), *root.glob("deploy/**/*")]
    pages += root.glob("clients/*/*.md")
    written = [page for page in pages if page.is_file() and page.suffix != ".png"]
    texts = [page.read_text(encoding="utf-8") for page in written]
    samples = [
        found for text in texts for found in re.findall(r"^\s*(?:- )?sha256: *(.*)$", text, re.M)
    ]
    assert samples
    for sample in samples:
        entry = f"keys:\n  - name: a\n    scopes: [predict]\n    sha256: {sample}\n"
        with pytest.raises(ConfigInvalid, match="64 hexadecimal digits"):
            keys_in(entry, source="sample")


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
