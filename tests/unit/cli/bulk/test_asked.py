"""What is asked for is looked at before anything is opened, written or removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from nerve.cli.bulk.formats import Kind
from nerve.cli.bulk.run import Asked, check_fields, run_bulk
from nerve.config.server import ServerConfig
from nerve.errors import InvalidField


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.part", "out.jsonl.part.journal"])
def test_an_input_that_would_be_written_over(tmp_path: Path, name: str) -> None:
    """Not with --restart either, which empties what an interrupted run has left."""
    source = tmp_path / name
    source.write_bytes(b'{"text":"Ada"}\n')
    asked = Asked(
        [], source, Kind.JSONL, Kind.JSONL, tmp_path / "out.jsonl",
        text_field="text", entities_field="entities", keep_going=False, restart=True,
    )  # fmt: skip
    with pytest.raises(InvalidField, match="is the input; name another file"):
        run_bulk(asked, ServerConfig())
    assert source.read_bytes() == b'{"text":"Ada"}\n'


@pytest.mark.parametrize(
    ("text_field", "entities_field", "keep_going", "told"),
    [
        ("", "entities", False, "--text-field is empty"),
        ("a", "a", False, "--entities-field 'a' is the field of the text"),
        ("error", "entities", True, "--text-field 'error' is the field for errors"),
        ("text", "error", True, "--entities-field 'error' is the field for errors"),
    ],
)
def test_names_of_fields(text_field: str, entities_field: str, keep_going: bool, told: str) -> None:
    with pytest.raises(InvalidField) as refused:
        check_fields(text_field, entities_field, keep_going=keep_going)
    assert told in str(refused.value).replace(":", "")
