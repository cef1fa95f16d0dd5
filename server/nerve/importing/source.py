"""What a reader of another tool's file is given, and how it reads a file of text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nerve.errors import ConfigInvalid, Problem
from nerve.repository.files import open_regular, told

MAX_TEXT_BYTES: Final = 256 * 1024
"""Of a config file; real ones have a few kilobytes."""


@dataclass(frozen=True)
class Wishes:
    """What the user says beside the source.

    Attributes:
        name: of the model; None: what the source calls it.
        checkpoint: an export folder with what the source does not hold itself.
        directory: where relative paths of a build file start; None: the working directory.
        options: further ones of the command, for a line to type again.
    """

    name: str | None = None
    checkpoint: Path | None = None
    directory: Path | None = None
    options: tuple[str, ...] = ()


def read_text(path: Path, *, missing: str = "there is no such file") -> str:
    """A config file's text.

    Raises:
        ConfigInvalid: it is not there, too large, or no UTF-8.
    """
    source = str(path)
    try:
        with open_regular(path) as file:
            content = file.read(MAX_TEXT_BYTES + 1)
        if len(content) > MAX_TEXT_BYTES:
            raise ConfigInvalid(source, [Problem("", f"is over {MAX_TEXT_BYTES} bytes")])
        return content.decode()
    except FileNotFoundError:
        raise ConfigInvalid(source, [Problem("", missing)]) from None
    except UnicodeDecodeError as error:
        raise ConfigInvalid(source, [Problem("", f"is not UTF-8: {error.reason}")]) from error
    except (OSError, ValueError) as error:
        raise ConfigInvalid(source, [Problem("", f"cannot be read: {told(error)}")]) from error
