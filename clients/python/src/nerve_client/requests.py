"""What is asked, whatever the protocol: checked here, written down by `http_wire` and `grpc_wire`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Literal, Self, TypeAlias, TypedDict, TypeVar, get_args

from nerve_client.errors import InvalidRequest
from nerve_client.results import Answer, Entity, ModelStatus, ModelSummary, Token, TokenResult

Aggregation: TypeAlias = Literal["none", "simple", "first", "average", "max"]
"""How word pieces become entities, as in `transformers.pipeline("ner")`."""
OffsetUnit: TypeAlias = Literal["codepoint", "byte", "utf16"]
"""What `start` and `end` count; Python's strings are code points."""
Side: TypeAlias = Literal["left", "right"]
"""The end that a text longer than the model is cut at."""

MAX_BYTES: Final = 900_000
"""UTF-8 bytes of the texts of one request: twice as many with every character escaped in JSON are
still under the server's limit of a body, 2,000,000."""

ResultT = TypeVar("ResultT")
ItemT = TypeVar("ItemT")


class CallOptions(TypedDict, total=False):
    """What every inference call takes."""

    model: str | None
    """Left out, the server's default model answers."""
    version: str | int | None
    """Left out, the version that the model's policy names."""
    timeout_s: float | None
    """Most seconds for the whole call, tries and pauses included; left out, those of the client."""
    priority: int | None
    """1 (goes first) to 10; left out, the model's default."""


class TextOptions(CallOptions, total=False):
    """How texts are cut and places in them are counted."""

    offset_unit: OffsetUnit | None
    """Left out, code points, whatever the server's config says: what Python's slices count."""
    truncate: bool | None
    """Whether a text that is too long is cut (left out: yes) or refused."""
    truncation_side: Side | None
    """The end that it is cut at; left out, what the model's config says, else the right one."""


class ExtractOptions(TextOptions, total=False):
    """Options of `extract` and `extract_many`."""

    aggregation: Aggregation | None
    """How word pieces become entities; left out, the model's own (its config says), else
    `simple`."""
    threshold: float | None
    """Least score of an entity, 0 to 1."""
    labels: Sequence[str] | None
    """Only entities with one of these labels, without prefix: `["PER", "LOC"]`."""


class PredictTokensOptions(TextOptions, total=False):
    """Options of `predict_tokens`."""

    aggregation: Aggregation | None
    """Left out, what the model's config says, else `none`: tokens."""
    ignore_labels: Sequence[str] | None
    """Labels that are left out; `None` means `["O"]`, an empty list none."""
    raw_scores: bool
    """Logits in place of probabilities; for tokens, those of all labels."""


class PredictOptions(CallOptions, total=False):
    """Options of `predict`."""

    offset_unit: OffsetUnit | None
    """As in `extract`."""


class Request(Generic[ResultT]):
    """Something to ask; `ResultT` is what comes back."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class TextRequest(Request[Answer[list[ItemT]]], Generic[ItemT]):
    """Texts, whom they are for, and until when."""

    texts: Sequence[str]
    _: dataclasses.KW_ONLY
    model: str | None = None
    version: str | int | None = None
    timeout_s: float | None = None
    priority: int | None = None
    offset_unit: OffsetUnit | None = None

    def __post_init__(self) -> None:
        """Refuse what no server would take.

        Raises:
            ValueError, TypeError.
        """
        if self.timeout_s is not None and self.timeout_s <= 0:
            raise ValueError(f"timeout_s must be more than 0, not {self.timeout_s}")
        if self.priority is not None and not 1 <= self.priority <= 10:
            raise ValueError(f"priority must be 1 to 10, not {self.priority}")
        if self.version is not None and self.model is None:
            raise ValueError("a version needs the name of its model")
        _one_of("offset_unit", self.offset_unit, get_args(OffsetUnit))

    def of(self, texts: Sequence[str]) -> Self:
        """The same of other texts."""
        return dataclasses.replace(self, texts=texts)

    def parts(self, max_texts: int) -> Iterator[Self]:
        """Requests that are small enough for the server, in order.

        Raises:
            InvalidRequest: a text cannot be sent.
        """
        packer = Packer(max_texts)
        for text in self.texts:
            if full := packer.add(text):
                yield self.of(full)
        if rest := packer.rest():
            yield self.of(rest)


@dataclass(frozen=True, slots=True)
class Extract(TextRequest[Entity]):
    """Entities of texts."""

    aggregation: Aggregation | None = None
    threshold: float | None = None
    labels: Sequence[str] | None = None
    truncate: bool | None = None
    truncation_side: Side | None = None

    def __post_init__(self) -> None:
        """See `TextRequest`."""
        TextRequest.__post_init__(self)  # super() knows no class that slots=True made anew
        _one_of("aggregation", self.aggregation, get_args(Aggregation))
        _one_of("truncation_side", self.truncation_side, get_args(Side))
        _labels("labels", self.labels)
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must be 0 to 1, not {self.threshold}")


@dataclass(frozen=True, slots=True)
class PredictTokens(TextRequest[TokenResult]):
    """Entities or tokens, as POST /predict_tokens has them."""

    aggregation: Aggregation | None = None
    ignore_labels: Sequence[str] | None = None
    raw_scores: bool = False
    truncate: bool | None = None
    truncation_side: Side | None = None

    def __post_init__(self) -> None:
        """See `TextRequest`."""
        TextRequest.__post_init__(self)
        _one_of("aggregation", self.aggregation, get_args(Aggregation))
        _one_of("truncation_side", self.truncation_side, get_args(Side))
        _labels("ignore_labels", self.ignore_labels)


@dataclass(frozen=True, slots=True)
class Predict(TextRequest[Token]):
    """Every token with its logits."""


@dataclass(frozen=True, slots=True)
class ListModels(Request[list[ModelSummary]]):
    """Every model."""


@dataclass(frozen=True, slots=True)
class GetModel(Request[ModelStatus]):
    """One model."""

    name: str


@dataclass(frozen=True, slots=True)
class Ready(Request[bool]):
    """Whether the server wants traffic."""


@dataclass(frozen=True, slots=True)
class Live(Request[bool]):
    """Whether the server answers."""


class Packer:
    """Collects texts until one more would be too much for a request."""

    def __init__(self, max_texts: int, max_bytes: int = MAX_BYTES) -> None:
        self._max_texts, self._max_bytes = max_texts, max_bytes
        self._texts: list[str] = []
        self._bytes = 0

    def add(self, text: str) -> list[str]:
        """Take a text in; gives the texts before it if there is no room beside them, else [].

        Raises:
            InvalidRequest: no UTF-8 can be made of it.
        """
        size = utf8_bytes(text)
        crowded = len(self._texts) >= self._max_texts or self._bytes + size > self._max_bytes
        full = self.rest() if crowded else []
        self._texts.append(text)
        self._bytes += size
        return full

    def rest(self) -> list[str]:
        """What is collected; then there is nothing."""
        texts, self._texts, self._bytes = self._texts, [], 0
        return texts


def utf8_bytes(text: str) -> int:
    """Length of a text on the wire.

    Raises:
        InvalidRequest: it has a lone surrogate, which is no character.
    """
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        message = f"a text has a lone surrogate at {error.start}, which UTF-8 cannot express"
        raise InvalidRequest(message, reason="invalid_text") from None


def as_texts(texts: str | Iterable[str]) -> tuple[str, ...]:
    """The texts of a call, each of which must be a string.

    Raises:
        TypeError.
    """
    found = (texts,) if isinstance(texts, str) else tuple(texts)
    for index, text in enumerate(found):
        check_text(text, index)
    return found


def check_text(text: object, index: int) -> None:
    """Raises TypeError where a text is none."""
    if not isinstance(text, str):
        raise TypeError(f"text {index} is of type {type(text).__name__}, not str")


def _one_of(name: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


def _labels(name: str, value: Sequence[str] | None) -> None:
    if isinstance(value, str):
        raise TypeError(f"{name} must be a list of labels, not one string")
