"""Texts that a model is measured with: built-in ones, or those of a file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Final

import orjson

from nerve.errors import InvalidField

BUILT_IN: Final = "sentences.txt"
MAX_FILE_BYTES: Final = 256 * 2**20
OPTION: Final = "--texts"


def read_texts(path: Path | None) -> list[str]:
    """A text a line; in a .jsonl file (golden.jsonl is one) a JSON string or an object with `text`.

    Args:
        path: the file, - for stdin, or None for the built-in sentences.
    Raises:
        InvalidField: it cannot be read, or there is no text in it.
    """
    if path is None:
        content = files("nerve.cli").joinpath(BUILT_IN).read_bytes()
    elif str(path) == "-":
        content = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    else:
        try:
            with path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise InvalidField(OPTION, f"{path}: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise InvalidField(OPTION, f"{path}: is over {MAX_FILE_BYTES} bytes")
    json_lines = path is not None and path.suffix in (".jsonl", ".ndjson")
    texts = list(parse_texts(content, name=str(path), json_lines=json_lines))
    if not texts:
        raise InvalidField(OPTION, f"{path}: there is no text in it")
    return texts


def parse_texts(content: bytes, *, name: str, json_lines: bool) -> Iterator[str]:
    """The texts of a file's content; empty lines are none. Pure.

    Raises:
        InvalidField: a line is no UTF-8, or no JSON with a text.
    """
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            shown = line.decode().strip()
            text = _text(orjson.loads(shown)) if shown and json_lines else shown
        except UnicodeDecodeError:
            raise InvalidField(OPTION, f"{name}: line {number} is not valid UTF-8") from None
        except ValueError:  # orjson's is one
            expected = 'expected a JSON string or {"text": "…"}'
            raise InvalidField(OPTION, f"{name}: line {number}: {expected}") from None
        if text:
            yield text


def _text(value: object) -> str:
    """Raises ValueError."""
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise ValueError  # noqa: TRY004  one kind of fault
    return text
