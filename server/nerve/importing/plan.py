"""What an import would write, as a value: files by their place in the model's folder, and its config.

Where a plan comes from is the business of the readers beside it, how it is written that of
`install`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nerve.errors import NerveError
from nerve.repository.layout import (
    CONFIG_FILES,
    MODEL_FILE,
    NAME_PATTERN,
    SIDE_FILES,
    is_passing,
)

VERSION_FOLDER: Final = "1"
"""Where an export's files go; the next version can be put beside it."""
SCRIPT: Final = "transform.lua"
NAME_RULE: Final = (
    "letters, digits, '.', '_' and '-' only, starting with a letter or digit, at most 128, and "
    "not ending as a temporary file does (.tmp, .part, .swp, .swx, .crdownload)"
)

_TAKEN: Final = frozenset({*CONFIG_FILES, *SIDE_FILES, MODEL_FILE, "onnx"})


class ImportFailed(NerveError):
    """A model of another tool cannot be brought in; `detail` says why and what helps."""

    reason = "import_failed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


@dataclass(frozen=True)
class ImportPlan:
    """A model folder that is still to be written.

    Attributes:
        name: of the model, and so of its folder.
        files: place in the folder, with `/` between its parts -> the file to copy.
        config: content of config.yaml; it is not written where there is neither this nor `head`.
        notes: what the user should know: what was left out, and why.
        texts: place in the folder -> UTF-8 content of files that are written from text.
        version: what the source calls its version, which is no version of ours; may be empty.
        head: lines of a comment at the top of config.yaml.
    """

    name: str
    files: Mapping[str, Path]
    config: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    head: tuple[str, ...] = ()


def name_fault(name: str) -> str:
    """Why a text cannot be a model's name, or nothing."""
    if not NAME_PATTERN.fullmatch(name) or is_passing(name):
        return f"{name!r:.150} cannot be a model's name: {NAME_RULE}"
    if name.isdecimal():
        return f"{name!r} cannot be a model's name: a folder called so is a version"
    if name in _TAKEN:
        return f"{name!r} cannot be a model's name: it means something else in a model's folder"
    return ""


def folder_name(text: str) -> str:
    """The model name that is nearest to a title of another tool: `My NER (v2)` -> `My-NER-v2`.

    Empty if nothing is left of it.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text.strip()).strip("-._")[:128].strip("-._")
    return name if not name_fault(name) else ""
