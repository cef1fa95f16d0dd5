"""`golden.jsonl`: how it is read, and how what a model finds compares with it. Runs no model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from nerve.errors import ModelLoadFailed
from nerve.types import Span

MAX_FILE_BYTES: Final = 16 * 2**20
MAX_LINES: Final = 10_000
SHOWN_DIFFERENCES: Final = 3
_SHOWN_TEXT: Final = 60
_SHOWN_ENTITIES: Final = 4
_MAX_REASON: Final = 1000


@dataclass(frozen=True, slots=True)
class Expected:
    """An entity that must be found: at [start, end) in code points, or anywhere if that is None."""

    label: str
    text: str
    place: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Example:
    """A text and all its entities."""

    text: str
    entities: tuple[Expected, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """What a text has that was not found, and what was found that it does not have."""

    text: str
    missing: tuple[str, ...]
    extra: tuple[str, ...]

    def __str__(self) -> str:
        parts = [
            f"{word} {', '.join(each[:_SHOWN_ENTITIES])}{', …' * (len(each) > _SHOWN_ENTITIES)}"
            for word, each in (("missing", self.missing), ("extra", self.extra))
            if each
        ]
        return f"{_shown(self.text)}: {'; '.join(parts)}"


@dataclass(frozen=True, slots=True)
class GoldenReport:
    """How a model did; the scores are micro averages over entities, span and label."""

    texts: int
    precision: float
    recall: float
    f1: float
    differing: int
    differences: tuple[Difference, ...]
    """The first few of the `differing` texts."""

    def __str__(self) -> str:
        return self.told("")

    def told(self, wanted: str) -> str:
        """The F1 and what was wanted, with the first differences."""
        # Rounded down: what is below a gate must not look like it.
        texts = f"{self.texts} text{'' if self.texts == 1 else 's'}"
        told = f"F1 {math.floor(self.f1 * 1000) / 1000:.3f} on golden.jsonl ({texts})"
        return self.with_differences(told + wanted)

    def with_differences(self, told: str) -> str:
        """A sentence with the first differences at its end."""
        if self.differences:
            told += f"; {self.differing} differ, first: {' | '.join(map(str, self.differences))}"
        return told if len(told) <= _MAX_REASON else f"{told[:_MAX_REASON]}…"


def load_golden(path: Path) -> tuple[Example, ...]:
    """Read the texts.

    A line is `{"text": …, "entities": [{"label": …, "start": …, "end": …}, …]}`, with start and end
    in code points, as `nerve infer --format jsonl` writes it. An entity without start and end is
    looked for by its `text`. The names of transformers (`entity_group`, `entity`, `word`) will do.

    Raises:
        ModelLoadFailed: the file cannot be used, with the number of the line.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ModelLoadFailed(f"{path.name} cannot be read: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise ModelLoadFailed(f"{path.name} is over {MAX_FILE_BYTES} bytes")
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    filled = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not filled:
        raise ModelLoadFailed(f"{path.name} is empty")
    if len(filled) > MAX_LINES:
        raise ModelLoadFailed(f"{path.name} has over {MAX_LINES} lines")
    examples = []
    for number, line in filled:
        try:
            examples.append(_example(orjson.loads(line)))
        except orjson.JSONDecodeError as error:
            raise ModelLoadFailed(f"{path.name}, line {number}: is no JSON: {error}") from error
        except ValueError as error:
            raise ModelLoadFailed(f"{path.name}, line {number}: {error}") from error
    return tuple(examples)


def _example(value: object) -> Example:
    """Raises ValueError with what is wrong."""
    if not isinstance(value, dict):
        raise ValueError("expected an object with text and entities")  # noqa: TRY004  one kind of fault
    text, entities = value.get("text"), value.get("entities")
    if not isinstance(text, str):
        raise ValueError("text: expected a string")  # noqa: TRY004
    if not isinstance(entities, list):
        raise ValueError("entities: expected a list, empty where there are none")  # noqa: TRY004
    found = []
    for number, entity in enumerate(entities):
        try:
            found.append(_entity(entity, text))
        except ValueError as error:
            raise ValueError(f"entities[{number}]: {error}") from error
    return Example(text, tuple(found))


def _entity(value: object, text: str) -> Expected:
    if not isinstance(value, dict):
        raise ValueError("expected an object")  # noqa: TRY004
    label = _first(value, "label", "entity_group", "entity")
    if not isinstance(label, str):
        raise ValueError("label: expected a string")  # noqa: TRY004
    start, end = value.get("start"), value.get("end")
    if start is None and end is None:
        surface = _first(value, "text", "word")
        if not isinstance(surface, str):
            raise ValueError("needs start and end, or its text")
        if surface not in text:
            raise ValueError(f"{_shown(surface)} does not occur in the text")
        return Expected(label, surface, None)
    if type(start) is not int or type(end) is not int:  # True is an int, too
        raise ValueError("start and end: expected two whole numbers")
    if not 0 <= start <= end <= len(text):
        raise ValueError(f"[{start}, {end}) is not in the text, which has {len(text)} code points")
    stated = value.get("text")
    if isinstance(stated, str) and stated != text[start:end]:
        raise ValueError(
            f"[{start}, {end}) of the text is {_shown(text[start:end])}, not {_shown(stated)}; "
            "start and end count code points"
        )
    return Expected(label, text[start:end], (start, end))


def _first(value: Mapping[str, object], *keys: str) -> object:
    return next((value[key] for key in keys if value.get(key) is not None), None)


def score(examples: Sequence[Example], found: Sequence[Sequence[Span]]) -> GoldenReport:
    """Compare what was found with what there is. Pure.

    Args:
        examples: the texts.
        found: entities of each text, offsets in code points.
    """
    right = expected = total = differing = 0
    differences: list[Difference] = []
    for example, spans in zip(examples, found, strict=True):
        missing, extra = _compare(example, spans)
        expected += len(example.entities)
        total += len(spans)
        right += len(example.entities) - len(missing)
        if missing or extra:
            differing += 1
            if len(differences) < SHOWN_DIFFERENCES:
                differences.append(Difference(example.text, tuple(missing), tuple(extra)))
    nothing = float(expected == total == 0)
    return GoldenReport(
        texts=len(examples),
        precision=right / total if total else nothing,
        recall=right / expected if expected else nothing,
        f1=2 * right / (expected + total) if expected + total else 1.0,
        differing=differing,
        differences=tuple(differences),
    )


def _compare(example: Example, spans: Sequence[Span]) -> tuple[list[str], list[str]]:
    """What is missing and what is extra, each as it is shown."""
    left = Counter((span.label, (span.start, span.end)) for span in spans)
    missing = []
    # Those with a place first: one without must not take what belongs to them.
    for entity in sorted(example.entities, key=lambda each: each.place is None):
        key = (entity.label, entity.place) if entity.place else _by_text(entity, example.text, left)
        if key is not None and left[key] > 0:
            left[key] -= 1
        else:
            missing.append(_entity_shown(entity.label, entity.text, entity.place))
    extra = [
        _entity_shown(label, example.text[slice(*place)], place) for label, place in left.elements()
    ]
    return missing, extra


def _by_text(
    entity: Expected, text: str, left: Mapping[tuple[str, tuple[int, int]], int]
) -> tuple[str, tuple[int, int]] | None:
    return next(
        (
            (label, place)
            for (label, place), count in left.items()
            if count > 0 and label == entity.label and text[slice(*place)] == entity.text
        ),
        None,
    )


def _entity_shown(label: str, text: str, place: tuple[int, int] | None) -> str:
    where = f" [{place[0]}, {place[1]})" if place else ""
    return f"{label} {_shown(text)}{where}"


def _shown(text: str) -> str:
    return f'"{text if len(text) <= _SHOWN_TEXT else text[:_SHOWN_TEXT] + "…"}"'
