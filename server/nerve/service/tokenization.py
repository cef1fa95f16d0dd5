"""Texts -> tokens and ids -> texts by a model's tokenizer, and what it is; nothing is run here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from nerve.config.running import Precision
from nerve.config.server import ServerConfig
from nerve.errors import DeadlineExceeded, EmptyInput, InvalidField, TooManyInputs
from nerve.repository.catalog import Catalog
from nerve.service.inference import Call, check_texts, unit_of
from nerve.types import ModelInfo, TextTokens
from nerve.words import OffsetUnit

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Described:
    """A version that answers: what it is, and what its graph was converted to (None: it was not)."""

    info: ModelInfo
    precision: Precision | None


class TokenizationService:
    """Uses models' tokenizers on behalf of every protocol."""

    def __init__(self, catalog: Catalog, *, config: ServerConfig) -> None:
        self._catalog, self._config = catalog, config

    def describe(self, model: str | None, version: str | None) -> Described:
        """The version that would answer; the highest one where several share the requests.

        Raises what `Catalog.lease` raises.
        """
        copy = self._catalog.current(model, version)
        return Described(copy.served.info, copy.config.optimization.precision)

    async def tokenize(
        self,
        call: Call,
        texts: Sequence[str],
        *,
        add_special_tokens: bool | None,
        offset_unit: OffsetUnit | None,
    ) -> tuple[ModelInfo, list[TextTokens]]:
        """Every token of each text, which is not cut; positions in code points by default.

        Raises:
            EmptyInput, TooManyInputs, DeadlineExceeded.
            InvalidField: more tokens than as many texts as are taken have, each as long as the
                model takes.
            What `Catalog.lease` and `ServedModel.tokenize` raise.
        """
        check_texts(texts, call.max_texts)
        with self._catalog.lease(call.model, call.version) as model:
            info = model.info
            tokens = await _within(
                call.deadline,
                model.tokenize(
                    texts,
                    add_special_tokens=add_special_tokens,
                    unit=unit_of(offset_unit, info, self._config, OffsetUnit.CODEPOINT),
                    max_tokens=info.max_tokens * call.max_texts,
                ),
            )
        return info, tokens

    async def decode(
        self, call: Call, rows: Sequence[list[int]], *, skip_special_tokens: bool
    ) -> tuple[ModelInfo, list[str]]:
        """The text of each row of ids.

        Raises:
            EmptyInput: there is no row, or one without ids.
            TooManyInputs, DeadlineExceeded.
            InvalidField: an id is not in the vocabulary, or there are more of them than in as many
                texts as are taken, each as long as the model takes.
            What `Catalog.lease` and `ServedModel.decode` raise.
        """
        _check_rows(rows, call.max_texts)
        with self._catalog.lease(call.model, call.version) as model:
            info = model.info
            given, limit = sum(map(len, rows)), info.max_tokens * call.max_texts
            if given > limit:
                raise InvalidField("ids", f"{given} ids in one request, at most {limit} are taken")
            decoding = model.decode(rows, skip_special_tokens=skip_special_tokens)
            texts = await _within(call.deadline, decoding)
        return info, texts


def _check_rows(rows: Sequence[list[int]], limit: int) -> None:
    if not rows:
        raise EmptyInput("ids")
    if len(rows) > limit:
        raise TooManyInputs(len(rows), limit)
    if [] in rows:
        raise EmptyInput(f"ids[{list(rows).index([])}]")


async def _within(deadline: float | None, work: Awaitable[T]) -> T:
    """What `work` gives, if it does by `deadline` (monotonic seconds).

    Raises:
        DeadlineExceeded: it does not; a thread that is at it ends what it began.
    """
    left_s = None if deadline is None else deadline - time.monotonic()
    try:
        async with asyncio.timeout(left_s):
            return await work
    except TimeoutError:
        raise DeadlineExceeded from None
