"""Triton's `config.pbtxt` -> ModelConfig, and the fields that our definition of it does not have.

The grammar: https://protobuf.dev/reference/protobuf/textformat-spec/
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf import text_format

from nerve._proto.inference.inference_pb2 import ModelConfig
from nerve.errors import ConfigInvalid, Problem
from nerve.importing.source import read_text

_UNKNOWN: Final = re.compile(
    r'Message type "(?P<message>[\w.]+)" has no field named "(?P<field>\w+)"'
)
_TOKEN: Final = re.compile(
    r"""(?:\s|\#[^\n]*)+ | "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*'
    | [{}<>\[\]:;,] | [^\s{}<>\[\]:;,"'\#]+ | . """,
    re.VERBOSE,
)
_OPEN: Final = {"{": "}", "<": ">", "[": "]"}
MAX_UNKNOWN: Final = 200


@dataclass(frozen=True)
class UnknownField:
    """A field that is passed over: `message` is the short name of the message that it is in."""

    message: str
    name: str
    line: int
    text: str


def read_pbtxt(path: Path) -> tuple[ModelConfig, list[UnknownField]]:
    """Read the file.

    Raises:
        ConfigInvalid: it cannot be read, or is no text of a ModelConfig.
    """
    return parse(read_text(path), source=str(path))


def parse(text: str, *, source: str) -> tuple[ModelConfig, list[UnknownField]]:
    """As `read_pbtxt`, of a text. Pure.

    The library can pass over unknown fields, but not tell which: so each is found by its error,
    taken out of the text, and the rest read again.
    """
    unknown: list[UnknownField] = []
    while True:
        config = ModelConfig()
        try:
            text_format.Parse(text, config)
        except text_format.ParseError as error:
            found = _UNKNOWN.search(str(error))
            line, column = error.GetLine() or 0, error.GetColumn() or 0
            span = _field_at(text, line, column, found["field"]) if found else None
            if found is None or span is None or len(unknown) == MAX_UNKNOWN:
                said = re.sub(r"^\d+:\d+ : ", "", str(error))
                if found is not None and span is None and len(unknown) < MAX_UNKNOWN:
                    what = "is not there or does not end: a quote or bracket is missing"
                    said = f"the value of {found['field']} {what}"
                raise ConfigInvalid(source, [Problem("", said, line)]) from error
            start, end = span
            taken = text[start:end]
            unknown.append(
                UnknownField(found["message"].rpartition(".")[2], found["field"], line, taken)
            )
            rest = re.sub(r"^(\s*)[,;]", r"\1 ", text[end:])  # what parts it from the next one
            # Lines stay where they are.
            text = text[:start] + re.sub(r"[^\n]", " ", taken) + rest
        except (UnicodeError, RecursionError, ValueError) as error:
            raise ConfigInvalid(source, [Problem("", f"cannot be read: {error}")]) from error
        else:
            return config, unknown


def _field_at(text: str, line: int, column: int, name: str) -> tuple[int, int] | None:
    """Where the field `name` that the library stumbled over at `line`:`column` begins and ends."""
    lines = text.split("\n")
    if not 0 < line <= len(lines):
        return None
    start = sum(len(each) + 1 for each in lines[: line - 1]) + column - 1
    end = _end_of_value(text, start + len(name))
    return (start, end) if end and text.startswith(name, start) else None


def _end_of_value(text: str, at: int) -> int:
    """The end of what follows a field's name: `: value`, `: [...]`, `{...}`; 0 if there is none."""
    awaited: list[str] = []
    end = 0
    for token in _TOKEN.finditer(text, at):
        word = token[0]
        if word[0].isspace() or word[0] == "#" or (word == ":" and not end):
            continue
        if end and word[0] not in "\"'" and not awaited:  # strings side by side are one
            return end
        if word in _OPEN:
            awaited.append(_OPEN[word])
        elif awaited and word == awaited[-1]:
            awaited.pop()
        elif word in _OPEN.values() or word in "\"'":  # a string that does not end
            return 0
        end = token.end()
        if not awaited and word in _OPEN.values():
            return end
    return 0 if awaited else end
