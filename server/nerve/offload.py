"""Small work on the event loop, the rest in a thread: the one place that says what is small."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

INLINE_TEXTS: Final = 4
INLINE_CHARACTERS: Final = 500
INLINE_TOKENS: Final = 256
INLINE_BYTES: Final = 64 * 1024
"""Up to here tokenizing, decoding, writing and parsing take well under a millisecond, and a hop to
a thread would cost about as much."""


def small_texts(texts: Sequence[str]) -> bool:
    """Whether texts are tokenized on the loop."""
    return len(texts) <= INLINE_TEXTS and sum(map(len, texts)) <= INLINE_CHARACTERS


def small_answer(texts: int, tokens: int) -> bool:
    """Whether an answer is decoded and written on the loop."""
    return texts <= INLINE_TEXTS and tokens <= INLINE_TOKENS


async def offload(work: Callable[[], T], *, inline: bool) -> T:
    """Do `work` here or in a thread."""
    return work() if inline else await asyncio.to_thread(work)
