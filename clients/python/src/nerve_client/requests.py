"""What is asked, whatever the protocol: checked here, written down by `http_wire` and `grpc_wire`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Literal, Self, TypeAlias, TypedDict, TypeVar, get_args

from nerve_client import checks
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
        if self.model is not None:
            checks.word("model", self.model)
        if isinstance(self.version, str):
            checks.word("version", self.version)
        elif self.version is not None:
            checks.whole("version", self.version, 0)
        if self.version is not None and self.model is None:
            raise ValueError("a version needs the name of its model")
        if self.timeout_s is not None:
            checks.seconds("timeout_s", self.timeout_s)
        if self.priority is not None:
            checks.whole("priority", self.priority, 1, 10)
        if self.offset_unit is not None:
            checks.one_of("offset_unit", self.offset_unit, get_args(OffsetUnit))

    def of(self, texts: Sequence[str]) -> Self:
        """The same of other texts."""
        return dataclasses.replace(self, texts=texts)

    def parts(self, max_texts: int) -> list[Self]:
        """Requests that are small enough for the server, in order.

        Raises:
            InvalidRequest: a text cannot be sent.
        """
        packer = Packer(max_texts)
        parts = [full for text in self.texts if (full := packer.add(text))]
        if rest := packer.rest():
            parts.append(rest)
        return [self.of(part) for part in parts]


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
        _check_entities(self)
        if self.labels is not None:
            checks.strings("labels", self.labels)
        if self.threshold is not None:
            checks.number("threshold", self.threshold, 0, 1)


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
        _check_entities(self)
        if self.ignore_labels is not None:
            checks.strings("ignore_labels", self.ignore_labels)
        checks.flag("raw_scores", self.raw_scores)


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

    def __post_init__(self) -> None:
        """Raises TypeError, ValueError: the name is none."""
        checks.word("name", self.name)


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
    """The texts of a call, each of which must be a string with something in it.

    Raises:
        TypeError: one is no string, or there is nothing to iterate over.
        InvalidRequest: one is empty.
    """
    if isinstance(texts, str):
        found: tuple[str, ...] = (texts,)
    elif isinstance(texts, Iterable) and not isinstance(texts, bytes | bytearray):
        found = tuple(texts)
    else:
        raise checks.wrong_type("texts", "a string or several of them", texts)
    for index, text in enumerate(found):
        check_text(text, index)
        if not text:
            raise InvalidRequest(f"texts[{index}] is empty", reason="empty_input")
    return found


def check_text(text: object, index: int) -> None:
    """Raises TypeError where a text is none."""
    if not isinstance(text, str):
        raise checks.wrong_type(f"texts[{index}]", "a string", text)


def _check_entities(request: Extract | PredictTokens) -> None:
    if request.aggregation is not None:
        checks.one_of("aggregation", request.aggregation, get_args(Aggregation))
    if request.truncation_side is not None:
        checks.one_of("truncation_side", request.truncation_side, get_args(Side))
    if request.truncate is not None:
        checks.flag("truncate", request.truncate)
