"""How far a run has come, in a small file beside the output that it writes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from nerve.errors import NerveError

FORMAT: Final = 1
_KEY: Final = "nerve_infer"


class CannotResume(NerveError):
    """There is a part of the output, but of another run."""

    reason = "cannot_resume"

    def __init__(self, part: str, detail: str) -> None:
        super().__init__(part, detail)
        self.part, self.detail = part, detail

    def __str__(self) -> str:
        return (
            f"{self.part} cannot be gone on with: {self.detail}; run it as it was begun, or start over "
            "with --restart"
        )


class PartBusy(CannotResume):
    """Another run has the part."""

    reason = "part_busy"

    def __str__(self) -> str:
        return f"{self.part}: {self.detail}; wait for it, or name another output"


@dataclass(frozen=True, slots=True)
class Position:
    """A place where a run can go on: everything up to it is in the output.

    `records` of the input; `output_bytes` of the part; `mark` is `Record.mark` of the last record, as
    hexadecimal digits; `failed` and `truncated` are records so far.
    """

    records: int = 0
    output_bytes: int = 0
    mark: str = ""
    failed: int = 0
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class Journal:
    """What a run is, and how far it has come.

    `identity` has all that the output depends on, but for the input, by a name for people; `complete`
    tells that all of the input is in the part.
    """

    identity: Mapping[str, object]
    position: Position
    complete: bool = False

    def write(self, path: Path) -> None:
        """Replace the file at once, and survive a power cut. Raises OSError."""
        content = orjson.dumps(
            {
                _KEY: FORMAT,
                "identity": self.identity,
                "position": asdict(self.position),
                "complete": self.complete,
            },
            option=orjson.OPT_INDENT_2,
        )
        new = path.with_name(path.name + ".new")
        with new.open("wb") as file:
            file.write(content + b"\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        sync_folder(path.parent)

    @classmethod
    def read(cls, path: Path) -> Journal | None:
        """None if there is no such file.

        Raises:
            CannotResume: it is none of ours.
            OSError: it cannot be read.
        """
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            found: dict[str, Any] = orjson.loads(content)
            if found[_KEY] != FORMAT:
                raise CannotResume(str(path), f"its format is {found[_KEY]!r}, not {FORMAT}")
            position = Position(**found["position"])
            return cls(dict(found["identity"]), position, bool(found["complete"]))
        except (ValueError, KeyError, TypeError):
            raise CannotResume(str(path), "it is no journal of nerve infer") from None

    def check(self, part: Path, identity: Mapping[str, object]) -> None:
        """Raises CannotResume: it is another run that is wanted now."""
        for name in sorted({*identity, *self.identity}):
            then, now = self.identity.get(name), identity.get(name)
            if then != now:
                raise CannotResume(str(part), f"{name} was {_told(then)} and is {_told(now)} now")


def _told(value: object) -> str:
    return "not there" if value is None else repr(value)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a power cut, where that can be asked for."""
    with suppress(OSError):  # Windows has no such thing
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
