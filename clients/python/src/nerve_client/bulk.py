"""Many texts, lazily and in order: batches, isolating what fails alone. Pure; waiting is elsewhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from nerve_client.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ItemError,
    NerveError,
    Overloaded,
    ServerError,
)
from nerve_client.requests import MAX_BYTES, check_text, utf8_bytes
from nerve_client.results import Entity

OnError: TypeAlias = Literal["raise", "return"]
Outcome: TypeAlias = "list[Entity] | NerveError"
"""What became of one text."""


@dataclass(slots=True)
class Batch:
    """Texts in a row of which `texts` go to the server; the others, by position, cannot."""

    first: int
    texts: list[str] = field(default_factory=list)
    faults: dict[int, NerveError] = field(default_factory=dict)
    bytes: int = 0

    def __len__(self) -> int:
        return len(self.texts) + len(self.faults)

    def add(self, text: str) -> None:
        """Put a text at the end. Raises TypeError where it is none."""
        check_text(text, self.first + len(self))
        if not text:
            error = InvalidRequest("the text is empty", reason="empty_input")
            self.faults[len(self)] = error
            return
        try:
            self.bytes += utf8_bytes(text)
        except InvalidRequest as error:
            self.faults[len(self)] = error
        else:
            self.texts.append(text)

    def results(
        self, outcomes: Sequence[Outcome], on_error: OnError
    ) -> Iterator[list[Entity] | ItemError]:
        """The result of each text, in order; `outcomes` are those of `texts`.

        Raises:
            ItemError: a text failed, and `on_error` is "raise".
        """
        sent = iter(outcomes)
        for position in range(len(self)):
            outcome = self.faults.get(position) or next(sent)
            if isinstance(outcome, NerveError):
                item = ItemError(self.first + position, outcome)
                if on_error == "raise":
                    raise item from outcome
                yield item
            else:
                yield outcome


class Batcher:
    """Collects texts of an iterable into batches."""

    def __init__(self, size: int) -> None:
        self._size, self._batch = size, Batch(0)

    def add(self, text: str) -> Batch | None:
        """Take a text in; gives the batch that it makes full. Raises TypeError where it is none."""
        self._batch.add(text)
        full = len(self._batch) >= self._size or self._batch.bytes >= MAX_BYTES
        return self.rest() if full else None

    def rest(self) -> Batch | None:
        """What is collected, if anything."""
        batch = self._batch
        self._batch = Batch(batch.first + len(batch))
        return batch if len(batch) else None


def batches(texts: Iterable[str], size: int) -> Iterator[Batch]:
    """Batches of an iterable, which is read no further than it must be.

    Raises:
        what the iterable raises, after the texts before that; TypeError for what is no text.
    """
    batcher = Batcher(size)
    try:
        for text in texts:
            if full := batcher.add(text):
                yield full
    except Exception:
        if rest := batcher.rest():
            yield rest
        raise
    if rest := batcher.rest():
        yield rest


async def async_batches(
    texts: Iterable[str] | AsyncIterable[str], size: int
) -> AsyncGenerator[Batch, None]:
    """The same of an iterable of either kind."""
    if not isinstance(texts, AsyncIterable):
        for batch in batches(texts, size):
            yield batch
        return
    batcher = Batcher(size)
    try:
        async for text in texts:
            if full := batcher.add(text):
                yield full
    except Exception:
        if rest := batcher.rest():
            yield rest
        raise
    if rest := batcher.rest():
        yield rest


def fails_alone(error: NerveError) -> bool:
    """Whether a text can be to blame, or the moment, so that others may fare better.

    What is left (nobody answers, no such model, no access) would meet every other text as well.
    """
    return isinstance(error, InvalidRequest | ServerError | DeadlineExceeded | Overloaded)


def isolate(
    texts: Sequence[str],
) -> Generator[Sequence[str], Sequence[Outcome] | NerveError, list[Outcome]]:
    """Find out what becomes of each text where one bad text fails those that it is sent with.

    Yields texts to send; takes their outcomes, or the error that they met together. A batch that
    the server refused or failed on is halved until what is bad stands alone.

    Returns:
        The outcome of each text.
    Raises:
        NerveError: one that does not `fails_alone`.
    """
    outcomes: dict[int, Outcome] = {}
    todo = [range(len(texts))]
    while todo:
        part = todo.pop()
        said = yield [texts[index] for index in part]
        if not isinstance(said, NerveError):
            outcomes.update(zip(part, said, strict=True))
        elif not fails_alone(said):
            raise said
        elif len(part) > 1 and isinstance(said, InvalidRequest | ServerError):
            middle = len(part) // 2
            todo += [part[middle:], part[:middle]]
        else:
            outcomes.update(dict.fromkeys(part, said))
    return [outcomes[index] for index in range(len(texts))]
