"""A record on its way from the input to the output, and what may have become of it. Plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from nerve.errors import NerveError

MAX_RECORD_BYTES: Final = 64 * 2**20
"""A line or a field that is longer is none: a quote or a line break is missing."""

ERROR_FIELD: Final = "error"
"""The field, or column, that says why a record has no entities."""


@dataclass(slots=True)
class Record:
    """A text and what it came with.

    `place` says where in the `source` it is, for people. `raw` is a JSON object as it was written,
    without white space around it, and `fields` what is in it; `fault` says why it has no text, and
    is empty if it has one. `mark` is a SHA-256 of the source up to its end, `read` how much of the
    source that is (see `Reader.total`), `size` its weight in memory in bytes.
    """

    source: str
    place: str
    text: str
    mark: bytes
    read: int
    size: int
    fields: Mapping[str, Any] = field(default_factory=dict)
    raw: bytes | None = None
    fault: str = ""


class Reader(Protocol):
    """The records of an input, once, in order. For one thread at a time."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def columns(self) -> Sequence[str]:
        """Names of the fields, as far as the begin of the input tells."""

    @property
    def total(self) -> int | None:
        """What `Record.read` will be at the end: bytes, or rows; None if nobody knows."""

    def __iter__(self) -> Iterator[Record]:
        """Raises InputBroken: it cannot be read on."""

    def close(self) -> None:
        """Close the file."""


class Tagged(NamedTuple):
    """Entities of a text, and whether it was cut since it is longer than the model."""

    entities: list[dict[str, Any]]
    truncated: bool = False


class Failed(NamedTuple):
    """Why a text could not be tagged; others can."""

    error: str


Outcome = Tagged | Failed
NOTHING: Final = Tagged([])
"""What is in an empty text."""


class InputBroken(NerveError):
    """An input cannot be read, or not any further."""

    reason = "input_broken"

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(name, detail)
        self.name, self.detail = name, detail

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


class BadRecord(NerveError):
    """A record has no text that can be tagged, or tagging it failed."""

    reason = "bad_record"

    def __init__(self, source: str, place: str, fault: str) -> None:
        super().__init__(source, place, fault)
        self.source, self.place, self.fault = source, place, fault

    def __str__(self) -> str:
        return (
            f"{self.source}: {self.place}: {self.fault} (--keep-going would write that into the "
            "output, and go on)"
        )


class OutputBroken(NerveError):
    """The output cannot be written."""

    reason = "output_broken"

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(name, detail)
        self.name, self.detail = name, detail

    def __str__(self) -> str:
        return f"--output: {self.name}: {self.detail}"
