"""The two views of a model in the Open Inference Protocol (kserve-v2, 10): of text, and raw."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple

RAW_SUFFIX: Final = ".raw"
TEXT: Final = "TEXT"
ENTITIES: Final = "ENTITIES"
LABELS: Final = "LABELS"
TOKENS: Final = "TOKENS"
INPUT_IDS: Final = "input_ids"
ATTENTION_MASK: Final = "attention_mask"
TOKEN_TYPE_IDS: Final = "token_type_ids"  # noqa: S105  no secret
LOGITS: Final = "logits"


class View(StrEnum):
    """What a model takes and gives: texts and entities, or token ids and logits."""

    TEXT = "text"
    RAW = "raw"


class Target(NamedTuple):
    """A model of the repository, and the view that a client named."""

    model: str
    view: View


def resolve(name: str, knows: Callable[[str], bool]) -> Target:
    """Whom a client means: `<model>.raw` is the raw view of a model, unless one has that very name.

    Args:
        name: as the client wrote it.
        knows: whether the repository has a model of a name.
    """
    model = name.removesuffix(RAW_SUFFIX)
    if model != name and not knows(name) and knows(model):
        return Target(model, View.RAW)
    return Target(name, View.TEXT)
