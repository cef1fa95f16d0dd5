"""What is said of fields: found, inherited, under the names that are written."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from pydantic import BaseModel, Field

from nerve.config import described
from nerve.config.described import DescribedJsonSchema, descriptions


class Base(BaseModel):
    """Something."""

    kept: int = 1
    """What it is.

    And more.
    """
    changed: int = 1
    """Of the base."""
    silent: int = 1

    """Below an empty line, still."""


class Inner(BaseModel):
    """A part."""

    deep: int = 1
    """Deep."""


class Outer(Base):
    """The whole."""

    class Within(BaseModel):
        """A class in it."""

        kept: int = 1
        """Of the one within."""

    changed: int = 2
    """Of this one."""
    told: int = Field(1, description="By itself.")
    """Does not count."""
    named: int = Field(1, alias="class")
    """Under another name."""
    inner: Inner = Inner()
    """The inner one."""
    within: Within = Within()


def test_of_bases_too() -> None:
    assert descriptions(Outer) == {
        "kept": "What it is.\n\nAnd more.",
        "changed": "Of this one.",
        "silent": "Below an empty line, still.",
        "told": "Does not count.",
        "named": "Under another name.",
        "inner": "The inner one.",
    }
    assert descriptions(Outer.Within) == {"kept": "Of the one within."}


def test_json_schema() -> None:
    schema = Outer.model_json_schema(schema_generator=DescribedJsonSchema)
    said = {name: each.get("description") for name, each in schema["properties"].items()}
    assert said == {
        "kept": "What it is.\n\nAnd more.",
        "changed": "Of this one.",
        "silent": "Below an empty line, still.",
        "told": "By itself.",
        "class": "Under another name.",
        "inner": "The inner one.",
        "within": None,
    }
    deep: dict[str, Any] = schema["$defs"]["Inner"]["properties"]["deep"]
    assert deep["description"] == "Deep."


def test_without_source(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: object) -> str:
        raise OSError("source code not available")

    monkeypatch.setattr(inspect, "getsource", none)
    described._docstrings.cache_clear()
    try:
        assert descriptions(Outer) == {}
        schema = Outer.model_json_schema(schema_generator=DescribedJsonSchema)
        assert schema["properties"]["told"]["description"] == "By itself."
    finally:
        described._docstrings.cache_clear()
